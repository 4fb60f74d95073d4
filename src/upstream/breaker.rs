//! Whether one endpoint is asked at all. Pure: times and chance are parameters.
//!
//! What counts as a failure is that nobody answers, that the answer says that the server cannot (408, 5xx), and that it
//! asks us to come back later (429). Everything else is an answer, 404, 401 and 403 included. One 429 opens the breaker,
//! and so does one time-out with no answer to anybody in between; of other failures it takes several in a row. While it
//! is open nobody asks. Then one caller is let through, to see; what comes of that closes it or opens it again.

use std::time::Duration;

use tokio::time::Instant;

use super::{Error, Silence};

/// How many failures in a row open it. A registry at which one request in ten goes wrong is still one to ask: five in a
/// row come once in 100 000 requests then.
const FAILURES_MAX: u32 = 5;

/// The first pause, and the least that is believed: ghcr.io asks us to come back in 1.16 ms.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest pause of our own after failures: so long an upstream that is back may go unnoticed.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Longest pause of our own where upstream limits the rate without saying for how long. Docker Hub counts over hours;
/// one request a minute is nothing it would mind.
const LIMIT_PAUSE_MAX: Duration = Duration::from_mins(1);

/// Longest pause that a failing upstream may ask for. What stands in front of it writes `Retry-After` without knowing.
const FAILURE_WAIT_MAX: Duration = Duration::from_mins(1);

/// Longest pause that an upstream may ask for that limits the rate. Limits are lifted, and credentials replaced; one
/// request an hour is not what they are made against.
pub(super) const LIMIT_WAIT_MAX: Duration = Duration::from_hours(1);

/// How long after a pause for silence it is still taken for granted that there is silence: whoever asks in that time, and
/// tries for everybody, is one of many, and those who follow in a moment see what came of it. Later it may be hours that
/// nobody has asked, and nobody knows.
const SILENCE_BELIEVED: Duration = Duration::from_secs(5);

/// How much longer a pause may be, by chance: mirrors that were cut together do not all come back at the same instant.
const JITTER: f64 = 0.2;

/// Most of that. Clients are told how long the pause is, and what upstream asked for is to be about what they hear.
const JITTER_MAX: Duration = Duration::from_secs(1);

/// An endpoint that fails again this soon after it was back has not been: pauses go on growing. Where only some requests
/// are limited, as Docker Hub's GET are and HEAD are not, the others close the breaker every time.
const RELAPSE: Duration = Duration::from_mins(2);

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// An answer, whatever it says.
    Answer,
    /// No answer, or one that says that there will be none.
    Failure {
        /// What went wrong.
        cause: Cause,
        /// How long upstream wants to be left alone, where it says so.
        wait: Option<Duration>,
    },
}

impl Sign {
    /// Whether anything was heard at all.
    pub(super) const fn is_of_life(self) -> bool {
        match self {
            Self::Answer
            | Self::Failure {
                cause: Cause::RateLimited | Cause::Unavailable,
                ..
            } => true,
            Self::Failure {
                cause: Cause::TimedOut(_),
                ..
            } => false,
        }
    }
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// 429.
    RateLimited,
    /// No connection, or 408 or 5xx.
    Unavailable,
    /// Nothing came in time.
    TimedOut(Silence),
}

impl Cause {
    /// The word for it in the log.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "it limits the rate",
            Self::Unavailable => "it cannot be reached or fails",
            Self::TimedOut(_) => "it does not answer",
        }
    }
}

/// Leave to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    generation: u64,
    /// Answers to anybody, when it was given.
    answers: u64,
}

/// That nobody asks now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    cause: Cause,
    /// For how long at least.
    pub(super) wait: Duration,
}

impl Refusal {
    /// The same kind of error as the one that opened the breaker.
    pub(super) fn error(&self) -> Error {
        match self.cause {
            Cause::RateLimited => {
                // Whole seconds are all that `Retry-After` can say, and earlier is too early.
                let seconds = self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0);
                let retry_after = Some(Duration::from_secs(seconds));
                Error::RateLimited { retry_after }
            }
            Cause::Unavailable => Error::unavailable("it failed a moment ago and is left alone"),
            Cause::TimedOut(silence) => Error::TimedOut(silence),
        }
    }
}

/// A change that somebody may want to know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is open now, for so long.
    Opened(Cause, Duration),
    /// It was tried in vain, and is open for so long.
    OpenedAgain(Cause, Duration),
    /// It is closed again.
    Closed,
}

