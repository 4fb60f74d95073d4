//! A proxy in this process that writes down what it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// An HTTP proxy that opens tunnels (RFC 9110 section 9.3.6), and passes on what is asked for in plain.
pub struct Proxy {
    pub address: SocketAddr,
    log: Arc<Mutex<String>>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// A proxy on loopback. It ends when it is dropped.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let log: Arc<Mutex<String>> = Arc::default();
        let mut serving = JoinSet::new();
        let written = Arc::clone(&log);
        serving.spawn(async move {
            let mut connections = FuturesUnordered::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.expect("loopback accepts");
                        connections.push(pass_on(stream, Arc::clone(&written)));
                    }
                    Some(_) = connections.next() => {}
                }
            }
        });
        Self {
            address,
            log,
            _serving: serving,
        }
    }

    /// Everything it was told, and that it passed on in plain.
    pub fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

async fn pass_on(mut client: TcpStream, log: Arc<Mutex<String>>) -> Option<()> {
    let text = head(&mut client).await?;
    log.lock().expect("not poisoned").push_str(&text);
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
        let is_ours = |line: &&str| !line.to_lowercase().starts_with("proxy-authorization:");
        let origin: String = origin.split_inclusive("\r\n").filter(is_ours).collect();
        server.write_all(origin.as_bytes()).await.ok()?;
        // One request a connection, so that each is seen.
        let answer = head(&mut server).await?;
        let answer = answer.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        client.write_all(answer.as_bytes()).await.ok()?;
    }
    copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}
