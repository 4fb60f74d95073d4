//! Heads of requests that came before, byte by byte: what they say is known, so nothing of it is read again.
//!
//! In a cluster every node asks for the same things in the same words. A head is kept when hyper has read it and what it
//! asks for was at hand; hyper alone decides what a head is and what it says.

use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;
use hyper::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HeaderName, HeaderValue, PROXY_AUTHORIZATION, RANGE,
};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Request, Version};

use crate::http::Memo;

/// Most heads that are kept, at a kilobyte or two each. When there are more, all are forgotten: the few that everybody
/// sends are soon known again.
const HEADS_MAX: usize = 1024;

/// Longest head that is kept, in bytes. Those of real clients have 200 to 600.
pub(super) const HEAD_BYTES_MAX: usize = 1024;

/// Requests by their heads.
#[derive(Debug, Default)]
pub(super) struct Repeats(RwLock<HashMap<Box<[u8]>, Known>>);

type Known = Arc<Request<()>>;

impl Repeats {
    /// The request whose head is exactly `bytes`, if it is known.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<Known> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(bytes).map(Arc::clone)
    }

    /// Keeps that the head `bytes`, which is one by [`is_one_head`], was read as `request`, unless it is none that others
    /// send as well.
    pub(super) fn keep(&self, bytes: &[u8], request: &Request<()>) {
        if !is_for_everybody(request) {
            return;
        }
        let Some(request) = apart(request).map(Arc::new) else {
            return;
        };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= HEADS_MAX {
            known.clear();
        }
        known.insert(bytes.into(), request);
    }
}

/// Whether `bytes` are one head and nothing else, in whatever way its end is found: RFC 9112 section 2.2 lets a recipient
/// take a bare LF for the end of a line, and skip empty lines before a request.
pub(super) fn is_one_head(bytes: &[u8]) -> bool {
    const END: &[u8] = b"\r\n\r\n";
    let end = bytes.windows(END.len()).position(|it| it == END);
    let is_its_end = end.is_some_and(|end| end + END.len() == bytes.len());
    let begins = !matches!(bytes.first(), Some(b'\r' | b'\n'));
    let has_bare = bytes.windows(2).any(|it| it[1] == b'\n' && it[0] != b'\r');
    bytes.len() <= HEAD_BYTES_MAX && is_its_end && begins && !has_bare
}

/// Whether the request says nothing that is one client's alone, and nothing about the connection.
fn is_for_everybody(request: &Request<()>) -> bool {
    const OWN: [HeaderName; 5] = [
        AUTHORIZATION,
        PROXY_AUTHORIZATION,
        COOKIE,
        // Each client has its own parts.
        RANGE,
        CONNECTION,
    ];
    let headers = request.headers();
    request.version() == Version::HTTP_11 && !OWN.iter().any(|name| headers.contains_key(name))
}

/// The same request in memory of its own: as it was read it is a part of all that was read with it. `None` for one that
/// is not in origin form (RFC 9112 section 3.2.1). It has a [`Memo`].
fn apart(request: &Request<()>) -> Option<Request<()>> {
    let mut same = Request::new(());
    *same.method_mut() = request.method().clone();
    if request.uri().authority().is_some() {
        return None;
    }
    let target = request.uri().path_and_query()?;
    *same.uri_mut() = PathAndQuery::try_from(target.as_str()).ok()?.into();
    let mut headers = HeaderMap::with_capacity(request.headers().len());
    for (name, value) in request.headers() {
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    *same.headers_mut() = headers;
    same.extensions_mut().insert(Memo::default());
    Some(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "GET /v2/ HTTP/1.1\r\nHost: a.example\r\n\r\n";

    fn request() -> hyper::http::request::Builder {
        Request::get("/v2/?ns=docker.io").header("host", "a.example")
    }

    /// Whether `request` is known after it was kept.
    fn is_kept(request: hyper::http::request::Builder) -> bool {
        let repeats = Repeats::default();
        let request = request.body(()).expect("a request");
        repeats.keep(HEAD.as_bytes(), &request);
        let Some(known) = repeats.find(HEAD.as_bytes()) else {
            return false;
        };
        assert_eq!(known.method(), request.method());
        assert_eq!(known.uri(), request.uri());
        assert_eq!(known.headers(), request.headers());
        assert!(known.extensions().get::<Memo>().is_some());
        true
    }

    #[test]
    fn what_everybody_may_send_is_kept_as_it_was_read() {
        assert!(is_kept(request()));
        assert!(is_kept(request().method("HEAD")));
        let accept = ["application/json", "*/*"];
        let twice = accept
            .iter()
            .fold(request(), |it, value| it.header("accept", *value));
        assert!(is_kept(twice));
    }

    #[test]
    fn what_is_one_clients_own_is_not_kept() {
        for name in ["authorization", "proxy-authorization", "cookie"] {
            assert!(!is_kept(request().header(name, "secret")), "{name}");
        }
        assert!(!is_kept(request().header("range", "bytes=0-1")));
        assert!(!is_kept(request().header("connection", "close")));
        assert!(!is_kept(request().version(Version::HTTP_10)));
        assert!(!is_kept(request().uri("http://a.example/v2/")));
    }

    #[test]
    fn a_head_is_known_by_every_byte_of_it() {
        let repeats = Repeats::default();
        repeats.keep(HEAD.as_bytes(), &request().body(()).expect("a request"));
        assert!(repeats.find(HEAD.as_bytes()).is_some());
        for other in [
            &HEAD[..HEAD.len() - 1],
            &HEAD.to_lowercase(),
            &HEAD.replace("GET ", "GET  "),
            &[HEAD, HEAD].concat(),
        ] {
            assert!(repeats.find(other.as_bytes()).is_none(), "{other:?}");
        }
    }

    #[test]
    fn however_many_there_are_no_more_are_kept_than_may_be() {
        let repeats = Repeats::default();
        let request = request().body(()).expect("a request");
        for n in 0..3 * HEADS_MAX {
            let head = n.to_string();
            repeats.keep(head.as_bytes(), &request);
            assert!(repeats.find(head.as_bytes()).is_some());
            let kept = repeats.0.read().expect("nobody panicked").len();
            assert!(kept <= HEADS_MAX, "{kept}");
        }
    }

    #[test]
    fn one_head_is_one_by_every_reading_of_its_end() {
        let check = |text: &str, expected: bool| {
            assert_eq!(is_one_head(text.as_bytes()), expected, "{text:?}");
        };
        check(HEAD, true);
        check("GET / HTTP/1.1\r\n\r\n", true);
        check("", false);
        check("\r\n\r\n", false);
        check("GET / HTTP/1.1\r\n", false);
        check("GET / HTTP/1.1\r\nHost: a\r\n\r", false);
        // More than one.
        check(&[HEAD, HEAD].concat(), false);
        check("GET / HTTP/1.1\r\n\r\n\r\n", false);
        check("GET / HTTP/1.1\r\n\r\nbody\r\n\r\n", false);
        // Lines that some take for the end of one.
        check("GET / HTTP/1.1\n\nHost: a\r\n\r\n", false);
        check("GET / HTTP/1.1\nHost: a\r\n\r\n", false);
        check("GET / HTTP/1.1\r\nHost: a\n\r\n\r\n", false);
        // Empty ones that some skip.
        check("\r\nGET / HTTP/1.1\r\n\r\n", false);
        check("\nGET / HTTP/1.1\r\n\r\n", false);
        let long = "x".repeat(HEAD_BYTES_MAX);
        check(&format!("GET /{long} HTTP/1.1\r\n\r\n"), false);
    }
}
