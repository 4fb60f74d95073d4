//! Whether a tag may be served as it is known. Pure: the time is a parameter.

use std::time::{Duration, SystemTime};

use regex::Regex;

use crate::oci::Tag;

/// What the operator says about tags.
#[derive(Debug, Clone)]
pub struct TagPolicy {
    /// Whether a tag is ever answered without asking upstream.
    pub cache: bool,
    /// Tags that never are; tested on the tag alone, unanchored.
    pub ignore: Option<Regex>,
    /// For how long a tag is fresh after upstream confirmed it.
    pub ttl: Duration,
    /// For how long after that it may stand in while upstream is in trouble (RFC 5861 section 4).
    pub stale_if_error: Duration,
}

/// The rule that holds for one tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagRule {
    /// For how long it is fresh after upstream confirmed it; zero asks every time.
    pub ttl: Duration,
    /// For how long after that it may stand in while upstream is in trouble.
    pub stale_if_error: Duration,
}

/// What may be done with a tag as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It may be served.
    Fresh,
    /// Upstream is to be asked; should upstream be in trouble, it may be served with a warning.
    Stale {
        /// For how long it has not been fresh any more.
        by: Duration,
    },
    /// Upstream is to be asked, and nothing else will do.
    Expired,
}

impl TagPolicy {
    /// The rule that holds for `tag`.
    pub fn rule(&self, tag: &Tag) -> TagRule {
        let ignored = self
            .ignore
            .as_ref()
            .is_some_and(|ignore| ignore.is_match(tag.as_str()));
        let ttl = if self.cache && !ignored {
            self.ttl
        } else {
            Duration::ZERO
        };
        TagRule {
            ttl,
            stale_if_error: self.stale_if_error,
        }
    }
}

/// Judges a tag that upstream confirmed at `checked`, at the time `now` (RFC 9111 section 4.2: fresh while the age is
/// less than the lifetime).
///
/// A clock that was set back makes a record look as if it came from the future. It is then asked for again, at once,
/// rather than frozen until the clock has caught up.
pub(super) fn decide(checked: SystemTime, rule: TagRule, now: SystemTime) -> Freshness {
    let age = match now.duration_since(checked) {
        Ok(age) => age,
        Err(ahead) if ahead.duration() < rule.stale_if_error => {
            return Freshness::Stale { by: Duration::ZERO };
        }
        Err(_) => return Freshness::Expired,
    };
    match age.checked_sub(rule.ttl) {
        None => Freshness::Fresh,
        Some(by) if by < rule.stale_if_error => Freshness::Stale { by },
        Some(_) => Freshness::Expired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_mins(15);
    const WINDOW: Duration = Duration::from_hours(1);

    fn check(age_seconds: i64, rule: TagRule, expected: Freshness) {
        let checked = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let by = Duration::from_secs(age_seconds.unsigned_abs());
        let now = if age_seconds < 0 {
            checked - by
        } else {
            checked + by
        };
        assert_eq!(decide(checked, rule, now), expected, "age {age_seconds} s");
    }

    #[test]
    fn a_tag_is_fresh_then_stale_then_expired() {
        let rule = TagRule {
            ttl: TTL,
            stale_if_error: WINDOW,
        };
        let stale = |seconds| Freshness::Stale {
            by: Duration::from_secs(seconds),
        };
        check(0, rule, Freshness::Fresh);
        check(899, rule, Freshness::Fresh);
        check(900, rule, stale(0));
        check(4499, rule, stale(3599));
        check(4500, rule, Freshness::Expired);
        check(-1, rule, stale(0));
        check(-3601, rule, Freshness::Expired);
    }

    #[test]
    fn a_zero_ttl_asks_every_time() {
        let rule = TagRule {
            ttl: Duration::ZERO,
            stale_if_error: WINDOW,
        };
        check(0, rule, Freshness::Stale { by: Duration::ZERO });
        check(
            0,
            TagRule {
                stale_if_error: Duration::ZERO,
                ..rule
            },
            Freshness::Expired,
        );
    }

    #[test]
    fn ignored_tags_have_no_ttl() {
        let policy = |cache, ignore: Option<&str>| TagPolicy {
            cache,
            ignore: ignore.map(|ignore| Regex::new(ignore).expect("an expression")),
            ttl: TTL,
            stale_if_error: WINDOW,
        };
        let ttl = |policy: &TagPolicy, tag: &str| policy.rule(&tag.parse().expect("a tag")).ttl;
        let default = policy(true, Some("latest"));
        assert_eq!(ttl(&default, "latest"), Duration::ZERO);
        assert_eq!(ttl(&default, "latest-alpine"), Duration::ZERO);
        assert_eq!(ttl(&default, "v1"), TTL);
        assert_eq!(ttl(&policy(true, None), "latest"), TTL);
        assert_eq!(ttl(&policy(false, None), "v1"), Duration::ZERO);
    }
}
