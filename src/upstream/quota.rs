//! What an upstream says of how much it will still give. Pure.
//!
//! Docker Hub writes `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 20;w=21600`; drafts of the IETF (HTTPAPI,
//! "`RateLimit` header fields for HTTP") have the same with `ratelimit-reset`, then `RateLimit: limit=100, remaining=50,
//! reset=5`, then `RateLimit: "default";r=50;t=5` with `RateLimit-Policy: "default";q=100;w=60`. GitLab's reset is a
//! point in time. Whatever cannot be read is as if it were not there.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, HeaderName};

use super::answer::text;

const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const COMBINED: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Smallest number of seconds that is a point in time since 1970 rather than a span: 2001, or 31 years.
const POINTS_FROM: u64 = 1_000_000_000;

/// The part of its limit below which a quota is short: one in ten.
const SHORT_PART: u64 = 10;

/// How much an upstream will still give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    /// How many requests are left.
    pub(super) remaining: u64,
    /// Of how many, where that is known.
    limit: Option<u64>,
}

impl Quota {
    /// What an answer says of it, if it does.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let remaining = number(headers, &REMAINING)
            .or_else(|| parameter(headers, &COMBINED, &["remaining", "r"]))?;
        let limit = number(headers, &LIMIT)
            .or_else(|| parameter(headers, &COMBINED, &["limit"]))
            .or_else(|| parameter(headers, &POLICY, &["q"]));
        Some(Self { remaining, limit })
    }

    /// Whether there is so little left that it is to be kept for what is needed most.
    pub(super) fn is_short(self) -> bool {
        match self.limit {
            Some(limit) => self.remaining < limit.div_ceil(SHORT_PART),
            None => self.remaining == 0,
        }
    }
}

/// When there will be more, from `now` on, if an answer says so.
pub(super) fn reset(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let seconds =
        number(headers, &RESET).or_else(|| parameter(headers, &COMBINED, &["reset", "t"]))?;
    if seconds < POINTS_FROM {
        return Some(Duration::from_secs(seconds));
    }
    let point = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    Some(point.duration_since(now).unwrap_or_default())
}

/// The number a header begins with.
fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    digits(parts(text(headers, name)?).next()?)
}

/// The number of the first parameter of these names.
fn parameter(headers: &HeaderMap, name: &HeaderName, keys: &[&str]) -> Option<u64> {
    let pairs = parts(text(headers, name)?).filter_map(|part| part.split_once('='));
    let mut found = pairs.filter(|(key, _)| keys.contains(&key.trim()));
    digits(found.next()?.1)
}

fn parts(value: &str) -> impl Iterator<Item = &str> {
    value.split([',', ';'])
}

/// A number without a sign; one that is too large for us is as good as the largest.
pub(super) fn digits(text: &str) -> Option<u64> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            let value = value.parse().expect("a value");
            (HeaderName::from_static(name), value)
        });
        lines.collect()
    }

    #[test]
    fn every_way_to_say_what_is_left_is_read() {
        let check = |lines: &[(&'static str, &str)], expected: Option<(u64, Option<u64>)>| {
            let found = Quota::read(&headers(lines)).map(|quota| (quota.remaining, quota.limit));
            assert_eq!(found, expected, "{lines:?}");
        };
        let (limit, remaining) = ("ratelimit-limit", "ratelimit-remaining");
        check(
            &[(limit, "100;w=21600"), (remaining, "20;w=21600")],
            Some((20, Some(100))),
        );
        check(
            &[(limit, "100, 100;w=60"), (remaining, "7")],
            Some((7, Some(100))),
        );
        check(&[(remaining, "0;w=21600")], Some((0, None)));
        check(
            &[("ratelimit", "limit=100, remaining=50, reset=5")],
            Some((50, Some(100))),
        );
        check(
            &[
                ("ratelimit", r#""default";r=50;t=30"#),
                ("ratelimit-policy", r#""default";q=100;w=60"#),
            ],
            Some((50, Some(100))),
        );
        let huge = "1000000000000000000000000000000";
        check(&[(remaining, huge)], Some((u64::MAX, None)));
        for value in ["", "-1", "many", "1.5", "0x10", ";w=3", "remaining"] {
            check(&[(remaining, value), (limit, value)], None);
            check(&[("ratelimit", value)], None);
        }
        check(&[], None);
        check(&[(limit, "100")], None);
    }

    #[test]
    fn a_tenth_is_short() {
        let check = |remaining, limit, expected| {
            assert_eq!(Quota { remaining, limit }.is_short(), expected);
        };
        check(9, Some(100), true);
        check(10, Some(100), false);
        check(0, Some(100), true);
        check(0, Some(1), true);
        check(1, Some(1), false);
        check(0, Some(0), false);
        check(0, None, true);
        check(1, None, false);
        check(u64::MAX, Some(u64::MAX), false);
    }

    #[test]
    fn a_reset_is_a_span_or_a_point_in_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        let check = |name: &'static str, value: &str, expected: Option<u64>| {
            let found = reset(&headers(&[(name, value)]), now);
            assert_eq!(found, expected.map(Duration::from_secs), "{value}");
        };
        check("ratelimit-reset", "30", Some(30));
        check("ratelimit-reset", "1600000060", Some(60));
        check("ratelimit-reset", "1500000000", Some(0));
        check("ratelimit", "limit=100, remaining=0, reset=5", Some(5));
        check("ratelimit", r#""default";r=0;t=9"#, Some(9));
        check("ratelimit-reset", "99999999999999999999999", None);
        check("ratelimit-reset", "soon", None);
    }
}
