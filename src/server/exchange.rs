//! One request and its response: what is refused, who answers, and how the answer leaves.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::line::Line;
use super::outgoing::Outgoing;
use super::repeats::is_one_head;
use super::sending::Sending;
use super::{Limits, Server, Standing, admin, head, host};
use crate::http::{Answer, Body, Caller, Rejection, Reply, Service};

/// Longest text of a client in one of our log lines, in characters.
const LOGGED_CHARACTERS: usize = 200;

/// The requests of one connection.
pub(super) struct Exchange<S> {
    server: Arc<Server<S>>,
    caller: Arc<Caller>,
    standing: Standing,
    line: Arc<Line>,
    /// See [`host::is_sound`].
    known_host: OnceLock<HeaderValue>,
    /// The head of the request that comes next, as far as that is known.
    next_head: Mutex<Option<Box<[u8]>>>,
}

/// A response on its way, as hyper polls it.
pub(super) enum Answering<S> {
    /// It is here, until hyper has it.
    Here(Option<Response<Outgoing>>),
    /// The service has to wait for something first.
    Later {
        answer: Pin<Box<dyn Future<Output = Response<Body>> + Send>>,
        exchange: Exchange<S>,
        leaving: Leaving,
    },
}

/// What the request says about how its response leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    /// Whether only the head is wanted.
    is_head: bool,
    /// Whether the connection may carry another request.
    then: Then,
}

impl<S> Clone for Exchange<S> {
    fn clone(&self) -> Self {
        Self {
            server: Arc::clone(&self.server),
            caller: Arc::clone(&self.caller),
            standing: self.standing,
            line: Arc::clone(&self.line),
            known_host: self.known_host.clone(),
            next_head: Mutex::default(),
        }
    }
}

impl<S: Service> Exchange<S> {
    pub(super) fn new(
        server: Arc<Server<S>>,
        caller: Caller,
        standing: Standing,
        line: Arc<Line>,
    ) -> Self {
        Self {
            server,
            caller: Arc::new(caller),
            standing,
            line,
            known_host: OnceLock::new(),
            next_head: Mutex::default(),
        }
    }

    /// The response to the request of which `bytes` are the head, if it came before and what it asks for is at hand.
    pub(super) fn again(&self, bytes: &[u8]) -> Option<Sending> {
        if self.standing == Standing::TooMany {
            return None;
        }
        let request = self.server.repeats.find(bytes)?;
        let reply = self.at_hand(&request)?;
        // One without a length, which is not to be, takes an encoding that hyper knows.
        let length = reply.body().length()?;
        self.line.begin();
        let head = head::written(&reply, length);
        let body = reply.into_body();
        let body = if request.method() == Method::HEAD {
            body.skipped()
        } else {
            body
        };
        Some(Sending::new(head, self.outgoing(body)))
    }

