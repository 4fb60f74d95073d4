//! Whether a tag may be served as it is known. Pure: the time is a parameter.

mod policy;
pub use policy::{Lifetime, OnRefusal, TagPolicy, TagRule, TagTerms};

mod spread;
pub(super) use spread::{Early, Spread};

use std::time::{Duration, SystemTime};

/// What may be done with a tag as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It may be served.
    Fresh,
    /// It may be served with a warning while upstream is asked behind (RFC 5861 section 3).
    StaleWhileRevalidate {
        /// For how long it has not been fresh any more.
        by: Duration,
    },
    /// Upstream is to be asked; should upstream be in trouble, it may be served with a warning (RFC 5861 section 4).
    Revalidate {
        /// For how long it has not been fresh any more.
        by: Duration,
    },
    /// Upstream is to be asked, and nothing else will do.
    Expired,
}

/// Judges a tag that upstream confirmed at `checked`, at the time `now` (RFC 9111 section 4.2: fresh while the age is
/// less than the lifetime).
///
/// A clock that was set back makes a record look as if it came from the future. It is then asked for again, at once,
/// rather than frozen until the clock has caught up. An immutable tag needs no clock.
pub(super) fn decide(
    checked: SystemTime,
    terms: &TagTerms,
    early: Early,
    now: SystemTime,
) -> Freshness {
    let ttl = match terms.lifetime {
        Lifetime::Immutable => return Freshness::Fresh,
        Lifetime::Limited(ttl) => ttl,
    };
    let age = match now.duration_since(checked) {
        Ok(age) => age,
        Err(ahead) if ahead.duration() < terms.stale_if_error => {
            let by = Duration::ZERO;
            return Freshness::Revalidate { by };
        }
        Err(_) => return Freshness::Expired,
    };
    let Some(by) = age.checked_sub(early.cut(ttl)) else {
        return Freshness::Fresh;
    };
    // A tag without a ttl is one that is asked for before it is answered.
    if !ttl.is_zero() && by < terms.stale_while_revalidate {
        Freshness::StaleWhileRevalidate { by }
    } else if by < terms.stale_if_error {
        Freshness::Revalidate { by }
    } else {
        Freshness::Expired
    }
}

/// For how long a tag stays [`Freshness::Fresh`] from now on; `None` where it is not.
pub(super) fn fresh_for(
    checked: SystemTime,
    terms: &TagTerms,
    early: Early,
    now: SystemTime,
) -> Option<Duration> {
    let Lifetime::Limited(ttl) = terms.lifetime else {
        return Some(Duration::MAX);
    };
    let age = now.duration_since(checked).ok()?;
    let left = early.cut(ttl).checked_sub(age)?;
    (!left.is_zero()).then_some(left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_mins(15);
    const WINDOW: Duration = Duration::from_hours(1);

    fn terms(ttl: Duration) -> TagTerms {
        TagTerms {
            lifetime: Lifetime::Limited(ttl),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: WINDOW,
            on_not_found: OnRefusal::Deny,
            on_unauthorized: OnRefusal::Deny,
        }
    }

    fn judge(age_seconds: i64, terms: &TagTerms, early: Early) -> Freshness {
        let checked = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let by = Duration::from_secs(age_seconds.unsigned_abs());
        let now = if age_seconds < 0 {
            checked - by
        } else {
            checked + by
        };
        let freshness = decide(checked, terms, early, now);
        // It is fresh for as long as it is said to be, and not for longer.
        let left = fresh_for(checked, terms, early, now);
        assert_eq!(left.is_some(), freshness == Freshness::Fresh);
        if let Some(left) = left.filter(|left| *left != Duration::MAX) {
            let shortly = Duration::from_nanos(1);
            let last = decide(checked, terms, early, now + left - shortly);
            assert_eq!(last, Freshness::Fresh);
            let next = decide(checked, terms, early, now + left);
            assert_ne!(next, Freshness::Fresh);
        }
        freshness
    }

    fn check(age_seconds: i64, terms: &TagTerms, expected: Freshness) {
        let found = judge(age_seconds, terms, Early::NOT);
        assert_eq!(found, expected, "age {age_seconds} s");
    }

    fn revalidate(seconds: u64) -> Freshness {
        let by = Duration::from_secs(seconds);
        Freshness::Revalidate { by }
    }

    #[test]
    fn a_tag_is_fresh_then_stale_then_expired() {
        let terms = terms(TTL);
        check(0, &terms, Freshness::Fresh);
        check(899, &terms, Freshness::Fresh);
        check(900, &terms, revalidate(0));
        check(4499, &terms, revalidate(3599));
        check(4500, &terms, Freshness::Expired);
        check(-1, &terms, revalidate(0));
        check(-3601, &terms, Freshness::Expired);
    }

    #[test]
    fn a_tag_may_be_asked_for_behind_its_answer_for_a_while() {
        let terms = TagTerms {
            stale_while_revalidate: Duration::from_mins(1),
            ..terms(TTL)
        };
        let behind = |seconds| Freshness::StaleWhileRevalidate {
            by: Duration::from_secs(seconds),
        };
        check(899, &terms, Freshness::Fresh);
        check(900, &terms, behind(0));
        check(959, &terms, behind(59));
        check(960, &terms, revalidate(60));
        // A record of the future is no reason for confidence.
        check(-1, &terms, revalidate(0));
    }

    #[test]
    fn a_zero_ttl_asks_every_time() {
        let none = TagTerms {
            stale_while_revalidate: WINDOW,
            ..terms(Duration::ZERO)
        };
        check(0, &none, revalidate(0));
        let strict = TagTerms {
            stale_if_error: Duration::ZERO,
            ..none
        };
        check(0, &strict, Freshness::Expired);
    }

    #[test]
    fn an_immutable_tag_is_fresh_for_ever() {
        let terms = TagTerms {
            lifetime: Lifetime::Immutable,
            ..terms(TTL)
        };
        for age in [0, 1_000_000_000, -1_000_000] {
            check(age, &terms, Freshness::Fresh);
        }
    }

    proptest! {
        #[test]
        fn time_only_makes_a_tag_older(
            age in 0..10_000_i64, later in 0..10_000_i64, ttl in 0..3000_u64, behind in 0..3000_u64,
            window in 0..6000_u64, early: u16,
        ) {
            let terms = TagTerms {
                stale_while_revalidate: Duration::from_secs(behind),
                stale_if_error: Duration::from_secs(window),
                ..terms(Duration::from_secs(ttl))
            };
            let rank = |age| match judge(age, &terms, Early::of(early)) {
                Freshness::Fresh => 0,
                Freshness::StaleWhileRevalidate { .. } => 1,
                Freshness::Revalidate { .. } => 2,
                Freshness::Expired => 3,
            };
            prop_assert!(rank(age) <= rank(age + later));
            // Never longer than the operator said.
            prop_assert!(rank(i64::try_from(ttl).expect("small")) > 0);
        }
    }
}
