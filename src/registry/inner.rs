//! The inner loops of a hit, as `cargo bench` reaches them. Part of neither the program nor its documentation.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use tokio::time::Instant;

use super::log::Entry;
use super::range::{Wanted, wanted};
use super::response::Builder;
use super::route::{self, Inbound};
use super::ways::{Door, Ways};
use crate::cache::Outcome;
use crate::http::{Body, Caller};
use crate::metrics::Metrics;
use crate::oci::Namespace;
use crate::upstream::Directory;

/// Whether `target` is a route.
pub fn route(target: &Uri, ways: &Ways, directory: &Directory) -> bool {
    let door = Door {
        listener: 0,
        host: Some("mirror.example:3000"),
    };
    let method = &Method::GET;
    let inbound = Inbound {
        method,
        target,
        door,
    };
    route::parse(inbound, ways, directory).is_ok()
}

/// The part of a blob of `size` bytes that is wanted.
pub fn range(headers: &HeaderMap, size: u64, etag: &str) -> Option<Range<u64>> {
    match wanted(headers, size, etag) {
        Wanted::Part(part) => Some(part),
        Wanted::Whole | Wanted::Nothing => None,
    }
}

/// The answer with a manifest.
pub fn manifest(
    namespace: &Namespace,
    digest: &str,
    media_type: &str,
    bytes: Bytes,
) -> Response<Body> {
    Builder::new(StatusCode::OK)
        .age(Duration::from_mins(1))
        .namespace(namespace)
        .outcome(Outcome::Hit)
        .digest(digest)
        .media_type(media_type)
        .full(bytes)
}

/// Counts and logs a request whose answer ends at once.
pub fn log(
    request: Arc<Request<()>>,
    caller: Arc<Caller>,
    metrics: Metrics,
    response: Response<Body>,
) {
    drop(Entry::new(request, caller, Instant::now(), metrics).attach(response));
}
