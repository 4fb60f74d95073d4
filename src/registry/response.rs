//! The responses: which headers go with what.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    ACCEPT_RANGES, AGE, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, LINK, RETRY_AFTER, WARNING, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Response, StatusCode};

use super::error::{Answer, Error};
use super::route::RouteError;
use crate::cache::{BlobReader, Outcome, WhyStale};
use crate::http::{Body, PreparedHead, Rejection};
use crate::oci::{ErrorBody, Namespace};

/// The value of `Cache-Status` that nearly all answers have.
const HIT: HeaderValue = HeaderValue::from_static("entrepot; hit");

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// What the body of a blob is called. Not the type its manifest gives it: the blob does not know that.
const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A response being put together.
pub(super) struct Builder {
    status: StatusCode,
    headers: HeaderMap,
}

impl Builder {
    /// A response of `status` with what every answer has.
    pub(super) fn new(status: StatusCode) -> Self {
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Self { status, headers }
    }

    /// A response of `status` with `headers`, which have what every answer has.
    pub(super) fn of(status: StatusCode, headers: HeaderMap) -> Self {
        Self { status, headers }
    }

    /// The registry the answer is about, as the client wrote it (distribution-spec, "Registry Proxying").
    pub(super) fn namespace(self, namespace: &Namespace) -> Self {
        self.text(OCI_NAMESPACE, namespace.as_str())
    }

    /// How the answer came about.
    pub(super) fn outcome(mut self, outcome: Outcome) -> Self {
        if outcome == Outcome::Hit {
            self.headers.insert(CACHE_STATUS, HIT);
            return self;
        }
        let mut this = self.text(CACHE_STATUS, &outcome.to_string());
        if let Outcome::Stale { by, why } = outcome {
            // RFC 7234 section 5.5 is history, but distribution-spec "Warnings" brought the header back, with code
            // 299 and agent `-`, and clients print it.
            let why = match why {
                WhyStale::WhileRevalidating => "is being asked whether this still holds",
                WhyStale::OnError => "could not confirm this",
                WhyStale::SparingQuota => "has nearly exhausted our quota",
            };
            let warning = format!(
                "299 - \"served stale, for {} s: the upstream registry {why}\"",
                by.as_secs()
            );
            this = this.text(WARNING, &warning);
        }
        this
    }

    /// Whether and how long ago upstream confirmed what is answered (RFC 9111 section 5.1).
    pub(super) fn age(self, age: Duration) -> Self {
        self.number(AGE, age.as_secs())
    }

    /// The digest of the whole content, which is its entity tag, too.
    pub(super) fn digest(self, digest: &str) -> Self {
        self.text(CONTENT_DIGEST, digest)
            .text(ETAG, &["\"", digest, "\""].concat())
    }

    /// The type of the content.
    pub(super) fn media_type(self, media_type: &str) -> Self {
        self.text(CONTENT_TYPE, media_type)
    }

    /// Where the list goes on (RFC 8288; distribution-spec, "Listing Tags").
    pub(super) fn next_page(self, target: &str) -> Self {
        self.text(LINK, &format!("<{target}>; rel=\"next\""))
    }

    /// Only referrers of the type that was asked for are listed (distribution-spec, "Listing Referrers").
    pub(super) fn filtered_by_artifact_type(self) -> Self {
        self.text(FILTERS_APPLIED, "artifactType")
    }

    /// The content is bytes, and parts of them can be had.
    pub(super) fn octets(mut self) -> Self {
        self.headers.insert(CONTENT_TYPE, OCTET_STREAM);
        self.headers
            .insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        self
    }

    /// The part that is sent, of how many bytes in all.
    pub(super) fn part(self, part: &std::ops::Range<u64>, size: u64) -> Self {
        let value = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        self.text(CONTENT_RANGE, &value)
    }

    /// No body, because the client has it (304), or because it asked for the head of a body of `length` bytes.
    pub(super) fn head(self, length: Option<u64>) -> Response<Body> {
        let this = match length {
            Some(length) => self.length(length),
            None => self,
        };
        this.finish(Body::empty())
    }

    /// A body that is in memory.
    pub(super) fn full(self, bytes: Bytes) -> Response<Body> {
        self.length(bytes.len() as u64).finish(Body::full(bytes))
    }

    /// A body of exactly `length` bytes that is read while it is sent. The length is always declared: a body that
    /// breaks off then is short, which clients notice and resume, and never looks complete.
    pub(super) fn reader(self, reader: BlobReader, length: u64) -> Response<Body> {
        let this = self.length(length);
        if let Some(segment) = reader.stored() {
            return this.finish(Body::file(segment));
        }
        let chunks = futures_util::stream::try_unfold(reader, |mut reader| async move {
            let chunk = reader.chunk().await?;
            Ok::<_, crate::cache::ReadError>(chunk.map(|chunk| (chunk, reader)))
        });
        this.finish(Body::stream(chunks, Some(length)))
    }

    /// The length of the body in bytes, be it sent or not.
    pub(super) fn length(self, length: u64) -> Self {
        self.number(CONTENT_LENGTH, length)
    }

    /// The head, for many responses.
    pub(super) fn prepared(self) -> PreparedHead {
        PreparedHead::new(self.status, self.headers)
    }

    fn number(mut self, name: HeaderName, value: u64) -> Self {
        self.headers.insert(name, HeaderValue::from(value));
        self
    }

    /// A header whose text came through the grammar of its type, so it always is one. Should it not be, the answer
    /// goes without it.
    fn text(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// The response with `body`, of which the headers say all there is to say.
    pub(super) fn finish(self, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// `/v2/`: yes, this is a registry. Says so without asking any upstream.
pub(super) fn base(namespace: Option<&Namespace>) -> Response<Body> {
    let mut builder = Builder::new(StatusCode::OK).media_type("application/json");
    if let Some(namespace) = namespace {
        builder = builder.namespace(namespace);
    }
    builder.full(Bytes::from_static(b"{}"))
}

/// The answer to a request that failed.
pub(super) fn failure(error: &Error, namespace: Option<&Namespace>) -> Response<Body> {
    let Answer {
        status,
        code,
        message,
        retry_after,
        challenge,
    } = error.answer();
    let mut builder = Builder::new(status).media_type("application/json");
    if let Some(namespace) = namespace {
        builder = builder.namespace(namespace);
    }
    if let Some(after) = retry_after {
        builder = builder.number(RETRY_AFTER, after.as_secs().max(1));
    }
    if let Some(challenge) = challenge {
        builder = builder.text(WWW_AUTHENTICATE, &challenge);
    }
    match error {
        Error::Route(RouteError::Method) | Error::Rejected(Rejection::Connect) => {
            builder = builder.text(ALLOW, "GET, HEAD");
        }
        Error::RangeNotSatisfiable { size } => {
            builder = builder.text(CONTENT_RANGE, &format!("bytes */{size}"));
        }
        Error::Route(_)
        | Error::Access(_)
        | Error::Unauthenticated
        | Error::Cache(..)
        | Error::NotOffered(_)
        | Error::Nowhere(_)
        | Error::NotAcceptable
        | Error::PreconditionFailed
        | Error::TooMuch
        | Error::Rejected(
            Rejection::BadHost
            | Rejection::TargetTooLong
            | Rejection::TooManyConnections
            | Rejection::Panicked,
        ) => {}
    }
    builder.full(ErrorBody::new(code, &message).to_json().into())
}
