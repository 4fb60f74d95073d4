//! Proxies in this process that write down what they are told.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::harness::upstream::{Authority, basic};

/// What a proxy was told, and that it passed on in plain.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<String>>);

impl Told {
    /// One more thing.
    pub fn push(&self, text: &str) {
        self.0.lock().expect("not poisoned").push_str(text);
    }

    fn text(&self) -> String {
        self.0.lock().expect("not poisoned").clone()
    }
}

/// A proxy on loopback. It ends when it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    told: Told,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// An HTTP proxy that opens tunnels (RFC 9110 section 9.3.6), and passes on what is asked for in plain.
    pub async fn start() -> Self {
        Self::serving(|stream, told| pass_on(stream, told, None)).await
    }

    /// The same for those alone who say this name and password.
    pub async fn wanting(name: &str, password: &str) -> Self {
        let wanted = basic(name, password);
        Self::serving(move |stream, told| pass_on(stream, told, Some(wanted.clone()))).await
    }

    /// The same over TLS, with a certificate of `authority`.
    pub async fn wanting_over_tls(name: &str, password: &str, authority: &Authority) -> Self {
        let wanted = basic(name, password);
        let acceptor = authority.acceptor("127.0.0.1");
        Self::serving(move |stream, told| {
            let (acceptor, wanted) = (acceptor.clone(), wanted.clone());
            async move {
                let stream = acceptor.accept(stream).await.ok()?;
                pass_on(stream, told, Some(wanted)).await
            }
        })
        .await
    }

    /// One that serves each connection by `serve`.
    pub async fn serving<F: Future<Output = Option<()>> + Send>(
        serve: impl Fn(TcpStream, Told) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let told = Told::default();
        let mut serving = JoinSet::new();
        let written = told.clone();
        serving.spawn(async move {
            let mut connections = FuturesUnordered::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.expect("loopback accepts");
                        connections.push(serve(stream, written.clone()));
                    }
                    Some(_) = connections.next() => {}
                }
            }
        });
        Self {
            address,
            told,
            _serving: serving,
        }
    }

    /// Everything it was told, and that it passed on in plain.
    pub fn log(&self) -> String {
        self.told.text()
    }
}

async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

async fn pass_on<S: AsyncRead + AsyncWrite + Unpin>(
    mut client: S,
    told: Told,
    wanted: Option<String>,
) -> Option<()> {
    let text = head(&mut client).await?;
    told.push(&text);
    let is_theirs = |line: &&str| line.to_lowercase().starts_with("proxy-authorization:");
    let shown = text.lines().find(is_theirs);
    let shown = shown.and_then(|line| line.split_once(": "));
    if wanted.is_some_and(|wanted| shown.is_none_or(|(_, shown)| shown != wanted)) {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        client.write_all(refusal).await.ok()?;
        return client.shutdown().await.ok();
    }
    let mut words = text.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let host = target.strip_prefix("http://").unwrap_or(target);
    let host = host.split('/').next()?;
    let mut server = TcpStream::connect(host).await.ok()?;
    if method == "CONNECT" {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
    } else {
        let path = target.strip_prefix("http://")?.strip_prefix(host)?;
        let origin = text.replacen(target, path, 1);
        // What is said to a proxy stays there (RFC 9110 section 11.7.2).
        let lines = origin.split_inclusive("\r\n");
        let origin: String = lines.filter(|line| !is_theirs(line)).collect();
        server.write_all(origin.as_bytes()).await.ok()?;
        // One request a connection, so that each is seen.
        let answer = head(&mut server).await?;
        let answer = answer.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        client.write_all(answer.as_bytes()).await.ok()?;
    }
    copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}
