//! One request and its response: what is refused, who answers, and how the answer leaves.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::line::Line;
use super::outgoing::Outgoing;
use super::{Limits, Server, Standing, admin, host};
use crate::http::{Body, Caller, Rejection, Service};

/// Longest text of a client in one of our log lines, in characters.
const LOGGED_CHARACTERS: usize = 200;

/// The requests of one connection.
pub(super) struct Exchange<S> {
    server: Arc<Server<S>>,
    caller: Caller,
    standing: Standing,
    line: Arc<Line>,
}

/// A response on its way, as hyper polls it.
type Answering = Pin<Box<dyn Future<Output = Result<Response<Outgoing>, Infallible>> + Send>>;

impl<S: Service> Exchange<S> {
    pub(super) fn new(
        server: Arc<Server<S>>,
        caller: Caller,
        standing: Standing,
        line: Arc<Line>,
    ) -> Self {
        Self {
            server,
            caller,
            standing,
            line,
        }
    }

    async fn answer(
        server: &Server<S>,
        (caller, standing): (Caller, Standing),
        request: Request<()>,
    ) -> (Response<Body>, Then) {
        if standing == Standing::TooMany {
            let rejection = Rejection::TooManyConnections;
            return (server.service.reject(rejection), Then::Close);
        }
        if let Some(rejection) = objection(&request) {
            // The path alone: what else a target has may be a secret.
            let path = shortened(request.uri().path());
            tracing::debug!(peer = %caller.peer, ?rejection, ?path, "refused");
            return (server.service.reject(rejection), Then::Close);
        }
        let phase = *server.phase.borrow();
        if let Some(response) = admin::answer(&request, phase, &server.metrics) {
            return (response, Then::GoOn);
        }
        // The inner block catches also what `call` does before it gives a future.
        let peer = caller.peer;
        let call = async { server.service.call(request, caller).await };
        let response = match AssertUnwindSafe(call).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => {
                server.metrics.panic();
                tracing::error!(%peer, panic = ?message(&*panic), "handling a request panicked");
                server.service.reject(Rejection::Panicked)
            }
        };
        (response, Then::GoOn)
    }
}

impl<S: Service> hyper::service::Service<Request<Incoming>> for Exchange<S> {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        self.line.begin();
        let server = Arc::clone(&self.server);
        let (caller, line) = (self.caller.clone(), Arc::clone(&self.line));
        let standing = self.standing;
        let (mut head, body) = request.into_parts();
        // hyper's means to leave HTTP: with it gone nobody can.
        head.extensions.clear();
        let has_body = !body.is_end_stream();
        // Dropped unread, so that no `100 Continue` is sent and hyper stops reading.
        drop(body);
        let is_head = head.method == Method::HEAD;
        let request = Request::from_parts(head, ());
        Box::pin(async move {
            let (mut response, then) = Self::answer(&server, (caller, standing), request).await;
            if has_body || then == Then::Close {
                // What follows the head on the wire is a body or may be one, and is never read as a request.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            if is_head {
                response = without_body(response);
            }
            let (reads, metrics) = (server.reads.clone(), server.metrics.clone());
            Ok(response.map(|body| Outgoing::new(body, line, reads, metrics)))
        })
    }
}

/// Whether the connection may carry another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Close,
}

fn objection(request: &Request<()>) -> Option<Rejection> {
    let target = request.uri();
    if target_bytes(target) > Limits::TARGET_BYTES {
        return Some(Rejection::TargetTooLong);
    }
    if request.method() == Method::CONNECT {
        return Some(Rejection::Connect);
    }
    let sound = host::is_sound(request.version(), target, request.headers());
    (!sound).then_some(Rejection::BadHost)
}

/// The length of a target as it came.
fn target_bytes(target: &hyper::Uri) -> usize {
    let path = target
        .path_and_query()
        .map_or(0, |path| path.as_str().len());
    let authority = target.authority().map_or(0, |it| it.as_str().len());
    let scheme = target.scheme_str().map_or(0, |it| it.len() + "://".len());
    scheme + authority + path
}

/// The response to a HEAD: the length stays, the bytes go.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let may_have_length = !matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    if let Some(length) = body.length().filter(|_| may_have_length) {
        head.headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    Response::from_parts(head, body.skipped())
}

fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(LOGGED_CHARACTERS);
    end.map_or(text, |(end, _)| &text[..end])
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    shortened(text.unwrap_or("no message"))
}
