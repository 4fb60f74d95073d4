//! How bytes get to other hosts: connections, proxies, time-outs, and one request at a time with no rule of the
//! registry protocol in it.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Method, NoProxy, Proxy, Request, Response, Url};
use rustls::RootCertStore;
use tokio::time::{Instant, timeout};

use super::guard::{self, NotPublic, PublicOnly};
use super::{BuildError, Error, Proxies, Silence, tls};

/// What upstreams see as `User-Agent`. Docker Hub answers 403 to requests without one.
const USER_AGENT: &str = concat!("entrepot/", env!("CARGO_PKG_VERSION"));

/// Longest wait for a connection: name, TCP and TLS. Two lost SYNs are retried within 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the headers of an answer, the connection included. Registries that convert or fetch a manifest
/// themselves take seconds; containerd gives its hosts 30 s by default and must still find time for the next one.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(15);

/// How long an unused connection is kept. Load balancers close theirs after 60 s; we want to be first.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// Unused connections kept per host: a burst of layers leaves this many behind.
const POOL_IDLE_MAX: usize = 16;

/// Where requests for an upstream may go.
#[derive(Debug, Clone)]
pub(super) enum Reach {
    /// To public addresses, over https: nobody configured it.
    Public,
    /// Anywhere, by a client that believes the authorities configured for it.
    Configured(Client),
}

/// The connections of the process.
#[derive(Debug)]
pub(super) struct Transport {
    /// Dials public addresses alone; knows no proxy.
    public: Client,
    /// Goes through the proxies of the environment. Names that it resolves itself are public, the proxies' own aside.
    public_by_proxy: Client,
    proxies: Matcher,
    proxy_hosts: Vec<String>,
}

impl Transport {
    /// The connections of a process that trusts `roots` and uses `proxies`.
    ///
    /// # Errors
    /// `Proxy` when a proxy is none; `Tls` and `Client` when the HTTP client cannot be set up.
    pub(super) fn new(roots: &RootCertStore, proxies: &Proxies) -> Result<Self, BuildError> {
        let proxy_hosts = proxy_hosts(proxies)?;
        let guarded = |exempt| Arc::new(PublicOnly::except_for(exempt));
        let public = builder(roots)?.no_proxy().dns_resolver(guarded(Vec::new()));
        let public_by_proxy =
            through(builder(roots)?, proxies)?.dns_resolver(guarded(proxy_hosts.clone()));
        Ok(Self {
            public: public.build().map_err(BuildError::Client)?,
            public_by_proxy: public_by_proxy.build().map_err(BuildError::Client)?,
            proxies: matcher(proxies),
            proxy_hosts,
        })
    }

    /// Sends one GET or HEAD, follows nothing, and waits for the headers of the answer. A request whose connection was
    /// closed before an answer came is sent once more (RFC 9110, section 9.2.2): most likely the connection had been
    /// kept and was closed in the moment it was used.
    ///
    /// `label` is the metric label of the upstream that the request is for.
    ///
    /// # Errors
    /// `Refused` when `url` is out of `reach`; `Unavailable` and `TimedOut` when no answer came.
    pub(super) async fn send(
        &self,
        reach: &Reach,
        label: &str,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Response, Error> {
        let client = self.client(reach, url)?;
        let started = Instant::now();
        let mut outcome = attempt(client, method, url, headers).await;
        if outcome.as_ref().is_err_and(Error::is_dropped) {
            outcome = attempt(client, method, url, headers).await;
        }
        finished(label, method, url, &outcome, started.elapsed());
        outcome
    }

    /// The client that may ask `url`, for this hop of a request.
    fn client<'a>(&'a self, reach: &'a Reach, url: &Url) -> Result<&'a Client, Error> {
        if let Reach::Configured(client) = reach {
            return Ok(client);
        }
        let host = guard::host_of(url);
        let refuse = |why: &str| Err(Error::Refused(format!("{host} {why}")));
        if url.scheme() != "https" {
            return refuse("is not configured, and would not be reached over https");
        }
        // Addresses skip the resolver, and a proxy resolves names for us.
        if !guard::may_be_public(host) {
            return refuse("is not on the public Internet, and not configured as an upstream");
        }
        if !self.is_proxied(url) {
            return Ok(&self.public);
        }
        if self
            .proxy_hosts
            .iter()
            .any(|proxy| proxy.eq_ignore_ascii_case(host))
        {
            return refuse("is the proxy itself");
        }
        Ok(&self.public_by_proxy)
    }

    fn is_proxied(&self, url: &Url) -> bool {
        let uri: Option<Uri> = url.as_str().parse().ok();
        // A URL that is no URI is not sent anyway.
        uri.is_some_and(|uri| self.proxies.intercept(&uri).is_some())
    }
}

/// A client for one upstream configured by name, which may have private addresses.
///
/// # Errors
/// As [`Transport::new`].
pub(super) fn configured_client(
    roots: &RootCertStore,
    proxies: &Proxies,
) -> Result<Client, BuildError> {
    let client = through(builder(roots)?, proxies)?.build();
    client.map_err(BuildError::Client)
}

fn builder(roots: &RootCertStore) -> Result<ClientBuilder, BuildError> {
    let tls = tls::client(roots.clone()).map_err(BuildError::Tls)?;
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .http1_only()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_IDLE_MAX))
}

