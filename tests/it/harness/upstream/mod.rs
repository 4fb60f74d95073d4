//! An upstream registry in this process. By default it is a correct one; a test scripts what is not. It counts and
//! remembers everything it is asked.

mod answer;
mod black_hole;
mod guard;
mod registry;
mod tls;
mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rcgen::{Certificate, KeyPair};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::harness::content::{Image, Manifest, sha256};

pub use answer::{Answer, Body, Declared, End};
pub use black_hole::BlackHole;
pub use guard::{Guard, basic};
pub use tls::Authority;
pub use wire::Seen;

use registry::Content;
use wire::After;

/// Decides about a request, or leaves it to the rules before it.
type Rule = Box<dyn Fn(&Seen) -> Option<Answer> + Send>;

/// A registry on loopback. It ends when it is dropped.
pub struct Upstream {
    shared: Arc<Shared>,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    serving: tokio::sync::Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Shared {
    content: Mutex<Content>,
    rules: Mutex<Vec<Rule>>,
    log: Mutex<Vec<Arc<Seen>>>,
    /// Requests so far.
    seen: watch::Sender<usize>,
    /// Connections so far.
    accepted: watch::Sender<usize>,
    /// Answers that are being sent, and the most there ever were at once.
    sending: Mutex<(usize, usize)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with a lock in hand")
}

// === Its life ===

impl Upstream {
    /// A registry on 127.0.0.1 without TLS.
    pub async fn start() -> Self {
        Self::start_on("127.0.0.1").await
    }

    /// A registry without TLS on another address of loopback, which is another host.
    pub async fn start_on(host: &str) -> Self {
        Self::bind(host, None).await
    }

    /// A registry with a certificate of `authority`.
    pub async fn start_tls(host: &str, authority: &Authority) -> Self {
        Self::bind(host, Some(authority.acceptor(host))).await
    }

    /// A registry with a certificate of `authority`, that lets in only whoever has one, too.
    pub async fn start_demanding(host: &str, authority: &Authority) -> Self {
        Self::bind(host, Some(authority.demanding_acceptor(host))).await
    }

    /// A registry with this certificate.
    pub async fn start_with(host: &str, identity: &(Certificate, KeyPair)) -> Self {
        let clients = WebPkiClientVerifier::no_client_auth();
        Self::bind(host, Some(tls::acceptor(identity, clients))).await
    }

    async fn bind(host: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((host, 0)).await.expect("a free port");
        let upstream = Self {
            shared: Arc::default(),
            address: listener.local_addr().expect("an address"),
            tls,
            serving: tokio::sync::Mutex::default(),
        };
        upstream.serve(listener).await;
        upstream
    }

    async fn serve(&self, listener: TcpListener) {
        let serving = serve(listener, Arc::clone(&self.shared), self.tls.clone());
        self.serving.lock().await.spawn(serving);
    }

    /// Closes the port and every connection.
    pub async fn stop(&self) {
        self.serving.lock().await.shutdown().await;
    }

    /// Opens the same port again.
    pub async fn resume(&self) {
        let listener = TcpListener::bind(self.address).await.expect("its own port");
        self.serve(listener).await;
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// An absolute URL on this upstream.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }
}

// === What it holds ===

impl Upstream {
    /// Puts a blob into a repository; gives its digest.
    pub fn put_blob(&self, name: &str, body: impl Into<Body>) -> String {
        let body = body.into();
        let digest = sha256(&body.bytes);
        self.put_blob_as(name, &digest, body);
        digest
    }

    /// Puts a blob into a repository under any digest.
    pub fn put_blob_as(&self, name: &str, digest: &str, body: impl Into<Body>) {
        lock(&self.shared.content).put_blob(name, digest, body.into());
    }

    /// Puts a manifest into a repository, and lets a tag name it.
    pub fn put_manifest(&self, name: &str, tag: &str, manifest: &Manifest) -> String {
        let digest = manifest.digest();
        self.put_manifest_as(name, &digest, manifest);
        lock(&self.shared.content).put_tag(name, tag, &digest);
        digest
    }

    /// Puts a manifest into a repository under any digest.
    pub fn put_manifest_as(&self, name: &str, digest: &str, manifest: &Manifest) {
        lock(&self.shared.content).put_manifest(name, digest, manifest.clone());
    }

    /// Puts an image into a repository under a tag.
    pub fn put_image(&self, name: &str, tag: &str, image: &Image) {
        lock(&self.shared.content).put_image(name, tag, image);
    }

    /// Removes a tag.
    pub fn remove_tag(&self, name: &str, tag: &str) {
        lock(&self.shared.content).remove_tag(name, tag);
    }
}

// === What it does instead ===

impl Upstream {
    /// Lets `rule` decide first, before every rule given earlier. Where it gives `None`, those decide, and in the end
    /// the registry.
    pub fn rule(&self, rule: impl Fn(&Seen) -> Option<Answer> + Send + 'static) {
        lock(&self.shared.rules).push(Box::new(rule));
    }

    /// Answers a path so, whatever the method, from now on. A `*` at the end of the path stands for any rest.
    pub fn answer(&self, path: &str, answer: Answer) {
        let path = path.to_owned();
        self.rule(move |request| fits(request.path(), &path).then(|| answer.clone()));
    }

