//! HTTP clients: whose certificates they believe, through which proxy they go, and how many connections they keep.

use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use moka::sync::Cache;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, NoProxy, Proxy, Url};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;

use super::dial::Patience;
use super::guard::{self, PublicOnly};
use super::{BuildError, Error, Proxies, UpstreamConfig, tls};

/// What upstreams see as `User-Agent`. Docker Hub answers 403 to requests without one.
const USER_AGENT: &str = concat!("entrepot/", env!("CARGO_PKG_VERSION"));

/// Longest wait for a connection: name, TCP and TLS. Two lost SYNs are retried within 3 s.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an unused connection is kept. Load balancers close theirs after 60 s; we want to be first.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// Unused connections kept per host of a configured upstream: a burst of layers leaves this many behind.
const POOL_IDLE_MAX: usize = 16;

/// Unused connections kept per public host that nobody configured. Images have about ten layers, of which containerd
/// and Docker pull three at a time.
const PUBLIC_POOL_IDLE_MAX: usize = 8;

/// Public hosts to which unused connections are kept, per [`Standing`]; the most asked ones stay. That makes 256
/// connections, however many hosts clients make up, of the 1024 descriptors that a process has where nobody raised
/// that.
const PUBLIC_HOSTS_KEPT_MAX: u64 = 16;

/// Names that are resolved at once, per [`Standing`]. Each holds one of tokio's 512 threads for blocking work until
/// the resolver gives up, which takes longer than anybody waits for it; the storage needs those threads, too.
const PUBLIC_LOOKUPS_MAX: usize = 32;

/// Where machines and pods ask for their own identity: EC2, ECS, EKS, Azure and Google Cloud.
const OWN_IDENTITY: &str =
    "169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,metadata.google.internal";

/// What is known of a registry that nobody configured. The two do not share what one of them could use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It stands in the table.
    Known,
    /// Somebody asked for it. There can be any number of these.
    Stranger,
}

/// What requests on behalf of registries of one [`Standing`] share.
#[derive(Debug)]
struct Pool {
    lookups: Arc<Semaphore>,
    /// One per host and port, because a client bounds the connections it keeps per host only.
    kept: Cache<String, Client>,
}

impl Pool {
    fn new() -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(PUBLIC_LOOKUPS_MAX)),
            kept: Cache::new(PUBLIC_HOSTS_KEPT_MAX),
        }
    }
}

/// Clients for hosts that nobody configured: they dial public addresses alone.
#[derive(Debug)]
pub(super) struct PublicClients {
    tls: ClientConfig,
    proxies: Proxies,
    /// Decides for each URL whether it goes through a proxy.
    matcher: Matcher,
    /// The hosts of the proxies, which the operator chose and which may well be private.
    proxy_hosts: Vec<String>,
    known: Pool,
    strangers: Pool,
}

impl PublicClients {
    /// Clients that trust `roots` and use `proxies`.
    ///
    /// # Errors
    /// `Proxy` when a proxy is none; `Tls` and `Client` when the HTTP client cannot be set up.
    pub(super) fn new(roots: &RootCertStore, proxies: &Proxies) -> Result<Self, BuildError> {
        let clients = Self {
            tls: tls::client(roots.clone()).map_err(BuildError::Tls)?,
            proxies: proxies.clone(),
            matcher: matcher(proxies),
            proxy_hosts: proxy_hosts(proxies)?,
            known: Pool::new(),
            strangers: Pool::new(),
        };
        // What would fail later fails now.
        clients.make(false, &clients.known)?;
        clients.make(true, &clients.known)?;
        Ok(clients)
    }

    /// The client that may ask `url`, for this hop of a request on behalf of a registry of this `standing`.
    ///
    /// # Errors
    /// `Refused` when `url` is not on the public Internet.
    pub(super) fn for_url(&self, standing: Standing, url: &Url) -> Result<Client, Error> {
        let host = guard::host_of(url);
        let refuse = |why: &str| Err(Error::Refused(format!("{host} {why}")));
        if url.scheme() != "https" {
            return refuse("is not configured, and would not be reached over https");
        }
        // Addresses skip the resolver, and a proxy resolves names for us.
        if !guard::may_be_public(host) {
            return refuse("is not on the public Internet, and not configured as an upstream");
        }
        let is_proxied = self.is_proxied(url);
        let is_host = |proxy: &String| proxy.eq_ignore_ascii_case(host);
        if is_proxied && self.proxy_hosts.iter().any(is_host) {
            return refuse("is the proxy itself");
        }
        let pool = match standing {
            Standing::Known => &self.known,
            Standing::Stranger => &self.strangers,
        };
        let key = url.authority();
        if let Some(client) = pool.kept.get(key) {
            return Ok(client);
        }
        let client = self.make(is_proxied, pool);
        let client = client.map_err(|error| Error::Unavailable(Arc::new(error)))?;
        pool.kept.insert(key.to_owned(), client.clone());
        // Right away, so that the bound is one. A client that is put out takes its unused connections along.
        pool.kept.run_pending_tasks();
        Ok(client)
    }

    /// Whether `url` is asked through a proxy.
    pub(super) fn is_proxied(&self, url: &Url) -> bool {
        let uri: Option<Uri> = url.as_str().parse().ok();
        // A URL that is no URI is not sent anyway.
        uri.is_some_and(|uri| self.matcher.intercept(&uri).is_some())
    }

