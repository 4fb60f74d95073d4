//! Whole conversations with registries on loopback.

mod authenticating;
mod blobs;
mod counting;
mod hostile;
mod manifests;
mod proxying;
mod redirecting;
mod sources;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::oci::{Algorithm, Digest, Reference};

/// A request as a registry saw it.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    target: String,
    authorization: Option<String>,
    proxy_authorization: Option<String>,
    range: Option<String>,
    via: Option<String>,
}

impl Seen {
    fn new(request: &Request<Incoming>) -> Self {
        let header = |name: &str| {
            let value = request.headers().get(name)?;
            Some(value.to_str().expect("text").to_owned())
        };
        Self {
            method: request.method().to_string(),
            target: request.uri().to_string(),
            authorization: header("authorization"),
            proxy_authorization: header("proxy-authorization"),
            range: header("range"),
            via: header("via"),
        }
    }

    fn shows(&self, authorization: &str) -> bool {
        self.authorization.as_deref() == Some(authorization)
    }
}

/// A registry on loopback that answers as a function says, and remembers what it was asked.
struct Fake {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Fake {
    async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::serve(listener, None, answer)
    }

    fn serve(
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let connections = Arc::<AtomicUsize>::default();
        let accepted = Arc::clone(&connections);
        let (all, answer) = (Arc::clone(&seen), Arc::new(answer));
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let (all, answer, tls) = (Arc::clone(&all), Arc::clone(&answer), tls.clone());
                spawn(async move {
                    let answer = move |seen: Seen| {
                        all.lock().expect("no panic").push(seen.clone());
                        answer(&seen)
                    };
                    let Some(tls) = tls else {
                        return converse(stream, answer).await;
                    };
                    // A client that does not trust us goes away.
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(stream, answer).await;
                    }
                });
            }
        });
        Self {
            address,
            seen,
            connections,
        }
    }

    /// A registry that shows a certificate for `name`, and the certificate (PEM).
    async fn certified(
        name: &str,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> (Self, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]);
        let certificate = parameters.expect("parameters").self_signed(&key);
        let certificate = certificate.expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
            )
            .expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let fake = Self::serve(listener, Some(acceptor), answer);
        (fake, certificate.pem())
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    /// How many connections it has accepted.
    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Methods and targets, one line each.
    fn log(&self) -> Vec<String> {
        let lines = self.seen().into_iter();
        lines
            .map(|seen| format!("{} {}", seen.method, seen.target))
            .collect()
    }
}

async fn converse<S>(stream: S, answer: impl Fn(Seen) -> Reply)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| {
        let reply = answer(Seen::new(&request));
        async { Ok::<_, Infallible>(reply) }
    });
    // A client that hangs up is no fault of the registry.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "the registry that is asked must run beside whoever asks"
)]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

type Reply = Response<Full<Bytes>>;

/// An answer: status, headers, body.
fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    response.body(body).expect("an answer")
}

/// 401 with a challenge.
fn unauthorized(challenge: &str) -> Reply {
    reply(401, &[("www-authenticate", challenge)], "")
}

/// A token that is good for five minutes.
fn token(token: &str) -> Reply {
    let json = format!(r#"{{"token":"{token}","expires_in":300}}"#);
    reply(200, &[], &json)
}

/// Reads a request without a body.
async fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
    head
}

/// A listener that answers every connection with these bytes and closes it.
async fn raw(answers: Vec<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.expect("sent");
        }
    });
    address
}

/// Upstreams with one that is configured at `endpoints`.
struct Setup {
    config: Config,
}

fn at(namespace: &str, endpoints: &[&str]) -> Setup {
    let endpoints = endpoints.iter().map(|url| url.parse().expect("a URL"));
    Setup {
        config: Config {
            default_upstream: "docker.io".parse().expect("a namespace"),
            further_defaults: Vec::new(),
            named: Vec::new(),
            unknown_namespaces: UnknownNamespaces::Public,
            upstreams: vec![UpstreamConfig {
                namespace: namespace.parse().expect("a namespace"),
                endpoints: endpoints.collect(),
                aliases: Vec::new(),
                ca: None,
                realms: Vec::new(),
                limits: Limits::default(),
                access: crate::upstream::AccessPolicy::default(),
                repositories: crate::oci::RepositoryPatterns::default(),
                way: Way::default(),
            }],
            credentials: Credentials::default(),
            proxies: Proxies::default(),
        },
    }
}

impl Setup {
    /// With the credential `user:password` for all of it.
    fn with_credential(mut self) -> Self {
        self.config.credentials = Credentials::new(vec![CredentialEntry {
            namespace: self.config.upstreams[0].namespace.clone(),
            prefix: String::new(),
            credential: Some(CredentialSource::Fixed(Credential::password(
                "user",
                Secret::new("password"),
            ))),
        }]);
        self
    }

    fn upstreams(self) -> Upstreams {
        self.counted(&Metrics::new())
    }

    /// The upstreams, which believe `authority` (PEM) and nobody else.
    fn trusting(self, authority: &str) -> Upstreams {
        let roots = tls::with_authorities(&RootCertStore::empty(), authority.as_bytes());
        let roots = roots.expect("an authority");
        let upstreams = Upstreams::trusting(&roots, self.config, Clock::system(), Metrics::new());
        upstreams.expect("a sound configuration")
    }

    /// The upstreams, counting in `metrics`.
    fn counted(self, metrics: &Metrics) -> Upstreams {
        let upstreams = Upstreams::new(self.config, Clock::system(), metrics.clone());
        upstreams.expect("a sound configuration")
    }

    /// The repository `a/b`.
    fn repository(self) -> Repository {
        let namespace = self.config.upstreams[0].namespace.clone();
        self.upstreams().a_b(namespace.as_str())
    }
}

impl Upstreams {
    /// The repository `a/b` of `namespace`.
    fn a_b(&self, namespace: &str) -> Repository {
        let namespace = namespace.parse().expect("a namespace");
        let name = "a/b".parse().expect("a name");
        self.repository(&namespace, &name, &Via::default())
    }
}

/// What `user:password` looks like on its way.
const BASIC: &str = "Basic dXNlcjpwYXNzd29yZA==";

fn latest() -> Reference {
    Reference::Tag("latest".parse().expect("a tag"))
}

fn digest_of(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}