/// The breaker of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    phase: Phase,
    /// Counts the changes of phase, so that what was asked before one says nothing about what is after it.
    generation: u64,
    /// Answers to anybody.
    answers: u64,
    /// How often the pause was doubled.
    doubled: u32,
    /// When it was closed last.
    closed: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Everybody asks.
    Closed {
        /// In a row.
        failures: u32,
    },
    /// Nobody asks.
    Open { cause: Cause, until: Instant },
    /// One asks, to see whether others may, since the pause was over.
    Probing { cause: Cause, until: Instant },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Leave to ask, at the time `now`. Whoever gets it says what came of it, by [`report`](Self::report) or
    /// [`give_back`](Self::give_back).
    ///
    /// # Errors
    /// While it is open, and while somebody else is trying.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Ticket, Refusal> {
        if let Some(refusal) = self.refusal(now) {
            return Err(refusal);
        }
        if let Phase::Open { cause, until } = self.phase {
            self.enter(Phase::Probing { cause, until });
        }
        Ok(Ticket {
            generation: self.generation,
            answers: self.answers,
        })
    }

    /// Why nobody asks at the time `now`, where that is so.
    pub(super) fn refusal(&self, now: Instant) -> Option<Refusal> {
        match self.phase {
            Phase::Closed { .. } => None,
            Phase::Open { cause, until } => {
                let wait = until.saturating_duration_since(now);
                (!wait.is_zero()).then_some(Refusal { cause, wait })
            }
            // Nobody knows how long it takes.
            Phase::Probing { cause, .. } => Some(Refusal {
                cause,
                wait: PAUSE_MIN,
            }),
        }
    }

    /// Whether it is open because of a time-out, nobody has heard anything since, and that still counts at the time `now`.
    pub(super) fn has_timed_out(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Open { cause, until } | Phase::Probing { cause, until } => {
                matches!(cause, Cause::TimedOut(_)) && now < until + SILENCE_BELIEVED
            }
            Phase::Closed { .. } => false,
        }
    }

    /// What came of a request that `ticket` was given for. `chance` is between 0 and 1.
    pub(super) fn report(
        &mut self,
        ticket: Ticket,
        sign: Sign,
        now: Instant,
        chance: f64,
    ) -> Option<Change> {
        let is_of_now = ticket.generation == self.generation;
        match sign {
            Sign::Answer => self.answered(is_of_now, now),
            Sign::Failure { cause, wait } => match self.phase {
                Phase::Closed { failures } => {
                    let failures = failures + self.weight(ticket, cause);
                    if failures < FAILURES_MAX {
                        self.phase = Phase::Closed { failures };
                        return None;
                    }
                    let is_relapse = self.closed.is_some_and(|closed| now < closed + RELAPSE);
                    self.doubled = if is_relapse { self.doubled + 1 } else { 0 };
                    let pause = self.open(cause, wait, now, chance);
                    Some(Change::Opened(cause, pause))
                }
                Phase::Probing { .. } if is_of_now => {
                    self.doubled += 1;
                    let pause = self.open(cause, wait, now, chance);
                    Some(Change::OpenedAgain(cause, pause))
                }
                // Asked before it opened: a limit is one, whoever runs into it.
                Phase::Open { until, .. } if cause == Cause::RateLimited && wait.is_some() => {
                    let later = now + pause(cause, wait, self.doubled, chance);
                    let until = later.max(until);
                    self.phase = Phase::Open { cause, until };
                    None
                }
                Phase::Open { .. } | Phase::Probing { .. } => None,
            },
        }
    }

    /// For how many failures in a row this one stands, while the breaker is closed.
    fn weight(&self, ticket: Ticket, cause: Cause) -> u32 {
        let others_were_answered = self.answers > ticket.answers;
        match cause {
            Cause::RateLimited => FAILURES_MAX,
            // It tells of a time before the last change.
            Cause::Unavailable | Cause::TimedOut(_) if ticket.generation != self.generation => 0,
            Cause::TimedOut(_) if !others_were_answered => FAILURES_MAX,
            Cause::Unavailable | Cause::TimedOut(_) => 1,
        }
    }

    /// Nothing came of `ticket`: whoever had it went away, or did not get as far as the endpoint.
    pub(super) fn give_back(&mut self, ticket: Ticket) {
        if let Phase::Probing { cause, until } = self.phase
            && ticket.generation == self.generation
        {
            self.enter(Phase::Open { cause, until });
        }
    }

    fn answered(&mut self, is_of_now: bool, now: Instant) -> Option<Change> {
        match self.phase {
            Phase::Closed { .. } => {
                self.answers += 1;
                self.phase = Phase::Closed { failures: 0 };
                None
            }
            Phase::Probing { .. } if is_of_now => {
                self.closed = Some(now);
                self.enter(Phase::Closed { failures: 0 });
                Some(Change::Closed)
            }
            Phase::Open { .. } | Phase::Probing { .. } => None,
        }
    }

    fn open(
        &mut self,
        cause: Cause,
        wait: Option<Duration>,
        now: Instant,
        chance: f64,
    ) -> Duration {
        let pause = pause(cause, wait, self.doubled, chance);
        let until = now + pause;
        self.enter(Phase::Open { cause, until });
        pause
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }
}

/// For how long nobody asks.
fn pause(cause: Cause, wait: Option<Duration>, doubled: u32, chance: f64) -> Duration {
    let own = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(doubled));
    let pause = match (cause, wait) {
        (Cause::RateLimited, Some(wait)) => wait.clamp(PAUSE_MIN, LIMIT_WAIT_MAX),
        (Cause::RateLimited, None) => own.min(LIMIT_PAUSE_MAX),
        (Cause::Unavailable | Cause::TimedOut(_), wait) => {
            let wait = wait.unwrap_or_default().min(FAILURE_WAIT_MAX);
            own.min(FAILURE_PAUSE_MAX).max(wait)
        }
    };
    pause + pause.mul_f64(JITTER).min(JITTER_MAX).mul_f64(chance)
}

#[cfg(test)]
mod tests;
