//! The one place where a failure becomes a status, a code and a sentence for a person.

use std::time::Duration;

use hyper::StatusCode;

use super::clients::is_private;
use super::route::RouteError;
use crate::access::Refusal;
use crate::cache;
use crate::http::{Caller, Rejection};
use crate::oci::{ErrorCode, Namespace};
use crate::upstream;

/// Seconds after which to come back where upstream limits our rate and does not say for how long. Docker Hub counts
/// over hours, abuse limits over minutes; clients that wait should not wait longer than that.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_mins(1);

/// When a client is to come back that has too much under way. About what a layer takes.
const RETRY_AFTER_CLIENT: Duration = Duration::from_secs(5);

/// Why a request was not served.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Error {
    /// The request is not one that is answered here.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The registry is not one that is served here.
    #[error(transparent)]
    Access(Refusal),
    /// The caller has to say who they are, and may do so here.
    #[error("only known clients may read this")]
    Unauthenticated,
    /// The registry is served, and this repository of it is not.
    #[error("this repository of {0} is not served here")]
    NotOffered(Namespace),
    /// There is nothing to serve.
    #[error("there is nothing to serve")]
    Cache(#[source] cache::Error, Content),
    /// None of several registries has it.
    #[error("none of the registries that are searched has it")]
    Nowhere(Content),
    /// The client does not take what there is.
    #[error("the stored manifest is of a type that Accept does not list")]
    NotAcceptable,
    /// `If-Match` names another digest.
    #[error("If-Match does not name this digest")]
    PreconditionFailed,
    /// The range lies outside the blob.
    #[error("the range lies outside the blob")]
    RangeNotSatisfiable {
        /// The size of the blob.
        size: u64,
    },
    /// The client has as much under way as one may have.
    #[error("the client has too much under way")]
    TooMuch,
    /// The server could not even ask.
    #[error("the request could not be handled")]
    Rejected(Rejection),
}

/// What was asked for: decides which code says that it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Manifest,
    Blob,
    TagList,
    Referrers,
}

/// What goes over the wire.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) code: ErrorCode,
    pub(super) message: String,
    /// `Retry-After`, where the answer has one.
    pub(super) retry_after: Option<Duration>,
    /// `WWW-Authenticate`, which every 401 has and nothing else.
    pub(super) challenge: Option<String>,
}

/// How clients are asked for name and password: by that of the mirror, never on behalf of an upstream.
const OWN_CHALLENGE: &str = "Basic realm=\"entrepot\", charset=\"UTF-8\"";

impl Error {
    /// The refusal of a caller. A password is asked for only where nobody else hears it.
    pub(super) fn access(refusal: Refusal, caller: &Caller) -> Self {
        match refusal {
            Refusal::Unknown(_) if is_private(caller) => Self::Unauthenticated,
            refusal @ (Refusal::Unknown(_)
            | Refusal::Forbidden(_)
            | Refusal::NotServed(_)
            | Refusal::Private(_)) => Self::Access(refusal),
        }
    }

