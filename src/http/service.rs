//! Who answers requests, and what the server asks of them.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use hyper::{Request, Response};

use super::{Body, Reply};

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// The answer to a request, where all of it is at hand, its length known, and nothing is in doubt. Nobody notices
    /// that it was asked for where there is none: the request comes to [`Service::call`] then. Called for every request
    /// that may come there, and again and again with the same one where clients repeat themselves: that has a
    /// [`Memo`](super::Memo) for what is found out about it.
    fn at_hand(&self, request: &Arc<Request<()>>, caller: &Arc<Caller>) -> Option<Reply> {
        let _ = (request, caller);
        None
    }

    /// Answers one request. All methods but CONNECT and all targets but the administrative paths come here. Does not
    /// block. A panic, here or later, costs the client a [`Rejection::Panicked`] and nobody else anything.
    fn call(&self, request: Arc<Request<()>>, caller: Arc<Caller>) -> Answer;

    /// The answer to a request that [`Service::call`] never saw, or did not survive. Has a body also for HEAD, which
    /// is left out on the way. The status should be [`Rejection::status`].
    fn reject(&self, rejection: Rejection) -> Response<Body>;
}

/// The answer to a request.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each request, and it is moved once"
)]
pub enum Answer {
    /// It is here.
    Here(Response<Body>),
    /// Somebody or something has to be waited for. Dropped when the client leaves.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Answer {
    /// What `answering` comes to.
    pub fn later(answering: impl Future<Output = Response<Body>> + Send + 'static) -> Self {
        Self::Later(Box::pin(answering))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(response) => f.debug_tuple("Here").field(response).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

/// Who asks, and where they came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The other end of the connection; an IPv4 client of a dual-stack listener shows as IPv4.
    pub peer: SocketAddr,
    /// The position of the listener in the list given to the server.
    pub listener: usize,
    /// Whether nobody on the way can read what is said.
    pub is_encrypted: bool,
    /// The name in the certificate that the client showed, where an authority of the listener vouches for it.
    pub client: Option<Arc<str>>,
}

/// Why a request never came to [`Service::call`], or did not survive it. The connection is closed after all but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// No `Host`, several, one that is none, or another than the target's (RFC 9112 section 3.2).
    BadHost,
    /// The request target is longer than the server takes.
    TargetTooLong,
    /// CONNECT: we are no proxy, and an answer of success would open a tunnel.
    Connect,
    /// The client has as many connections as one may have.
    TooManyConnections,
    /// [`Service::call`] panicked: a bug.
    Panicked,
}

impl Rejection {
    /// The status that fits.
    pub fn status(self) -> hyper::StatusCode {
        match self {
            Self::BadHost => hyper::StatusCode::BAD_REQUEST,
            Self::TargetTooLong => hyper::StatusCode::URI_TOO_LONG,
            Self::Connect => hyper::StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyConnections => hyper::StatusCode::TOO_MANY_REQUESTS,
            Self::Panicked => hyper::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
