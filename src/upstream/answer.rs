//! What the status and the headers of an answer say.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, RETRY_AFTER,
};

use super::breaker::LIMIT_WAIT_MAX;
use super::{Error, quota};
use crate::oci::Digest;

/// The digest a registry says its answer has (distribution-spec, "Pulling manifests"). Optional, and only a claim.
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What an answer that is no success means. The body has no say: those of foreign systems all differ.
pub(super) fn verdict(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Error {
    match status {
        StatusCode::NOT_FOUND => Error::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Error::denied(format!("it answers {status}"))
        }
        StatusCode::TOO_MANY_REQUESTS => Error::RateLimited {
            retry_after: wait(headers, now),
        },
        StatusCode::REQUEST_TIMEOUT => Error::unavailable(format!("it answers {status}")),
        status if status.is_server_error() => Error::unavailable(format!("it answers {status}")),
        status => Error::Protocol(format!("it answers {status}")),
    }
}

/// How long a registry that limits the rate wants to be left alone, where it says so; at most [`LIMIT_WAIT_MAX`].
pub(super) fn wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let reset = || Some(quota::reset(headers, now)?.min(LIMIT_WAIT_MAX));
    retry_after(headers, now).or_else(reset)
}

/// `Retry-After`, which is seconds or a date (RFC 9110, section 10.2.3). A date that has passed means now; nothing
/// means more than [`LIMIT_WAIT_MAX`].
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = text(headers, &RETRY_AFTER)?.trim();
    let after = if let Some(seconds) = quota::digits(value) {
        Duration::from_secs(seconds)
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(after.min(LIMIT_WAIT_MAX))
}

/// The value of a header, where it is there and visible text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The digest the answer claims to have.
pub(super) fn digest(headers: &HeaderMap) -> Option<Digest> {
    text(headers, &DOCKER_CONTENT_DIGEST)?.parse().ok()
}

/// `Content-Length`. Read from the headers, because an answer to HEAD has a length and no body.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, &CONTENT_LENGTH)?.parse().ok()
}

/// The entity tag, where it is a strong one.
pub(super) fn strong_validator(headers: &HeaderMap) -> Option<String> {
    let tag = text(headers, &ETAG)?;
    tag.starts_with('"').then(|| tag.to_owned())
}

/// That the body is the content itself. It is hashed as it comes, so an encoding nobody asked for would only fail
/// later, and decoding it would open the door to bodies that unpack to anything.
///
/// # Errors
/// `Protocol`, with the name of the encoding.
pub(super) fn must_be_identity(headers: &HeaderMap) -> Result<(), Error> {
    let encodings = headers.get_all(CONTENT_ENCODING).iter();
    let mut foreign = encodings
        .filter(|value| !value.is_empty() && !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    match foreign.next() {
        None => Ok(()),
        Some(_) => Err(Error::Protocol(
            "it encodes the body although asked not to".to_owned(),
        )),
    }
}

/// What `Content-Range` says (RFC 9110, section 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentRange {
    /// The body is `first..=last` of a whole of `total` bytes.
    Part {
        /// First byte.
        first: u64,
        /// Last byte.
        last: u64,
        /// Size of the whole.
        total: u64,
    },
    /// What was asked for lies outside of a whole of `total` bytes.
    Outside {
        /// Size of the whole.
        total: u64,
    },
}

impl ContentRange {
    /// Reads the header. `None` where it is missing, contradicts itself, or does not state the size of the whole.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let (unit, range) = text(headers, &CONTENT_RANGE)?.trim().split_once(' ')?;
        let (range, total) = range.trim().split_once('/')?;
        let total = total.parse().ok()?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        if range == "*" {
            return Some(Self::Outside { total });
        }
        let (first, last) = range.split_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last && last < total).then_some(Self::Part { first, last, total })
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).expect("a value");
        HeaderMap::from_iter([(name, value)])
    }

    #[test]
    fn the_status_decides() {
        let check = |status: u16, expected: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = verdict(status, &HeaderMap::new(), SystemTime::UNIX_EPOCH);
            assert_eq!(error.as_str(), expected, "{status}");
        };
        check(404, "not_found");
        check(401, "denied");
        check(403, "denied");
        check(429, "rate_limited");
        for status in [408, 500, 502, 503, 504, 521] {
            check(status, "unavailable");
        }
        for status in [204, 300, 304, 400, 405, 410, 412, 416] {
            check(status, "protocol");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |value: &str, expected: Option<u64>| {
            let found = retry_after(&headers(RETRY_AFTER, value), now);
            assert_eq!(found, expected.map(Duration::from_secs), "{value}");
        };
        check("120", Some(120));
        check("0", Some(0));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(0));
        check("Sun, 06 Nov 1983 08:49:37 GMT", Some(0));
        check("86400", Some(3600));
        check("1000000000000000000000000000000", Some(3600));
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(3600));
        for value in [
            "",
            "-1",
            "+5",
            "1e9",
            "1.16676ms",
            "880.092µs",
            "soon",
            "Sun, 06 Nov 10000 08:50:37 GMT",
            "Sun, 99 Nov 1994 08:50:37 GMT",
        ] {
            check(value, None);
        }
    }

    #[test]
    fn a_limit_that_resets_says_how_long_to_wait() {
        let now = SystemTime::UNIX_EPOCH;
        let check = |lines: &[(&'static str, &str)], expected: u64| {
            let lines = lines.iter().map(|(name, value)| {
                let value = HeaderValue::from_str(value).expect("a value");
                (HeaderName::from_static(name), value)
            });
            let found = wait(&lines.collect(), now);
            assert_eq!(found, Some(Duration::from_secs(expected)));
        };
        check(&[("ratelimit-reset", "30")], 30);
        check(&[("ratelimit-reset", "9000")], 3600);
        check(&[("ratelimit-reset", "30"), ("retry-after", "7")], 7);
        check(&[("ratelimit-reset", "30"), ("retry-after", "soon")], 30);
    }

    #[test]
    fn a_content_range_must_state_the_whole() {
        let check = |value: &str, expected: Option<ContentRange>| {
            let found = ContentRange::read(&headers(CONTENT_RANGE, value));
            assert_eq!(found, expected, "{value}");
        };
        let part = |first, last, total| Some(ContentRange::Part { first, last, total });
        check("bytes 0-0/5", part(0, 0, 5));
        check("BYTES 2-4/5", part(2, 4, 5));
        check("bytes */5", Some(ContentRange::Outside { total: 5 }));
        for value in [
            "",
            "bytes",
            "bytes 0-4",
            "bytes 0-4/*",
            "bytes 4-3/5",
            "bytes 0-5/5",
            "bytes -5/5",
            "lines 0-4/5",
            "bytes 0-99999999999999999999/5",
        ] {
            check(value, None);
        }
    }

    #[test]
    fn only_the_identity_is_taken() {
        let check = |value: &str, expected: bool| {
            let outcome = must_be_identity(&headers(CONTENT_ENCODING, value));
            assert_eq!(outcome.is_ok(), expected, "{value}");
        };
        assert!(must_be_identity(&HeaderMap::new()).is_ok());
        check("identity", true);
        check("", true);
        check("gzip", false);
        check("x-gzip", false);
        check("zstd, gzip", false);
    }

    #[test]
    fn weak_and_unquoted_tags_are_no_validators() {
        let validator = |tag: &str| strong_validator(&headers(ETAG, tag));
        assert_eq!(validator("\"x\"").as_deref(), Some("\"x\""));
        assert_eq!(validator("W/\"x\""), None);
        assert_eq!(validator("sha256:abc"), None);
    }
}
