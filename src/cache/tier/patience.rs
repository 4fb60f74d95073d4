//! Whether uploads are waited for: whether blobs stay on disk, and fills wait for room, until others are uploaded. Pure:
//! times are parameters.
//!
//! A store that stumbles is waited for, since what is evicted meanwhile has to be fetched once more by everybody. One that
//! takes nothing for a while, or less than comes in, is not: that would cost those who pull.

use std::time::Duration;

use tokio::time::Instant;

/// How long nothing has to be taken before nobody waits any more: longer than a store is left alone at first, so that it
/// was asked several times.
const STUMBLE_MAX: Duration = Duration::from_secs(10);

/// For how long nobody waits then. Once that is over somebody may wait as long as for room once more.
const PAUSE: Duration = Duration::from_mins(1);

/// Whether uploads are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Patience {
    /// They are.
    #[default]
    Full,
    /// They are, though none has succeeded since then.
    Wearing {
        /// When the first failed.
        since: Instant,
    },
    /// They are not: none has succeeded for a while.
    Failing {
        /// When to wait again, for what comes in by then.
        until: Instant,
    },
    /// They are not: more comes in than is taken.
    Slow {
        /// When to wait again.
        until: Instant,
    },
}

impl Patience {
    /// Whether uploads are waited for.
    pub(super) fn is_left(self, now: Instant) -> bool {
        match self {
            Self::Full | Self::Wearing { .. } => true,
            Self::Failing { until } | Self::Slow { until } => now >= until,
        }
    }

    /// An upload has succeeded.
    pub(super) fn worked(&mut self, now: Instant) {
        match self {
            Self::Slow { until } if now < *until => {}
            Self::Full | Self::Wearing { .. } | Self::Failing { .. } | Self::Slow { .. } => {
                *self = Self::Full;
            }
        }
    }

    /// An upload has failed, for a reason that may be gone later. Gives whether that is why there is no patience now.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        let before = *self;
        let until = now + PAUSE;
        *self = match before {
            Self::Wearing { since } if now < since + STUMBLE_MAX => before,
            Self::Slow { until } if now < until => before,
            Self::Wearing { .. } | Self::Failing { .. } => Self::Failing { until },
            Self::Full | Self::Slow { .. } => Self::Wearing { since: now },
        };
        matches!(before, Self::Wearing { .. }) && !self.is_left(now)
    }

    /// Somebody has waited in vain for room that uploads take. Gives whether there was patience until then.
    pub(super) fn too_slow(&mut self, now: Instant) -> bool {
        let had_some = matches!(self, Self::Full | Self::Wearing { .. });
        *self = Self::Slow { until: now + PAUSE };
        had_some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_stumbles_is_waited_for_and_one_that_fails_for_long_is_not() {
        let (mut patience, start) = (Patience::default(), Instant::now());
        for second in 0..10 {
            let now = start + Duration::from_secs(second);
            assert!(!patience.failed(now));
            assert!(patience.is_left(now), "{second}");
        }
        let late = start + STUMBLE_MAX;
        assert!(patience.failed(late));
        assert!(!patience.is_left(late));
        assert!(patience.is_left(late + PAUSE), "it may be back");
        assert!(!patience.failed(late + PAUSE), "that is no news");
        assert!(!patience.is_left(late + PAUSE), "it is not");
        patience.worked(late + PAUSE);
        assert_eq!(patience, Patience::Full);
    }

    #[test]
    fn an_upload_that_succeeds_begins_the_wait_anew() {
        let (mut patience, start) = (Patience::default(), Instant::now());
        patience.failed(start);
        patience.worked(start + STUMBLE_MAX);
        patience.failed(start + STUMBLE_MAX);
        assert!(patience.is_left(start + STUMBLE_MAX));
    }

    #[test]
    fn one_that_is_too_slow_is_not_waited_for_though_it_takes_something() {
        let (mut patience, start) = (Patience::default(), Instant::now());
        assert!(patience.too_slow(start));
        patience.worked(start);
        assert!(!patience.failed(start) && !patience.is_left(start));
        patience.worked(start + PAUSE);
        assert_eq!(patience, Patience::Full);
    }
}