    /// A client that goes through the proxies, or one that knows none. The names it resolves itself are public, the
    /// proxies' own aside.
    fn make(&self, is_proxied: bool, pool: &Pool) -> Result<Client, BuildError> {
        let builder = builder(&self.tls).pool_max_idle_per_host(PUBLIC_POOL_IDLE_MAX);
        let (builder, exempt) = if is_proxied {
            (through(builder, &self.proxies)?, self.proxy_hosts.clone())
        } else {
            (builder.no_proxy(), Vec::new())
        };
        let resolver = PublicOnly::new(exempt, Arc::clone(&pool.lookups));
        let client = builder.dns_resolver(Arc::new(resolver)).build();
        client.map_err(BuildError::Client)
    }
}

/// Clients for one upstream configured by name, which may have private addresses.
#[derive(Debug, Clone)]
pub(super) struct ConfiguredClients {
    /// For `hosts`.
    own: Client,
    /// For where it redirects to, and for its mirrors.
    others: Client,
    /// The hosts of its endpoints and configured realms, in lower case.
    hosts: Arc<[String]>,
}

impl ConfiguredClients {
    /// Those of the upstreams that need nothing of their own.
    ///
    /// # Errors
    /// As [`PublicClients::new`].
    pub(super) fn usual(roots: &RootCertStore, proxies: &Proxies) -> Result<Self, BuildError> {
        let tls = tls::client(roots.clone()).map_err(BuildError::Tls)?;
        let own = configured(&tls, proxies)?;
        Ok(Self {
            others: own.clone(),
            own,
            hosts: Arc::default(),
        })
    }

    /// Those of `upstream`, which trust `roots`, where `proxies` are those of the environment.
    ///
    /// # Errors
    /// As [`PublicClients::new`]; and `Tls` when the client certificate does not fit its key.
    pub(super) fn of(
        upstream: &UpstreamConfig,
        roots: &RootCertStore,
        proxies: &Proxies,
    ) -> Result<Self, BuildError> {
        let proxies = upstream.way.proxies(proxies);
        let usual = Self::usual(roots, &proxies)?;
        let endpoints = upstream.endpoints.iter().map(guard::host_of);
        let endpoints: Vec<_> = endpoints.map(str::to_owned).collect();
        let way = &upstream.way;
        let believed = if way.skip_verify { &*endpoints } else { &[] };
        let tls = tls::client_of(roots.clone(), way.client_certificate.as_ref(), believed);
        let realms = upstream.realms.iter();
        let realms = realms.map(|realm| realm.host().to_owned());
        Ok(Self {
            own: configured(&tls.map_err(BuildError::Tls)?, &proxies)?,
            others: usual.others,
            hosts: endpoints.iter().cloned().chain(realms).collect(),
        })
    }

    /// The client that asks `url`. A redirect does not take the certificate of the client along, nor the trust that
    /// its endpoints have.
    pub(super) fn for_url(&self, url: &Url) -> &Client {
        let host = guard::host_of(url);
        if self.hosts.iter().any(|own| own == host) {
            &self.own
        } else {
            &self.others
        }
    }
}

/// A client for an object store, which trusts `roots`. Where machines of a cloud learn who they are is never behind a
/// proxy.
///
/// # Errors
/// As [`PublicClients::new`].
pub(super) fn for_storage(roots: RootCertStore, proxies: &Proxies) -> Result<Client, BuildError> {
    let tls = tls::client(roots).map_err(BuildError::Tls)?;
    let proxies = Proxies {
        no: [&*proxies.no, OWN_IDENTITY].join(","),
        ..proxies.clone()
    };
    configured(&tls, &proxies)
}

fn configured(tls: &ClientConfig, proxies: &Proxies) -> Result<Client, BuildError> {
    let builder = builder(tls).pool_max_idle_per_host(POOL_IDLE_MAX);
    let client = through(builder, proxies)?.build();
    client.map_err(BuildError::Client)
}

fn builder(tls: &ClientConfig) -> ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .user_agent(USER_AGENT)
        .http1_only()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .connector_layer(Patience)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(proxies: &Proxies) -> PublicClients {
        PublicClients::new(&tls::usual_roots(), proxies).expect("clients")
    }

    #[track_caller]
    fn check(clients: &PublicClients, url: &str, expected: bool) {
        let outcome = clients.for_url(Standing::Stranger, &url.parse().expect("a URL"));
        assert_eq!(outcome.is_ok(), expected, "{url} {outcome:?}");
    }

    #[test]
    fn what_nobody_configured_is_asked_over_https_on_public_hosts_alone() {
        let direct = clients(&Proxies::default());
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
        let clients = clients(&Proxies::default());
        let client = clients.make(false, &clients.strangers).expect("a client");
        let refused = client.get("https://localhost:1/").send().await;
        let refused = format!("{:?}", refused.expect_err("localhost is private"));
        assert!(refused.contains("NotPublic"), "{refused}");
    }

    #[test]
    fn through_a_proxy_the_same_names_are_refused_and_the_proxy_too() {
        let proxied = clients(&Proxies {
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
        let refused = PublicClients::new(&tls::usual_roots(), &proxies);
        assert!(matches!(refused, Err(BuildError::Proxy("ALL_PROXY"))));
    }

    #[test]
    fn made_up_hosts_do_not_add_up() {
        let clients = clients(&Proxies::default());
        let known = "https://ghcr.io/".parse().expect("a URL");
        clients.for_url(Standing::Known, &known).expect("a client");
        for n in 0..10 * PUBLIC_HOSTS_KEPT_MAX {
            check(&clients, &format!("https://made-up-{n}.example.com/"), true);
        }
        assert!(clients.strangers.kept.entry_count() <= PUBLIC_HOSTS_KEPT_MAX);
        assert!(clients.known.kept.contains_key("ghcr.io"));
    }
}
