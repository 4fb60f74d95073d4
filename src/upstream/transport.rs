//! How requests get to other hosts, one at a time, with no rule of the registry protocol in it.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Request, Url};
use rustls::RootCertStore;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::body::Received;
use super::clients::{CONNECT_TIMEOUT, ConfiguredClients, PublicClients, Standing};
use super::connections::busy;
use super::guard::{self, NotPublic};
use super::retry::Retry;
use super::{BuildError, Error, Proxies, Silence};
use crate::metrics::Metrics;

/// Longest wait for the headers of an answer, the connection included. Registries that convert or fetch a manifest
/// themselves take seconds; containerd gives its hosts 30 s by default and must still find time for the next one.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(15);

/// Most requests at once to all the registries of which nothing is known, from the connection to the last byte of the
/// body: an eighth of the 1024 descriptors a process has where nobody raised that. Clients can make up any number of
/// them; those that are configured or in the table never wait for them.
const STRANGERS_MAX: usize = 128;

/// What a form of HTML is called, in which issuers are asked for tokens by a grant (RFC 6749 section 6).
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// Where requests for an upstream may go.
#[derive(Debug, Clone)]
pub(super) enum Reach {
    /// To public addresses, over https: nobody configured it.
    Public(Standing),
    /// Anywhere, by clients that believe the authorities configured for it.
    Configured(ConfiguredClients),
}

/// On whose behalf a request is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behalf<'a> {
    /// Where it may go.
    pub(super) reach: &'a Reach,
    /// The metric label of the upstream.
    pub(super) label: &'a str,
}

/// The connections of the process.
#[derive(Debug)]
pub(super) struct Transport {
    public: PublicClients,
    strangers: Arc<Semaphore>,
    metrics: Metrics,
}

impl Transport {
    /// The connections of a process that trusts `roots` and uses `proxies`.
    ///
    /// # Errors
    /// As [`PublicClients::new`].
    pub(super) fn new(
        roots: &RootCertStore,
        proxies: &Proxies,
        metrics: Metrics,
    ) -> Result<Self, BuildError> {
        Ok(Self {
            public: PublicClients::new(roots, proxies)?,
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            metrics,
        })
    }

    /// Sends one GET or HEAD, follows nothing, and waits for the headers of the answer. A request whose connection was
    /// closed before an answer came is sent once more.
    ///
    /// Whoever holds the answer to one request of an upstream drops it before the next one: answers of strangers are
    /// counted.
    ///
    /// # Errors
    /// `Refused` when `url` is out of reach; `Busy` when as many strangers are being asked as may be; `Unavailable` and
    /// `TimedOut` when no answer came.
    pub(super) async fn send(
        &self,
        behalf: Behalf<'_>,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Received, Error> {
        let mut request = Request::new(method.clone(), url.clone());
        *request.headers_mut() = headers.clone();
        Box::pin(self.deliver(behalf, request)).await
    }

    /// As [`send`](Self::send), a POST of `form`, which is in the form of HTML forms.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn post(
        &self,
        behalf: Behalf<'_>,
        url: &Url,
        form: String,
    ) -> Result<Received, Error> {
        let mut request = Request::new(Method::POST, url.clone());
        request.headers_mut().insert(CONTENT_TYPE, FORM);
        *request.body_mut() = Some(form.into());
        Box::pin(self.deliver(behalf, request)).await
    }

    async fn deliver(&self, behalf: Behalf<'_>, request: Request) -> Result<Received, Error> {
        let client = match behalf.reach {
            Reach::Configured(clients) => clients.for_url(request.url()),
            Reach::Public(standing) => &self.public.for_url(*standing, request.url())?,
        };
        // Nothing that is sent comes from a stream, so it can be sent again.
        let again = request.try_clone();
        let first = self.attempt(behalf, client, request).await;
        if let (Err(error), Some(again)) = (&first, again)
            && error.is_dropped()
        {
            self.retry(Retry::Dropped);
            return self.attempt(behalf, client, again).await;
        }
        first
    }

    /// Counts a request that is sent again.
    pub(super) fn retry(&self, why: Retry) {
        self.metrics.upstream_retry(why.as_str());
    }

    async fn attempt(
        &self,
        behalf: Behalf<'_>,
        client: &Client,
        request: Request,
    ) -> Result<Received, Error> {
        let slot = self.slot(behalf.reach).await?;
        let method = match *request.method() {
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            _ => "GET",
        };
        let url = request.url().clone();
        let mut counted = self.metrics.upstream_request(behalf.label, method);
        let outcome = match timeout(HEADERS_TIMEOUT, client.execute(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failure(error)),
            Err(_) => Err(Error::TimedOut(Silence::Headers)),
        };
        let (status, error) = match &outcome {
            Ok(response) => (Some(response.status().as_u16()), None),
            Err(error) => (None, Some(error.as_str())),
        };
        // Never the query: it holds signatures, and realms of other people's making.
        let (host, path) = (guard::host_of(&url), url.path());
        let upstream = behalf.label;
        tracing::debug!(
            upstream,
            method,
            host,
            path,
            status,
            error,
            "asked upstream"
        );
        if let Some(status) = status {
            counted.answered(status);
        }
        Ok(Received::new(outcome?, counted, slot))
    }

    /// Leave to send a request, until it is dropped. `None` where none is needed.
    async fn slot(&self, reach: &Reach) -> Result<Option<OwnedSemaphorePermit>, Error> {
        match reach {
            Reach::Configured(_) | Reach::Public(Standing::Known) => return Ok(None),
            Reach::Public(Standing::Stranger) => {}
        }
        let slots = Arc::clone(&self.strangers);
        match timeout(CONNECT_TIMEOUT, slots.acquire_owned()).await {
            Ok(Ok(slot)) => Ok(Some(slot)),
            // Nobody closes the semaphore.
            Err(_) | Ok(Err(_)) => Err(busy()),
        }
    }
}

/// What an error of the HTTP client means to the caller. URLs are taken out: they may be signed.
fn failure(error: reqwest::Error) -> Error {
    let error = error.without_url();
    if let Some(refusal) = source::<NotPublic>(&error) {
        return Error::Refused(refusal.to_string());
    }
    if error.is_connect() && error.is_timeout() {
        return Error::TimedOut(Silence::Connect);
    }
    if !error.is_connect() && is_dropped(&error) {
        return Error::dropped();
    }
    Error::Unavailable(Arc::new(error))
}

fn is_dropped(error: &reqwest::Error) -> bool {
    let was_cut = source::<hyper::Error>(error)
        .is_some_and(|error| error.is_incomplete_message() || error.is_canceled());
    let was_reset = source::<std::io::Error>(error).is_some_and(|error| {
        matches!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        )
    });
    was_cut || was_reset
}

/// The first error of type `T` in the chain below `error`.
fn source<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tls;

    fn transport() -> Transport {
        let proxies = Proxies::default();
        Transport::new(&tls::usual_roots(), &proxies, Metrics::new()).expect("a transport")
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_wait_for_each_other_and_for_nobody_else() {
        let transport = transport();
        let stranger = Reach::Public(Standing::Stranger);
        let mut slots = Vec::new();
        for _ in 0..STRANGERS_MAX {
            slots.push(transport.slot(&stranger).await.expect("a slot"));
        }
        let refused = transport.slot(&stranger).await;
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        let known = Reach::Public(Standing::Known);
        let free = transport.slot(&known).await;
        assert!(matches!(free, Ok(None)), "{free:?}");
        slots.pop();
        transport.slot(&stranger).await.expect("a slot");
    }
}
