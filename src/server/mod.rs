//! Sockets and HTTP/1.1; knows nothing of OCI.
//!
//! [`serve`] accepts, bounds what a client may send and how long it may take, and hands every request to a
//! [`Service`] as a head without a body: nothing here takes uploads, so bytes after a head are never read as one, and
//! a request that announces a body is the last of its connection. `/livez`, `/readyz` and `/metrics` are answered here.

mod accept;
mod admin;
mod body;
mod connection;
mod exchange;
mod host;
mod limits;
mod listen;
mod socket;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use hyper::{Request, Response};

pub use accept::{Drained, serve};
pub use body::{Body, BodyError, End};
pub use limits::Limits;
pub use listen::{BindError, bind};

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one request. All methods and targets come here but the administrative paths. The future is dropped
    /// when the client leaves; a panic costs the client a [`Rejection::Panicked`] and nobody else anything.
    fn call(
        &self,
        request: Request<()>,
        caller: Caller,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// The answer to a request that [`Service::call`] never saw, or did not survive. Has a body also for HEAD, which
    /// is left out on the way. The status should be [`Rejection::status`].
    fn reject(&self, rejection: Rejection) -> Response<Body>;
}

/// Who asks, and where they came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The other end of the connection; an IPv4 client of a dual-stack listener shows as IPv4.
    pub peer: SocketAddr,
    /// The position of the listener in the list given to [`serve`].
    pub listener: usize,
}

/// Why the server answers in the service's stead. The connection is closed after the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// No `Host`, several, one that is none, or another than the target's (RFC 9112 section 3.2).
    BadHost,
    /// The request target is longer than [`Limits::TARGET_BYTES`].
    TargetTooLong,
    /// [`Service::call`] panicked: a bug.
    Panicked,
}

impl Rejection {
    /// The status that fits.
    pub fn status(self) -> hyper::StatusCode {
        match self {
            Self::BadHost => hyper::StatusCode::BAD_REQUEST,
            Self::TargetTooLong => hyper::StatusCode::URI_TOO_LONG,
            Self::Panicked => hyper::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
