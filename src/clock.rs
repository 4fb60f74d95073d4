//! The time of day: the system's, or one that a test sets.
//!
//! Freshness is judged by this clock. Time-outs use tokio's, which never jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// Where the time of day is read. Cheap to clone; all clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Seconds the clock is ahead of the system's.
    ahead: Arc<AtomicI64>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// The time now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    pub fn now(&self) -> SystemTime {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        let now = SystemTime::now();
        let moved = if ahead < 0 {
            now.checked_sub(by)
        } else {
            now.checked_add(by)
        };
        moved.unwrap_or(now)
    }

    /// Sets the clock forward by whole seconds, or back where they are negative: how a test lets a tag grow old.
    pub fn advance(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clone_shows_the_time_that_was_set() {
        let clock = Clock::system();
        let clone = clock.clone();
        let before = clock.now();
        clone.advance(3600);
        assert!(clock.now() >= before + Duration::from_hours(1));
        clone.advance(-7200);
        assert!(clock.now() < before);
    }
}