    /// The answer. The messages never hold what an upstream wrote: that is for the log.
    pub(super) fn answer(&self) -> Answer {
        match self {
            Self::Route(error) => route(error),
            Self::Access(Refusal::NotServed(namespace)) => answer(
                StatusCode::NOT_FOUND,
                ErrorCode::NameUnknown,
                format!(
                    "{namespace} is not configured in the mirror: name it with --upstream \
                     NAME=URL or under `upstreams`"
                ),
            ),
            Self::Access(Refusal::Private(namespace)) => answer(
                StatusCode::FORBIDDEN,
                ErrorCode::Denied,
                format!(
                    "{namespace} is no public registry, and others are mirrored only when they \
                     are configured: name it with --upstream NAME=URL or under `upstreams`"
                ),
            ),
            Self::Access(Refusal::Unknown(_)) => answer(
                StatusCode::FORBIDDEN,
                ErrorCode::Denied,
                "only known clients may read this, and a password is taken over TLS or loopback alone",
            ),
            Self::Access(Refusal::Forbidden(_)) => answer(
                StatusCode::FORBIDDEN,
                ErrorCode::Denied,
                "no rule of the mirror lets this client read the repository",
            ),
            Self::Unauthenticated => Answer {
                challenge: Some(OWN_CHALLENGE.to_owned()),
                ..answer(
                    StatusCode::UNAUTHORIZED,
                    ErrorCode::Unauthorized,
                    "only known clients may read this: log in to the mirror",
                )
            },
            Self::NotOffered(namespace) => answer(
                StatusCode::NOT_FOUND,
                ErrorCode::NameUnknown,
                format!(
                    "the mirror does not serve this repository of {namespace}: see `repositories` in \
                     its configuration"
                ),
            ),
            Self::Cache(error, content) => cache(error, *content),
            Self::Nowhere(content) => answer(
                StatusCode::NOT_FOUND,
                unknown(*content),
                "none of the registries under `default_upstream` has it: check the name, or write the \
                 registry in front of it",
            ),
            Self::NotAcceptable => answer(
                StatusCode::NOT_FOUND,
                ErrorCode::ManifestUnknown,
                "the manifest is of a type that the request's Accept does not list: add it, or \
                 `*/*`",
            ),
            Self::PreconditionFailed => answer(
                StatusCode::PRECONDITION_FAILED,
                ErrorCode::DigestInvalid,
                "If-Match does not name the digest of the content",
            ),
            Self::RangeNotSatisfiable { size } => answer(
                StatusCode::RANGE_NOT_SATISFIABLE,
                ErrorCode::Unsupported,
                format!("the blob has {size} bytes, and none in this range"),
            ),
            Self::TooMuch => too_many(
                "this client asks for too many different things at once: wait for some of them, or \
                 see `clients.requests` in the mirror's configuration",
            ),
            Self::Rejected(rejection) => rejected(*rejection),
        }
    }
}

fn route(error: &RouteError) -> Answer {
    let (status, code) = match error {
        RouteError::Method => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
        RouteError::Path | RouteError::Host => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
        RouteError::Unsupported(_) => (StatusCode::NOT_FOUND, ErrorCode::Unsupported),
        RouteError::Query(_) => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
        RouteError::Namespace(_)
        | RouteError::Namespaces
        | RouteError::Name(_)
        | RouteError::Escape
        | RouteError::Reference(crate::oci::ReferenceError::Tag) => {
            (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid)
        }
        RouteError::Reference(crate::oci::ReferenceError::Digest(_)) | RouteError::Digest(_) => {
            (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid)
        }
    };
    answer(status, code, error.to_string())
}

fn cache(error: &cache::Error, content: Content) -> Answer {
    let bad_gateway = |code, message: &str| answer(StatusCode::BAD_GATEWAY, code, message);
    match error {
        cache::Error::Upstream(error) => from_upstream(error, content),
        cache::Error::WrongDigest { .. } => bad_gateway(
            match content {
                Content::Manifest => ErrorCode::ManifestInvalid,
                Content::Blob | Content::TagList | Content::Referrers => ErrorCode::Unavailable,
            },
            "the upstream registry sent bytes that do not match the digest",
        ),
        cache::Error::Manifest(_) => bad_gateway(
            ErrorCode::ManifestInvalid,
            "the upstream registry sent something that is not a manifest, or not of the type it \
             says",
        ),
        cache::Error::Full { retry_after } => Answer {
            retry_after: Some(*retry_after),
            ..answer(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::Unavailable,
                "the mirror fetches as many blobs at once as it may: come back later",
            )
        },
        cache::Error::Broken => internal(),
    }
}

