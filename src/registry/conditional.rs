//! `If-None-Match`, `If-Match` and `Accept`: whether the client wants what there is. Pure.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, AsHeaderName, HeaderName, IF_MATCH, IF_NONE_MATCH};

use crate::oci::{Digest, MediaType};

/// What the preconditions of a request say (RFC 9110 section 13.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precondition {
    /// Go ahead.
    Holds,
    /// The client has it already: 304.
    NotModified,
    /// The client wants something else: 412.
    Failed,
}

/// Evaluates the preconditions against the content `digest`.
pub(super) fn precondition(headers: &HeaderMap, digest: &Digest) -> Precondition {
    if headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH) {
        against(headers, &digest.to_string())
    } else {
        Precondition::Holds
    }
}

/// Evaluates the preconditions against the entity tag `etag`, unquoted. Dates are not looked at: content addressed by
/// digest has none, and `If-None-Match` comes before `If-Modified-Since` anyway.
fn against(headers: &HeaderMap, etag: &str) -> Precondition {
    if headers.contains_key(IF_MATCH) && !names_exactly(headers, etag) {
        Precondition::Failed
    } else if lists_tag(headers, IF_NONE_MATCH, etag) {
        Precondition::NotModified
    } else {
        Precondition::Holds
    }
}

/// `If-Match` is compared strongly (section 13.1.1): a weak tag never matches.
fn names_exactly(headers: &HeaderMap, etag: &str) -> bool {
    let named = |element: &str| element == "*" || element.trim_matches('"') == etag;
    elements(headers, IF_MATCH).any(named)
}

/// Whether the list holds `etag`, or `*`. Bare digests count: distribution sends and accepts them without quotes.
fn lists_tag(headers: &HeaderMap, name: HeaderName, etag: &str) -> bool {
    elements(headers, name).any(|element| {
        let opaque = element.strip_prefix("W/").unwrap_or(element);
        element == "*" || opaque.trim_matches('"') == etag
    })
}

/// Whether the client can use a document of type `stored`. Only a client that lists manifest types and not this one
/// cannot; `*/*`, no list at all, and lists of other things are no objection.
pub(super) fn accepts(headers: &HeaderMap, stored: &MediaType) -> bool {
    let mut wants_other_manifests = false;
    for element in elements(headers, ACCEPT) {
        // As nearly everybody has it.
        if element == stored.as_str() {
            return true;
        }
        let mut parts = element.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default();
        let is = |media_type: &str| range.eq_ignore_ascii_case(media_type);
        let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        if refused {
            continue;
        }
        if is(stored.as_str()) || is("*/*") || is("application/*") {
            return true;
        }
        wants_other_manifests |= ends_in(range, "+json") || ends_in(range, "+prettyjws");
    }
    !wants_other_manifests
}

/// Whether `text` ends in `end`, whatever its case.
fn ends_in(text: &str, end: &str) -> bool {
    let start = text.len().checked_sub(end.len());
    let last = start.and_then(|start| text.get(start..));
    last.is_some_and(|last| last.eq_ignore_ascii_case(end))
}

/// The elements of a list header, over all its lines. What is not text is no element.
fn elements(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const ETAG: &str = "sha256:x";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

    fn headers(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        let lines = lines
            .iter()
            .map(|line| HeaderValue::from_str(line).expect("a header value"));
        lines.map(|line| (name.clone(), line)).fold(
            HeaderMap::new(),
            |mut headers, (name, line)| {
                headers.append(name, line);
                headers
            },
        )
    }

    #[test]
    fn if_none_match_knows_every_spelling() {
        let check = |lines: &[&str], expected: Precondition| {
            assert_eq!(
                against(&headers(&IF_NONE_MATCH, lines), ETAG),
                expected,
                "{lines:?}"
            );
        };
        check(&["\"sha256:x\""], Precondition::NotModified);
        check(&["sha256:x"], Precondition::NotModified);
        check(&["W/\"sha256:x\""], Precondition::NotModified);
        check(&["\"a\", \"sha256:x\""], Precondition::NotModified);
        check(&["\"a\"", "\"sha256:x\""], Precondition::NotModified);
        check(&["*"], Precondition::NotModified);
        check(&["\"sha256:y\""], Precondition::Holds);
        check(&[], Precondition::Holds);
    }

    #[test]
    fn if_match_with_another_digest_fails() {
        let check = |line: &str, expected: Precondition| {
            assert_eq!(
                against(&headers(&IF_MATCH, &[line]), ETAG),
                expected,
                "{line}"
            );
        };
        check("\"sha256:y\"", Precondition::Failed);
        check("\"sha256:x\"", Precondition::Holds);
        check("*", Precondition::Holds);
        check("W/\"sha256:x\"", Precondition::Failed);
    }

    #[test]
    fn accept_objects_only_with_a_list_of_other_manifests() {
        let stored = INDEX.parse().expect("a media type");
        let check = |lines: &[&str], expected: bool| {
            assert_eq!(
                accepts(&headers(&ACCEPT, lines), &stored),
                expected,
                "{lines:?}"
            );
        };
        check(&[], true);
        check(&["*/*"], true);
        check(&["text/html"], true);
        check(&[INDEX], true);
        check(&[&format!("{IMAGE}, {INDEX};q=0.5")], true);
        check(&[IMAGE, INDEX], true);
        check(&[&format!("{IMAGE}, */*")], true);
        check(&[IMAGE], false);
        check(&[&format!("{IMAGE}, {INDEX};q=0")], false);
        check(
            &["application/vnd.docker.distribution.manifest.v1+prettyjws"],
            false,
        );
    }
}