/// `builder`, through the proxies of the environment. The decision per URL is made by the same code as in
/// [`matcher`]: reqwest hands each of these to one.
fn through(mut builder: ClientBuilder, proxies: &Proxies) -> Result<ClientBuilder, BuildError> {
    // What the environment really says is in `proxies`, so reqwest must not look there again.
    builder = builder.no_proxy();
    let direct = NoProxy::from_string(&proxies.no);
    let made = [
        (&proxies.http, Proxy::http(&proxies.http)),
        (&proxies.https, Proxy::https(&proxies.https)),
        (&proxies.all, Proxy::all(&proxies.all)),
    ];
    for (_, proxy) in made.into_iter().filter(|(url, _)| !url.is_empty()) {
        let proxy = proxy.map_err(BuildError::Client)?;
        builder = builder.proxy(proxy.no_proxy(direct.clone()));
    }
    Ok(builder)
}

fn matcher(proxies: &Proxies) -> Matcher {
    Matcher::builder()
        .http(&*proxies.http)
        .https(&*proxies.https)
        .all(&*proxies.all)
        .no(&*proxies.no)
        .build()
}

/// The hosts of all proxies.
fn proxy_hosts(proxies: &Proxies) -> Result<Vec<String>, BuildError> {
    let written = [
        ("HTTP_PROXY", &proxies.http),
        ("HTTPS_PROXY", &proxies.https),
        ("ALL_PROXY", &proxies.all),
    ];
    let any = Uri::from_static("https://registry.example/");
    let host = |(variable, url): (&'static str, &String)| {
        let found = Matcher::builder().all(&**url).build().intercept(&any);
        let host = found.and_then(|proxy| Some(proxy.uri().host()?.to_owned()));
        host.ok_or(BuildError::Proxy(variable))
    };
    let set = written.into_iter().filter(|(_, url)| !url.is_empty());
    set.map(host).collect()
}

async fn attempt(
    client: &Client,
    method: &Method,
    url: &Url,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let mut request = Request::new(method.clone(), url.clone());
    *request.headers_mut() = headers.clone();
    match timeout(HEADERS_TIMEOUT, client.execute(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(failure(error)),
        Err(_) => Err(Error::TimedOut(Silence::Headers)),
    }
}

/// Every finished request upstream passes here, token requests included: where it is logged and counted.
fn finished(
    label: &str,
    method: &Method,
    url: &Url,
    outcome: &Result<Response, Error>,
    took: Duration,
) {
    let (status, error) = match outcome {
        Ok(response) => (Some(response.status().as_u16()), None),
        Err(error) => (None, Some(error.as_str())),
    };
    // Never the query: it holds signatures, and realms of other people's making.
    let (host, path) = (guard::host_of(url), url.path());
    tracing::debug!(upstream = label, %method, host, path, status, error, ?took, "asked upstream");
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

    fn transport(proxies: &Proxies) -> Transport {
        Transport::new(&tls::usual_roots(), proxies).expect("a transport")
    }

    #[track_caller]
    fn check(transport: &Transport, url: &str, expected: bool) {
        let url = url.parse().expect("a URL");
        let outcome = transport.client(&Reach::Public, &url);
        assert_eq!(outcome.is_ok(), expected, "{url} {outcome:?}");
    }

    #[test]
    fn what_nobody_configured_is_asked_over_https_on_public_hosts_alone() {
        let direct = transport(&Proxies::default());
        check(&direct, "https://ghcr.io/v2/", true);
        check(&direct, "https://1.1.1.1/v2/", true);
        check(&direct, "http://ghcr.io/v2/", false);
        for url in [
            "https://127.0.0.1/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://localhost/",
            "https://localhost./",
            "https://metadata.google.internal/",
        ] {
            check(&direct, url, false);
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_private_addresses_is_refused_when_it_is_dialled() {
        let direct = transport(&Proxies::default());
        let url = "https://localhost:1/".parse().expect("a URL");
        let refused = attempt(&direct.public, &Method::GET, &url, &HeaderMap::new()).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }

    #[test]
    fn through_a_proxy_the_same_names_are_refused_and_the_proxy_too() {
        let proxied = transport(&Proxies {
            https: "http://user:pw@proxy.corp.example:3128".to_owned(),
            no: "direct.example, 10.0.0.0/8".to_owned(),
            ..Proxies::default()
        });
        let is_proxied = |url: &str| proxied.is_proxied(&url.parse().expect("a URL"));
        assert!(is_proxied("https://ghcr.io/"));
        assert!(!is_proxied("https://a.direct.example/"));
        assert!(!is_proxied("https://10.1.2.3/"));
        check(&proxied, "https://ghcr.io/", true);
        check(&proxied, "https://10.1.2.3/", false);
        check(&proxied, "https://192.168.1.1/", false);
        check(&proxied, "https://registry.svc/", false);
        check(&proxied, "https://proxy.corp.example/", false);
    }

    #[test]
    fn a_proxy_that_is_none_is_an_error_at_start() {
        let proxies = Proxies {
            all: "ftp://proxy.example".to_owned(),
            ..Proxies::default()
        };
        let refused = Transport::new(&tls::usual_roots(), &proxies);
        assert!(matches!(refused, Err(BuildError::Proxy("ALL_PROXY"))));
    }
}
