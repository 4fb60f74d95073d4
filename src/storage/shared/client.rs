//! How the store is asked: by an HTTP client that is there already, and with a bound on everything it says that is not
//! an object.

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Limited};
use hyper::Method;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};

/// Longest answer that is no object, in bytes: an error, or that an upload in parts was begun or completed. They are read
/// whole, and XML can be made to take its time.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Gives whoever connects one client.
#[derive(Debug)]
pub(super) struct Connector(HttpClient);

impl Connector {
    /// By `client`.
    pub(super) fn new(client: reqwest::Client) -> Self {
        Self(HttpClient::new(Bounded(client)))
    }

    /// For a store that is set up only to see whether it can be: it asks nobody.
    pub(super) fn to_nobody() -> Self {
        Self(HttpClient::new(Nobody))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

#[derive(Debug)]
struct Bounded(reqwest::Client);

#[async_trait]
impl HttpService for Bounded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_read = request.method() == Method::GET;
        let answer = HttpService::call(&self.0, request).await?;
        if is_read && answer.status().is_success() {
            return Ok(answer);
        }
        let too_long = |error| HttpError::new_boxed(HttpErrorKind::Decode, error);
        Ok(answer.map(|body| {
            let body = Limited::new(body, ANSWER_BYTES_MAX);
            HttpResponseBody::new(body.map_err(too_long))
        }))
    }
}

#[derive(Debug)]
struct Nobody;

#[async_trait]
impl HttpService for Nobody {
    async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
        let nobody = std::io::Error::from(std::io::ErrorKind::NotConnected);
        Err(HttpError::new(HttpErrorKind::Unknown, nobody))
    }
}
