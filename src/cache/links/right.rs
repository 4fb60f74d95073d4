//! How long a right is believed.

use std::time::{Duration, SystemTime};

use crate::upstream::{self, Holder, Repository};

/// How long the mirror's own right goes on while upstream is in trouble, after it was confirmed last: as long as a tag
/// does by default, which is longer than any outage and any long week-end.
const OWN_RIGHT_STALE: Duration = Duration::from_hours(7 * 24);

/// Until when a right is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Right {
    /// When upstream confirmed it.
    pub(super) checked: SystemTime,
    /// Until when it is not asked again.
    pub(super) until: SystemTime,
    /// When it had been confirmed according to the disk.
    pub(super) on_disk: SystemTime,
}

impl Right {
    pub(super) fn new(source: &Repository, checked: SystemTime) -> Self {
        let ttl = source.policy().authz_ttl;
        let until = checked.checked_add(ttl).unwrap_or(checked);
        let expires = source.caller().and_then(upstream::CallerToken::expires);
        Self {
            checked,
            until: expires.map_or(until, |expires| expires.min(until)),
            on_disk: checked,
        }
    }

    /// Whether upstream need not be asked. A time that lies ahead comes from a clock that was set back since.
    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        self.checked <= now && now < self.until
    }

    /// Whether it goes on while upstream is in trouble.
    pub(super) fn outlasts_trouble(&self, source: &Repository, now: SystemTime) -> bool {
        let (since, longest) = match source.holder() {
            Holder::Caller(_) => (self.until, source.policy().authz_grace),
            Holder::Anybody | Holder::Mirror(_) => (self.checked, OWN_RIGHT_STALE),
        };
        let elapsed = now.duration_since(since).unwrap_or_default();
        self.checked <= now && elapsed < longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_from_the_future_is_not_fresh() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let right = Right {
            checked: at(2_000),
            until: at(2_300),
            on_disk: at(2_000),
        };
        assert!(right.is_fresh(at(2_000)) && right.is_fresh(at(2_299)));
        assert!(!right.is_fresh(at(2_300)) && !right.is_fresh(at(1_999)));
    }
}
