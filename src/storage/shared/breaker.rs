//! Whether the store is asked at all. Pure: times and chance are parameters.
//!
//! Silence opens the breaker at once, other failures after several in a row. While it is open nobody asks; then one
//! question is let through, and what comes of it closes the breaker or opens it for longer.

use std::time::Duration;

use tokio::time::Instant;

/// How many failures in a row open it: stores shed load with single 503s.
const FAILURES_MAX: u32 = 3;

/// The first pause. Whoever asks again waits at most for one time-out.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest pause: so long a store that is back may go unnoticed.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How much longer a pause may be, by chance: replicas that were cut together do not come back at the same instant.
const JITTER: f64 = 0.2;

/// A question that was let through to see, and of which nothing came within this time, was given up by who asked.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// The breaker of the store.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    phase: Phase,
    /// How often the pause was doubled.
    doubled: u32,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Everybody asks.
    Closed { failures: u32 },
    /// Nobody asks.
    Open { until: Instant },
    /// One asks, to see whether others may.
    Probing { since: Instant },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// That the breaker opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    /// For how long.
    pub(super) pause: Duration,
    /// Whether it was closed before.
    pub(super) is_first: bool,
}

impl Breaker {
    /// Whether a question may be asked now. Who is let through says what came of it.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::Closed { .. } => true,
            Phase::Open { until } if now < until => false,
            Phase::Probing { since } if now < since + PROBE_MAX => false,
            Phase::Open { .. } | Phase::Probing { .. } => {
                self.phase = Phase::Probing { since: now };
                true
            }
        }
    }

    /// How long nobody asks; `None` where somebody may.
    pub(super) fn left_alone_for(&self, now: Instant) -> Option<Duration> {
        let until = match self.phase {
            Phase::Closed { .. } => return None,
            Phase::Open { until } => until,
            Phase::Probing { since } => since + PROBE_MAX,
        };
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// The store answered. Gives whether it was in trouble before.
    pub(super) fn answered(&mut self) -> bool {
        let was_closed = matches!(self.phase, Phase::Closed { .. });
        *self = Self::default();
        !was_closed
    }

    /// The store did not. `chance` is between 0 and 1.
    pub(super) fn failed(&mut self, now: Instant, is_silent: bool, chance: f64) -> Option<Opened> {
        let is_first = match self.phase {
            Phase::Closed { failures } if failures + 1 < FAILURES_MAX && !is_silent => {
                self.phase = Phase::Closed {
                    failures: failures + 1,
                };
                return None;
            }
            // What was asked before it opened says nothing new.
            Phase::Open { .. } => return None,
            Phase::Closed { .. } => true,
            Phase::Probing { .. } => false,
        };
        let pause = PAUSE_MIN.saturating_mul(1 << self.doubled).min(PAUSE_MAX);
        let pause = pause.mul_f64(1.0 + JITTER * chance);
        self.doubled = (self.doubled + 1).min(5);
        self.phase = Phase::Open { until: now + pause };
        Some(Opened { pause, is_first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn several_failures_in_a_row_open_it_and_an_answer_closes_it() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert_eq!(breaker.failed(now, false, 0.0), None);
        assert_eq!(breaker.failed(now, false, 0.0), None);
        assert!(!breaker.answered(), "it was never open");
        assert_eq!(breaker.failed(now, false, 0.0), None);
        assert_eq!(breaker.failed(now, false, 0.0), None);
        let opened = breaker.failed(now, false, 0.0).expect("the third");
        assert_eq!((opened.pause, opened.is_first), (seconds(1), true));
        assert!(!breaker.admits(now));
        assert_eq!(breaker.left_alone_for(now), Some(seconds(1)));
        assert!(breaker.admits(now + seconds(1)) && !breaker.admits(now + seconds(1)));
        assert!(breaker.answered());
        assert!(breaker.admits(now));
    }

    #[test]
    fn silence_opens_it_at_once_and_pauses_grow_up_to_a_bound() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(breaker.admits(now));
            let opened = breaker.failed(now, true, 1.0).expect("it opens");
            pauses.push(opened.pause);
            now += opened.pause;
        }
        assert_eq!(pauses[0], seconds(1).mul_f64(1.2));
        assert_eq!(pauses[1], seconds(2).mul_f64(1.2));
        assert_eq!(pauses[7], seconds(30).mul_f64(1.2));
    }

    #[test]
    fn who_was_let_through_and_left_keeps_nobody_out() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.failed(now, true, 0.0).expect("it opens");
        let later = now + seconds(1);
        assert!(breaker.admits(later));
        assert!(!breaker.admits(later + seconds(4)));
        assert!(breaker.admits(later + PROBE_MAX));
    }
}
