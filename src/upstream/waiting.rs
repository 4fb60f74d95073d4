//! For how long nothing has been heard of one endpoint while somebody waits for it. Pure: times are parameters.
//!
//! A time-out is long: a registry may be slow, and whoever has nothing else can only wait. Whoever holds a copy need
//! not, and need not find out for themselves either: once one caller's patience has run out, nobody else who holds a
//! copy waits for that endpoint, until it is heard of again or left alone. What counts is who waits for an answer to
//! HEAD: what takes a registry long to fetch is no silence.

use std::time::Duration;

use tokio::time::Instant;

/// Who waits for one endpoint.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    n_callers: usize,
    /// Since when nothing was heard, while anybody waits.
    since: Option<Instant>,
}

impl Waiting {
    /// One more waits from `now` on.
    pub(super) fn begin(&mut self, now: Instant) {
        self.n_callers += 1;
        self.since.get_or_insert(now);
    }

    /// The endpoint was heard of, by whomever.
    pub(super) fn heard(&mut self, now: Instant) {
        self.since = self.since.map(|_| now);
    }

    /// One of them waits no longer.
    pub(super) fn end(&mut self) {
        self.n_callers = self.n_callers.saturating_sub(1);
        if self.n_callers == 0 {
            self.since = None;
        }
    }

    /// How long they have waited in vain.
    pub(super) fn in_vain(&self, now: Instant) -> Duration {
        let waited = |since| now.saturating_duration_since(since);
        self.since.map(waited).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn it_counts_from_the_first_who_waits_until_somebody_hears_something() {
        let (start, mut waiting) = (Instant::now(), Waiting::default());
        assert_eq!(waiting.in_vain(at(start, 5)), Duration::ZERO);
        waiting.begin(start);
        waiting.begin(at(start, 300));
        assert_eq!(waiting.in_vain(at(start, 800)), Duration::from_millis(800));
        waiting.heard(at(start, 900));
        waiting.end();
        assert_eq!(waiting.in_vain(at(start, 1000)), Duration::from_millis(100));
        waiting.end();
        assert_eq!(waiting.in_vain(at(start, 9000)), Duration::ZERO);
    }

    #[test]
    fn who_gives_up_has_heard_nothing() {
        let (start, mut waiting) = (Instant::now(), Waiting::default());
        waiting.begin(start);
        waiting.begin(at(start, 100));
        waiting.end();
        assert_eq!(waiting.in_vain(at(start, 800)), Duration::from_millis(800));
        waiting.end();
        assert_eq!(waiting.in_vain(at(start, 900)), Duration::ZERO);
        waiting.heard(at(start, 900));
        assert_eq!(waiting.in_vain(at(start, 9000)), Duration::ZERO);
    }
}
