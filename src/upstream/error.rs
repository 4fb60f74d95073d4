//! What can go wrong upstream, by what the caller can do about it.

use std::sync::Arc;
use std::time::Duration;

use super::Denial;
use crate::oci::Namespace;

/// Why an upstream did not give what was asked. `Clone`, because one answer may go to many waiters.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Upstream says that it does not have it: the only error that may become a 404.
    #[error("upstream does not have it")]
    NotFound,
    /// Upstream, or its token endpoint, says no: 401 or 403 after our own attempt to authenticate.
    #[error("upstream refuses access: {0}")]
    Denied(Denial),
    /// Upstream asks us to come back later (429).
    #[error("upstream limits the rate of requests")]
    RateLimited {
        /// When to come back, where upstream said so.
        retry_after: Option<Duration>,
    },
    /// We may not ask now: as many requests as may be are under way.
    #[error("all connections to upstream are in use")]
    Busy {
        /// When to come back.
        retry_after: Duration,
    },
    /// Upstream cannot be reached or answers with a 5xx.
    #[error("upstream is unavailable")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Upstream is silent.
    #[error("upstream timed out: {0}")]
    TimedOut(Silence),
    /// Upstream sends more than we take.
    #[error("upstream sends more than {bytes_max} bytes")]
    TooLarge {
        /// The limit that was passed.
        bytes_max: u64,
    },
    /// Upstream answers with something a registry does not answer.
    #[error("upstream does not speak the registry protocol: {0}")]
    Protocol(String),
    /// We do not go there: a private address for an unconfigured namespace, a realm or redirect that is not allowed.
    #[error("refused to follow: {0}")]
    Refused(String),
    /// The request already went through this mirror.
    #[error("the request already went through this mirror")]
    Loop,
}

/// Where upstream fell silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Silence {
    /// No connection.
    #[error("no connection")]
    Connect,
    /// No response headers.
    #[error("no response headers")]
    Headers,
    /// No further byte of a body.
    #[error("no further byte of the body")]
    Body,
}

/// An answer that says that the other side cannot, at the moment.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Trouble(String);

/// The connection ended before an answer came.
#[derive(Debug, thiserror::Error)]
#[error("the connection was closed before an answer came")]
struct Dropped;

impl Error {
    /// Unavailable, for a reason that no other error states.
    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable(Arc::new(Trouble(reason.into())))
    }

    /// Unavailable, because the connection ended before an answer came.
    pub(super) fn dropped() -> Self {
        Self::Unavailable(Arc::new(Dropped))
    }

    /// Whether the connection ended before an answer came, as happens when a kept one is closed in the moment it is
    /// used again, or where a server does not know the method.
    pub(super) fn is_dropped(&self) -> bool {
        matches!(self, Self::Unavailable(cause) if cause.is::<Dropped>())
    }

    /// The metric label of this error.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied(_) => "denied",
            Self::RateLimited { .. } => "rate_limited",
            Self::Busy { .. } => "busy",
            Self::Unavailable(_) => "unavailable",
            Self::TimedOut(_) => "timed_out",
            Self::TooLarge { .. } => "too_large",
            Self::Protocol(_) => "protocol",
            Self::Refused(_) => "refused",
            Self::Loop => "loop",
        }
    }

    /// Upstream says no, for this reason.
    pub(super) fn denied(reason: impl Into<String>) -> Self {
        Self::Denied(reason.into().into())
    }

    /// Whether the same request may succeed elsewhere or later, so that a stale copy may stand in and another
    /// endpoint may be asked.
    pub const fn is_trouble(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Busy { .. }
            | Self::Unavailable(_)
            | Self::TimedOut(_)
            | Self::TooLarge { .. }
            | Self::Protocol(_) => true,
            Self::NotFound | Self::Denied(_) | Self::Refused(_) | Self::Loop => false,
        }
    }
}

/// Why the upstreams cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The CA certificates of an upstream are of no use.
    #[error("the CA certificates of upstream {namespace} cannot be used: {reason}")]
    Authorities {
        /// The upstream.
        namespace: Namespace,
        /// What is wrong with them.
        reason: String,
    },
    /// The CA certificates of the shared tier are of no use.
    #[error("the CA certificates of the shared tier cannot be used: {0}")]
    SharedAuthorities(String),
    /// A proxy of the environment is none.
    #[error(
        "{0} is not the URL of a proxy: it starts with http, https, socks4, socks4a, socks5 or socks5h"
    )]
    Proxy(&'static str),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}
