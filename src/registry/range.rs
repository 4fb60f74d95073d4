//! `Range` (RFC 9110 section 14): which part of a blob is wanted. Pure.

use hyper::HeaderMap;
use hyper::header::{IF_RANGE, RANGE};

use std::ops::Range;

/// What part of a blob to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: 200.
    Whole,
    /// These bytes, at least one: 206.
    Part(Range<u64>),
    /// Bytes that the blob does not have: 416.
    Nothing,
}

/// Reads the request's `Range` for a blob of `size` bytes whose entity tag, unquoted, is `etag`.
///
/// Several ranges are answered with the whole blob, which section 14.2 allows and every client understands; merging
/// them into one part would corrupt what clients keep, and multipart bodies invite amplification. A range of an empty
/// blob is ignored, too: there is no part of nothing.
pub(super) fn wanted(headers: &HeaderMap, size: u64, etag: &str) -> Wanted {
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Wanted::Whole;
    };
    if size == 0 || !if_range_holds(headers, etag) {
        return Wanted::Whole;
    }
    // Units other than bytes must be ignored; what is no text has no unit.
    let Some(set) = range.to_str().ok().and_then(strip_unit) else {
        return Wanted::Whole;
    };
    if set.contains(',') {
        return Wanted::Whole;
    }
    part(set.trim(), size).map_or(Wanted::Nothing, Wanted::Part)
}

/// Section 13.1.5: an entity tag is compared strongly, and a date is never that of a blob.
fn if_range_holds(headers: &HeaderMap, etag: &str) -> bool {
    let unquoted = |value: &str| {
        value
            .strip_prefix('"')?
            .strip_suffix('"')
            .map(str::to_owned)
    };
    match headers.get(IF_RANGE) {
        None => true,
        Some(value) => value
            .to_str()
            .ok()
            .and_then(unquoted)
            .is_some_and(|value| value == etag),
    }
}

fn strip_unit(range: &str) -> Option<&str> {
    let (unit, set) = range.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(set)
}

/// One `first-last`, `first-` or `-suffix`. What does not parse is no part.
fn part(range: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = range.split_once('-')?;
    let part = match (number(first), number(last)) {
        (Number::Absent, Number::Given(suffix)) => size.saturating_sub(suffix)..size,
        (Number::Given(first), Number::Absent) => first..size,
        (Number::Given(first), Number::Given(last)) => first..size.min(last.saturating_add(1)),
        _ => return None,
    };
    (!part.is_empty()).then_some(part)
}

enum Number {
    Absent,
    Given(u64),
    Nonsense,
}

/// Digits, of which there may be any number: what is too large to count is larger than every blob.
fn number(text: &str) -> Number {
    if text.is_empty() {
        Number::Absent
    } else if text.bytes().all(|c| c.is_ascii_digit()) {
        Number::Given(text.parse().unwrap_or(u64::MAX))
    } else {
        Number::Nonsense
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::registry::trial;

    const ETAG: &str = "sha256:x";

    fn wanted_of(range: &str, if_range: Option<&str>, size: u64) -> Wanted {
        let value = |text: &str| HeaderValue::from_str(text).expect("a header value");
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, value(range));
        if let Some(if_range) = if_range {
            headers.insert(IF_RANGE, value(if_range));
        }
        wanted(&headers, size, ETAG)
    }

    fn check(range: &str, expected: &Wanted) {
        assert_eq!(&wanted_of(range, None, 2048), expected, "{range}");
    }

    #[test]
    fn single_ranges_are_those_of_the_specification() {
        check("bytes=500-1499", &Wanted::Part(500..1500));
        check("bytes=500-", &Wanted::Part(500..2048));
        check("bytes=-500", &Wanted::Part(1548..2048));
        check("bytes=2000-5000", &Wanted::Part(2000..2048));
        check("bytes=0-", &Wanted::Part(0..2048));
        check("bytes=-5000", &Wanted::Part(0..2048));
        check("bytes=0-0", &Wanted::Part(0..1));
        check("bytes=0-99999999999999999999999", &Wanted::Part(0..2048));
    }

    #[test]
    fn ranges_outside_and_nonsense_are_416() {
        for range in [
            "bytes=500-0",
            "bytes=5000-10000",
            "bytes=2048-",
            "bytes=",
            "bytes=abc",
            "bytes=1-2-3",
            "bytes=-0",
            "bytes=-",
            "bytes=+1-2",
            "bytes=99999999999999999999999-",
        ] {
            check(range, &Wanted::Nothing);
        }
    }

    #[test]
    fn other_units_and_several_ranges_are_ignored() {
        for range in ["items=0-5", "bytes", "bytes=0-1,5-6", "bytes=0-1,0-1,0-1"] {
            check(range, &Wanted::Whole);
        }
        assert_eq!(wanted_of("bytes=0-5", None, 0), Wanted::Whole);
        assert_eq!(wanted(&HeaderMap::new(), 10, ETAG), Wanted::Whole);
    }

    #[test]
    fn if_range_takes_the_entity_tag_and_nothing_else() {
        let check = |if_range: &str, expected: Wanted| {
            assert_eq!(
                wanted_of("bytes=0-1", Some(if_range), 10),
                expected,
                "{if_range}"
            );
        };
        check("\"sha256:x\"", Wanted::Part(0..2));
        check("\"sha256:y\"", Wanted::Whole);
        check("W/\"sha256:x\"", Wanted::Whole);
        check("Wed, 21 Oct 2015 07:28:00 GMT", Wanted::Whole);
    }

    proptest! {
        #[test]
        fn a_part_is_what_was_asked_for(
            range in "bytes=([0-9]{0,4}-[0-9]{0,4}|[0-9-]{0,8}|[ -~]{0,8})", size in prop_oneof![0u64..3000, Just(u64::MAX)],
            if_range in prop::option::of(prop::sample::select(vec!["\"sha256:x\"", "W/\"sha256:x\"", "sha256:x"])),
        ) {
            trial::range(range.as_bytes(), if_range.map(str::as_bytes), size, ETAG);
        }
    }
}