    /// Answers a path so to one method, from now on.
    pub fn answer_to(&self, method: &'static str, path: &str, answer: Answer) {
        let path = path.to_owned();
        self.rule(move |request| {
            let hit = request.method == method && fits(request.path(), &path);
            hit.then(|| answer.clone())
        });
    }

    /// Serves a file, by GET and HEAD and with ranges, as an object store behind a registry does.
    pub fn put_file(&self, path: &str, body: impl Into<Body>) {
        let (path, body) = (path.to_owned(), body.into());
        self.rule(move |request| {
            let hit = request.path() == path;
            hit.then(|| registry::blob(&body, &sha256(&body.bytes), request))
        });
    }

    /// Sends whoever wants a blob to the same path below `base`, with this query.
    pub fn redirect_blobs(&self, status: u16, base: &str, query: &str) {
        let (base, query) = (base.to_owned(), query.to_owned());
        self.rule(move |request| {
            let (_, kind, digest) = request.parts()?;
            let location = format!("{base}/{digest}{query}");
            (kind == "blobs").then(|| Answer::redirect(status, &location))
        });
    }

    /// Answers so while another answer is being sent.
    pub fn one_at_a_time(&self, refusal: Answer) {
        // The rules are part of what is shared.
        let shared = Arc::downgrade(&self.shared);
        self.rule(move |_| {
            let busy = shared
                .upgrade()
                .is_some_and(|shared| lock(&shared.sending).0 > 0);
            busy.then(|| refusal.clone())
        });
    }

    /// Forgets all rules.
    pub fn behave(&self) {
        lock(&self.shared.rules).clear();
    }
}

fn fits(path: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == pattern,
    }
}

// === What it has seen ===

impl Upstream {
    /// All requests so far.
    pub fn log(&self) -> Vec<Arc<Seen>> {
        lock(&self.shared.log).clone()
    }

    /// The requests of one method for one path, so far. A `*` at the end of the path stands for any rest.
    pub fn requests(&self, method: &str, path: &str) -> Vec<Arc<Seen>> {
        let mut log = self.log();
        log.retain(|request| request.method == method && fits(request.path(), path));
        log
    }

    /// How many bytes of body have gone out, for paths that fit.
    pub fn body_bytes(&self, path: &str) -> u64 {
        let log = self.log();
        let fitting = log.iter().filter(|request| fits(request.path(), path));
        fitting.map(|request| request.sent()).sum()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        *self.shared.accepted.borrow()
    }

    /// The most answers that were being sent at once.
    pub fn sent_at_once(&self) -> usize {
        lock(&self.shared.sending).1
    }

    /// Waits until there were `n` requests of this method for this path.
    pub async fn wait_until(&self, n: usize, method: &str, path: &str) {
        let mut seen = self.shared.seen.subscribe();
        let enough = |_: &usize| self.requests(method, path).len() >= n;
        // The sender lives as long as `self`.
        let _ = seen.wait_for(enough).await;
    }

    /// Waits until `n` connections were accepted.
    pub async fn wait_for_connections(&self, n: usize) {
        let mut accepted = self.shared.accepted.subscribe();
        let _ = accepted.wait_for(|accepted| *accepted >= n).await;
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        lock(&self.shared.log).clear();
    }
}

// === Serving ===

/// Serves all connections in one task, so that ending the task closes every socket.
async fn serve(listener: TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.expect("loopback accepts");
                shared.accepted.send_modify(|accepted| *accepted += 1);
                connections.push(serve_connection(stream, Arc::clone(&shared), tls.clone()));
            }
            Some(()) = connections.next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    stream.set_nodelay(true).expect("a socket");
    let Some(tls) = tls else {
        let (stream, end) = talk(stream, &shared).await;
        return close(stream, end).await;
    };
    // A client that does not trust the certificate ends the handshake.
    if let Ok(stream) = tls.accept(stream).await {
        let (stream, end) = talk(stream, &shared).await;
        close(stream.into_inner().0, end).await;
    }
}

async fn close(mut stream: TcpStream, end: End) {
    match end {
        End::Rst => stream.set_zero_linger().expect("a socket"),
        // The other side may be gone already.
        End::Fin => drop(stream.shutdown().await),
    }
}

/// Answers requests until the script or the other side ends it.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, shared: &Shared) -> (S, End) {
    let mut buffer = Vec::new();
    while let Ok(Some(request)) = wire::read_request(&mut stream, &mut buffer).await {
        let request = Arc::new(request);
        lock(&shared.log).push(Arc::clone(&request));
        let answer = shared.decide(&request);
        shared.seen.send_modify(|seen| *seen += 1);
        shared.sending(true);
        let written = wire::write_answer(&mut stream, &request, &answer).await;
        shared.sending(false);
        match written {
            Ok(After::Open) => {}
            Ok(After::Closed(end)) => return (stream, end),
            Err(_) => break,
        }
    }
    (stream, End::Fin)
}

impl Shared {
    fn sending(&self, more: bool) {
        let mut sending = lock(&self.sending);
        let now = if more { sending.0 + 1 } else { sending.0 - 1 };
        *sending = (now, sending.1.max(now));
    }

    fn decide(&self, request: &Seen) -> Answer {
        let rules = lock(&self.rules);
        let decided = rules.iter().rev().find_map(|rule| rule(request));
        drop(rules);
        decided.unwrap_or_else(|| lock(&self.content).answer(request))
    }
}

/// Some bytes as JSON text, for scripted answers.
pub fn json(value: &serde_json::Value) -> Bytes {
    value.to_string().into()
}
