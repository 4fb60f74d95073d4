//! One line in the log and one count in the metrics for every request, written when its body has ended: only then is
//! it known how much was sent.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use tokio::time::Instant;

use super::error::Error;
use super::response;
use super::route::Target;
use crate::cache::Outcome;
use crate::http::{Body, Caller, End, Reply};
use crate::metrics::{Answered, Metrics};
use crate::oci::Namespace;
use crate::upstream::Directory;

/// Longest text of a client that goes into the log, in characters.
const CLIENT_TEXT_MAX: usize = 300;

/// What is logged as the status when the client left before there was one, as nginx does.
const CLIENT_LEFT: u16 = 499;

/// What a registry is called in metrics.
#[derive(Debug, Clone, Copy)]
enum Label {
    /// What it is called everywhere.
    ItsName,
    /// Something else, as so many may be called what it is.
    Other(&'static str),
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    kind: &'static str,
    /// The registry that was asked for content, where one was.
    namespace: Option<Namespace>,
    /// The metric label of that.
    upstream: Label,
}

impl Subject {
    /// Content of `target`.
    pub(super) fn new(kind: &'static str, target: &Target, directory: &Directory) -> Self {
        let upstream = match directory.label_of_others(&target.namespace) {
            Some(label) => Label::Other(label),
            None => Label::ItsName,
        };
        Self {
            kind,
            namespace: Some(target.namespace.clone()),
            upstream,
        }
    }

    /// Nothing that could be made out.
    pub(super) const UNKNOWN: Self = Self {
        kind: "other",
        namespace: None,
        upstream: Label::Other("none"),
    };
}

/// What is known about a request so far.
#[derive(Debug)]
pub(super) struct Entry {
    metrics: Metrics,
    started: Instant,
    request: Arc<Request<()>>,
    caller: Arc<Caller>,
    subject: Subject,
    outcome: Option<Outcome>,
    error: Option<String>,
    /// The status that was sent; [`CLIENT_LEFT`] before that.
    status: u16,
    sent: u64,
    end: End,
}

impl Entry {
    /// The request came in at `started`.
    pub(super) fn new(
        request: Arc<Request<()>>,
        caller: Arc<Caller>,
        started: Instant,
        metrics: Metrics,
    ) -> Self {
        Self {
            metrics,
            started,
            request,
            caller,
            subject: Subject::UNKNOWN,
            outcome: None,
            error: None,
            status: CLIENT_LEFT,
            sent: 0,
            end: End::Cancelled,
        }
    }

    /// It asks for this.
    pub(super) fn asked(&mut self, subject: Subject) {
        self.subject = subject;
    }

    /// There is something to serve.
    pub(super) fn came(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// There is not; makes the answer that says so.
    pub(super) fn failed(
        &mut self,
        error: &Error,
        namespace: Option<&Namespace>,
    ) -> Response<Body> {
        self.error = Some(chain(error));
        response::failure(error, namespace)
    }

    fn user_agent(&self) -> Cow<'_, str> {
        let headers = self.request.headers();
        let value = headers.get(USER_AGENT).map(HeaderValue::as_bytes);
        String::from_utf8_lossy(value.unwrap_or_default())
    }

    /// Waits for the end of the body. A client that leaves before that takes the request's future or the body along, and
    /// this with it, which writes.
    pub(super) fn attach(mut self, reply: impl Into<Reply>) -> Reply {
        let reply = reply.into();
        self.status = reply.status().as_u16();
        reply.map(|body| {
            body.on_end(move |sent, end| {
                // All of it, not the two fields alone: it is written when it is dropped.
                let entry = &mut self;
                (entry.sent, entry.end) = (sent, end);
            })
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let result = match (&self.error, self.outcome) {
            (Some(_), _) => "error",
            (None, Some(outcome)) => outcome.as_str(),
            (None, None) => "local",
        };
        let Subject {
            kind,
            namespace,
            upstream,
        } = &self.subject;
        let namespace = namespace.as_ref().map_or("", Namespace::as_str);
        self.metrics.answered(&Answered {
            upstream: match *upstream {
                Label::ItsName => namespace,
                Label::Other(label) => label,
            },
            kind,
            result,
            source: self.outcome.map(Outcome::source),
            bytes: self.sent,
            took,
        });
        let Self {
            request,
            caller,
            status,
            sent,
            end,
            ..
        } = &*self;
        let error = self.error.as_deref().unwrap_or_default();
        let certificate = caller.client.as_deref();
        // Text of clients is logged in quotes with control characters escaped. Of the target the path alone: queries may
        // hold secrets, and the one key that matters is logged as the namespace.
        tracing::info!(
            client = %Address(caller.peer.ip()), certificate, method = cut(request.method().as_str()),
            path = cut(request.uri().path()),
            %namespace, kind, status, outcome = result, bytes = sent, end = end.as_str(), ms = milliseconds(took),
            user_agent = cut(&self.user_agent()), error, "request"
        );
    }
}

/// An address as it is shown. The common kind is put together in one go.
struct Address(IpAddr);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IpAddr::V4(address) = self.0 else {
            return self.0.fmt(f);
        };
        let mut text = String::with_capacity("255.255.255.255".len());
        for octet in address.octets() {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(itoa::Buffer::new().format(octet));
        }
        f.write_str(&text)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn cut(text: &str) -> &str {
    if text.len() <= CLIENT_TEXT_MAX {
        return text;
    }
    let end = text.char_indices().nth(CLIENT_TEXT_MAX);
    end.map_or(text, |(end, _)| &text[..end])
}

/// An error and its causes, on one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