fn from_upstream(error: &upstream::Error, content: Content) -> Answer {
    let unavailable = |status, message: &str| answer(status, ErrorCode::Unavailable, message);
    match error {
        upstream::Error::NotFound => match content {
            Content::Manifest => answer(
                StatusCode::NOT_FOUND,
                ErrorCode::ManifestUnknown,
                "the upstream registry does not have this manifest: check the repository and tag",
            ),
            Content::Blob => answer(
                StatusCode::NOT_FOUND,
                ErrorCode::BlobUnknown,
                "the upstream registry does not have this blob in this repository",
            ),
            Content::TagList | Content::Referrers => answer(
                StatusCode::NOT_FOUND,
                ErrorCode::NameUnknown,
                "the upstream registry does not have this repository",
            ),
        },
        // The one 401 on behalf of an upstream: its own challenge, which the caller may be able to meet.
        upstream::Error::Denied(denial) if denial.challenge().is_some() => Answer {
            challenge: denial.challenge().map(ToString::to_string),
            ..answer(
                StatusCode::UNAUTHORIZED,
                ErrorCode::Unauthorized,
                "the upstream registry wants to know who asks: log in to it, or give the mirror a \
                 credential for it",
            )
        },
        // What Docker Hub says of repositories that do not exist, to a token that would have been good for this one: 404
        // is what lets a client look elsewhere at once, where 401 would have it ask again and again.
        upstream::Error::Denied(denial) if denial.may_be_missing() => answer(
            StatusCode::NOT_FOUND,
            unknown(content),
            "the upstream registry does not have this, or not for whoever asks: check the name, \
             and whether the account you are logged in with may read it",
        ),
        // Else not 401: that needs a challenge (RFC 9110 section 15.5.2), and a challenge would make containerd send the
        // pod's credentials here.
        upstream::Error::Denied(_) => answer(
            StatusCode::FORBIDDEN,
            ErrorCode::Denied,
            "the upstream registry refuses access: the repository is private or missing, or the \
             mirror's credentials for it are wrong",
        ),
        upstream::Error::RateLimited { retry_after } => Answer {
            retry_after: Some(retry_after.unwrap_or(RETRY_AFTER_DEFAULT)),
            ..answer(
                StatusCode::TOO_MANY_REQUESTS,
                ErrorCode::TooManyRequests,
                "the upstream registry limits our rate: wait, or give the mirror credentials for it",
            )
        },
        upstream::Error::Busy { retry_after } => Answer {
            retry_after: Some(*retry_after),
            ..unavailable(
                StatusCode::SERVICE_UNAVAILABLE,
                "the mirror has as many connections to the upstream registry as it may: come back \
                 later",
            )
        },
        upstream::Error::Unavailable(_) => unavailable(
            StatusCode::BAD_GATEWAY,
            "the upstream registry cannot be reached or fails; the mirror's log says why",
        ),
        upstream::Error::TimedOut(_) => unavailable(
            StatusCode::GATEWAY_TIMEOUT,
            "the upstream registry does not answer in time",
        ),
        upstream::Error::TooLarge { .. } => unavailable(
            StatusCode::BAD_GATEWAY,
            "the upstream registry sends more than the mirror takes",
        ),
        upstream::Error::Protocol(_) => unavailable(
            StatusCode::BAD_GATEWAY,
            "the upstream registry answers as no registry does; the mirror's log says how",
        ),
        upstream::Error::Refused(_) => answer(
            StatusCode::FORBIDDEN,
            ErrorCode::Denied,
            "the registry leads to a host the mirror does not go to: where that is meant, name the \
             registry with --upstream NAME=URL or under `upstreams`, and the host of its token \
             service under its `realms`",
        ),
        upstream::Error::Loop => unavailable(
            StatusCode::BAD_GATEWAY,
            "the request already went through this mirror: its upstream leads back to it",
        ),
    }
}

