//! What holds of every request, whatever stands in it: what tests and fuzz targets try in the same way. Part of neither
//! the program nor its documentation.
#![expect(clippy::expect_used, reason = "a trial fails by panicking")]

use hyper::header::{HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE};
use hyper::{Method, Uri};

use super::range::{Wanted, wanted};
use super::route::{self, Inbound, Item, Route, Target};
use super::ways::{Door, Ways};
use crate::upstream::Directory;

/// Routes a GET of `target` that came in at the `listener` for `host`. Where that is a route, it leads to the registry and
/// the repository under the names they go by: written with these, in full, it is the same route.
///
/// # Panics
/// Unless that holds.
pub fn route(
    target: &Uri,
    (listener, host): (usize, Option<&str>),
    ways: &Ways,
    directory: &Directory,
) {
    let door = Door { listener, host };
    let parsed = |target: &Uri, door| {
        let method = &Method::GET;
        let inbound = Inbound {
            method,
            target,
            door,
        };
        route::parse(inbound, ways, directory)
    };
    let Ok(Route::Content(content, item)) = parsed(target, door) else {
        return;
    };
    let Target {
        namespace,
        repository,
        ..
    } = &content;
    assert_eq!(&directory.canonical(namespace), namespace, "{target}");
    let kind = match &item {
        Item::Manifest(reference) => format!("manifests/{reference}"),
        Item::Blob(digest) => format!("blobs/{digest}"),
        Item::Tags(..) => "tags/list".to_owned(),
        Item::Referrers(_, digest, _) => format!("referrers/{digest}"),
    };
    // Names of registries have nothing that means something else in a path or a query.
    let name = namespace.as_str();
    // In a path only what looks like a host is a registry, and that once.
    let in_path = if name.contains(['.', ':']) || name == "localhost" {
        format!("{namespace}/")
    } else {
        String::new()
    };
    let written = format!("/v2/{in_path}{repository}/{kind}?ns={namespace}");
    let written: Uri = written.parse().expect("a target");
    let elsewhere = Door {
        listener: usize::MAX,
        host: None,
    };
    let Ok(Route::Content(again, same)) = parsed(&written, elsewhere) else {
        panic!("{target} is {written}, which is nothing");
    };
    assert_eq!(
        (&again.namespace, &again.repository),
        (namespace, repository)
    );
    assert_eq!(same.digest(), item.digest(), "{target} and {written}");
    assert_eq!(same.kind(), item.kind(), "{target} and {written}");
}

/// Reads a `Range`, with or without an `If-Range`, for a blob of `size` bytes that is called `etag`. A part is never
/// empty nor outside; it is the one that was asked for, by a single field, of bytes of this blob.
///
/// # Panics
/// Unless that holds.
pub fn range(range: &[u8], if_range: Option<&[u8]>, size: u64, etag: &str) {
    let mut headers = HeaderMap::new();
    let mut add = |name: HeaderName, value: &[u8]| {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    };
    add(RANGE, range);
    if let Some(value) = if_range {
        add(IF_RANGE, value);
    }
    let part = match wanted(&headers, size, etag) {
        Wanted::Whole => return,
        Wanted::Nothing => None,
        Wanted::Part(part) => Some(part),
    };
    assert!(size > 0, "there is no part of nothing");
    let quoted = format!("\"{etag}\"");
    assert!(headers.get(IF_RANGE).is_none_or(|value| value == &*quoted));
    let text = headers[RANGE].to_str().expect("what is no text is ignored");
    if let Some(part) = &part {
        assert!(
            part.start < part.end && part.end <= size,
            "{text}: {part:?}"
        );
    }
    let number = |text: &str| text.parse::<u128>().ok().filter(|_| !text.starts_with('+'));
    let Some((first, last)) = text
        .strip_prefix("bytes=")
        .and_then(|it| it.split_once('-'))
    else {
        return;
    };
    let size = u128::from(size);
    let expected = match (number(first), number(last)) {
        (Some(first), Some(last)) => first..size.min(last.saturating_add(1)),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(last)) if first.is_empty() => size.saturating_sub(last)..size,
        _ => return,
    };
    let found = part.map(|part| part.start.into()..part.end.into());
    let expected = Some(expected).filter(|part| !part.is_empty());
    assert_eq!(found, expected, "{text} of {size}");
    // Repeated, it is none: which one is meant nobody can tell.
    headers.append(RANGE, headers[RANGE].clone());
    let repeated = u64::try_from(size).expect("it was one");
    assert_eq!(wanted(&headers, repeated, etag), Wanted::Whole);
}