    /// `bytes` come next. A request that they are the whole head of can be kept.
    pub(super) fn comes_next(&mut self, bytes: &[u8]) {
        let head = is_one_head(bytes).then(|| bytes.into());
        *self
            .next_head
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner) = head;
    }

    fn take_next_head(&self) -> Option<Box<[u8]>> {
        let mut head = self
            .next_head
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        head.take()
    }

    /// What the service has at hand.
    fn at_hand(&self, request: &Arc<Request<()>>) -> Option<Reply> {
        let Self { server, caller, .. } = self;
        let look = AssertUnwindSafe(|| server.service.at_hand(request, caller));
        catch_unwind(look).unwrap_or_else(|panic| Some(self.panicked(&*panic).into()))
    }

    /// The answer, and whether the connection may carry another request after it. `head` is the head of the request, if
    /// it may be kept.
    fn answer(&self, request: Request<()>, head: Option<Box<[u8]>>) -> (Answer, Then) {
        let Self { server, caller, .. } = self;
        if self.standing == Standing::TooMany {
            let rejection = Rejection::TooManyConnections;
            return (self.reject(rejection), Then::Close);
        }
        if let Some(rejection) = objection(&request, &self.known_host) {
            // The path alone: what else a target has may be a secret.
            let path = shortened(request.uri().path());
            tracing::debug!(peer = %caller.peer, ?rejection, ?path, "refused");
            return (self.reject(rejection), Then::Close);
        }
        if let Some(response) = admin::answer(&request, &server.phase, &server.metrics) {
            return (Answer::Here(response), Then::GoOn);
        }
        let request = Arc::new(request);
        if let Some(reply) = self.at_hand(&request) {
            if let Some(head) = head.filter(|_| reply.body().length().is_some()) {
                server.repeats.keep(&head, &request);
            }
            return (Answer::Here(reply.into()), Then::GoOn);
        }
        let call = AssertUnwindSafe(|| server.service.call(request, Arc::clone(caller)));
        let answer = match catch_unwind(call) {
            Ok(answer) => answer,
            Err(panic) => Answer::Here(self.panicked(&*panic)),
        };
        (answer, Then::GoOn)
    }

    fn reject(&self, rejection: Rejection) -> Answer {
        Answer::Here(self.server.service.reject(rejection))
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Response<Body> {
        let Server {
            service, metrics, ..
        } = &*self.server;
        metrics.panic();
        tracing::error!(peer = %self.caller.peer, panic = ?message(panic), "handling a request panicked");
        service.reject(Rejection::Panicked)
    }

    /// The response as hyper gets it.
    fn leave(&self, mut response: Response<Body>, leaving: Leaving) -> Response<Outgoing> {
        if leaving.then == Then::Close {
            // What follows the head on the wire is a body or may be one, and is never read as a request.
            self.line.ends();
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        if leaving.is_head {
            response = without_body(response);
        }
        response.map(|body| self.outgoing(body))
    }

    fn outgoing(&self, body: Body) -> Outgoing {
        Outgoing::new(body, Arc::clone(&self.line))
    }
}

impl<S: Service> hyper::service::Service<Request<Incoming>> for Exchange<S> {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Answering<S>;

    fn call(&self, request: Request<Incoming>) -> Answering<S> {
        self.line.begin();
        let (mut head, body) = request.into_parts();
        // hyper's means to leave HTTP: with it gone nobody can.
        head.extensions.clear();
        let has_body = !body.is_end_stream();
        // Dropped unread, so that no `100 Continue` is sent and hyper stops reading.
        drop(body);
        let is_head = head.method == Method::HEAD;
        let written = self.take_next_head().filter(|_| !has_body);
        let (answer, then) = self.answer(Request::from_parts(head, ()), written);
        let then = if has_body { Then::Close } else { then };
        let leaving = Leaving { is_head, then };
        match answer {
            Answer::Here(response) => Answering::Here(Some(self.leave(response, leaving))),
            Answer::Later(answer) => Answering::Later {
                answer,
                exchange: self.clone(),
                leaving,
            },
        }
    }
}

impl<S: Service> Future for Answering<S> {
    type Output = Result<Response<Outgoing>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Here(response) => response
                .take()
                .map_or(Poll::Pending, |it| Poll::Ready(Ok(it))),
            Self::Later {
                answer,
                exchange,
                leaving,
            } => {
                let response = match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
                    Ok(polled) => ready!(polled),
                    Err(panic) => exchange.panicked(&*panic),
                };
                Poll::Ready(Ok(exchange.leave(response, *leaving)))
            }
        }
    }
}

/// Whether the connection may carry another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Close,
}

fn objection(request: &Request<()>, known_host: &OnceLock<HeaderValue>) -> Option<Rejection> {
    let target = request.uri();
    if target_bytes(target) > Limits::TARGET_BYTES {
        return Some(Rejection::TargetTooLong);
    }
    if request.method() == Method::CONNECT {
        return Some(Rejection::Connect);
    }
    let sound = host::is_sound(request.version(), target, request.headers(), known_host);
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