fn rejected(rejection: Rejection) -> Answer {
    let status = rejection.status();
    match rejection {
        Rejection::BadHost => answer(
            status,
            ErrorCode::NameInvalid,
            "the request needs exactly one Host header, the same as the target's",
        ),
        Rejection::TargetTooLong => answer(
            status,
            ErrorCode::NameInvalid,
            "the request target is too long",
        ),
        Rejection::Connect => route(&RouteError::Method),
        Rejection::TooManyConnections => too_many(
            "this client has too many connections: close some of them, or see \
             `clients.connections` in the mirror's configuration",
        ),
        Rejection::Panicked => internal(),
    }
}

/// The code that says that content is not there.
const fn unknown(content: Content) -> ErrorCode {
    match content {
        Content::Manifest => ErrorCode::ManifestUnknown,
        Content::Blob => ErrorCode::BlobUnknown,
        Content::TagList | Content::Referrers => ErrorCode::NameUnknown,
    }
}

/// Beyond what one client may have. 429 is about the one who asks, and what it says of its own accord they can mend.
fn too_many(message: &str) -> Answer {
    Answer {
        retry_after: Some(RETRY_AFTER_CLIENT),
        ..answer(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TooManyRequests,
            message,
        )
    }
}

fn internal() -> Answer {
    answer(
        StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::Unknown,
        "something went wrong in the mirror; its log says what",
    )
}

fn answer(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Answer {
    Answer {
        status,
        code,
        message: message.into(),
        retry_after: None,
        challenge: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn check(error: upstream::Error, content: Content, status: u16, code: &str) {
        let answer = Error::Cache(error.into(), content).answer();
        assert_eq!(
            (answer.status.as_u16(), answer.code.as_str()),
            (status, code)
        );
    }

    #[test]
    fn only_what_upstream_does_not_have_is_404() {
        use upstream::Error as E;
        let trouble = || Arc::new(std::io::Error::other("10.0.0.7 refused"));
        check(E::NotFound, Content::Manifest, 404, "MANIFEST_UNKNOWN");
        check(E::NotFound, Content::Blob, 404, "BLOB_UNKNOWN");
        check(E::NotFound, Content::TagList, 404, "NAME_UNKNOWN");
        check(
            E::Denied("no".to_owned().into()),
            Content::Blob,
            403,
            "DENIED",
        );
        check(
            E::RateLimited { retry_after: None },
            Content::Blob,
            429,
            "TOOMANYREQUESTS",
        );
        let retry_after = Duration::from_secs(5);
        check(E::Busy { retry_after }, Content::Blob, 503, "UNAVAILABLE");
        check(E::Unavailable(trouble()), Content::Blob, 502, "UNAVAILABLE");
        check(
            E::TimedOut(upstream::Silence::Headers),
            Content::Blob,
            504,
            "UNAVAILABLE",
        );
        check(
            E::TooLarge { bytes_max: 1 },
            Content::Manifest,
            502,
            "UNAVAILABLE",
        );
        check(
            E::Protocol("odd".to_owned()),
            Content::Manifest,
            502,
            "UNAVAILABLE",
        );
        check(
            E::Refused("private".to_owned()),
            Content::Manifest,
            403,
            "DENIED",
        );
        check(E::Loop, Content::Manifest, 502, "UNAVAILABLE");
    }

    #[test]
    fn what_upstream_wrote_stays_in_the_log() {
        let error = upstream::Error::Denied("token=hunter2".to_owned().into());
        let answer = Error::Cache(error.into(), Content::Blob).answer();
        assert!(!answer.message.contains("hunter2"));
    }

    #[test]
    fn a_limit_says_when_to_come_back() {
        let retry_after = |error: upstream::Error| {
            Error::Cache(error.into(), Content::Manifest)
                .answer()
                .retry_after
        };
        let limited = |retry_after| upstream::Error::RateLimited { retry_after };
        let seven = Duration::from_secs(7);
        assert_eq!(retry_after(limited(None)), Some(RETRY_AFTER_DEFAULT));
        assert_eq!(retry_after(limited(Some(seven))), Some(seven));
        let busy = upstream::Error::Busy { retry_after: seven };
        assert_eq!(retry_after(busy), Some(seven));
    }
}
