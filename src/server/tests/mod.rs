//! The server from the outside: real sockets, raw bytes, a toy service.

mod bodies;
mod files;
mod framing;
mod limits;
mod repeats;
mod requests;
mod shutdown;
mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::trial::{ENDLESS, Ends, Library};
use super::{Drained, Limits, Listener, bind, serve};
use crate::http::{Answer, Body, Caller, End, Rejection, Service};
use crate::metrics::Metrics;

/// Longer than any deadline of the server, for tests that would hang otherwise.
const PATIENCE: Duration = Duration::from_mins(5);

/// Answers by path, and remembers what it was asked.
#[derive(Clone)]
struct Toy {
    seen: Arc<Mutex<Vec<String>>>,
    ends: mpsc::UnboundedSender<(u64, End)>,
    /// `/slow` waits for it.
    gate: Arc<Notify>,
    /// Told when `/slow` begins to wait.
    waiting: Arc<Notify>,
}

impl Toy {
    async fn answer(self, request: Arc<Request<()>>, caller: Arc<Caller>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let seen = format!("{} {}", request.method(), request.uri());
        self.seen.lock().unwrap().push(seen);
        let body = match path.as_str() {
            "/panic" => panic!("on purpose"),
            "/caller" => Body::full(format!("{} {}", caller.listener, caller.peer)),
            "/empty" => Body::empty(),
            "/slow" => {
                self.waiting.notify_one();
                self.gate.notified().await;
                Body::full("slow")
            }
            "/endless" => chunks(stream::repeat(vec![b'x'; 65536]).map(Ok), ENDLESS),
            "/broken" => chunks(
                stream::iter([Ok(b"some ".to_vec()), Ok(b"bytes".to_vec()), Err("lost")]),
                100,
            ),
            "/short" => chunks(stream::iter([Ok(b"some bytes".to_vec())]), 100),
            "/long" => chunks(stream::iter([Ok(b"some bytes and more".to_vec())]), 10),
            "/panicking" => chunks(
                stream::iter(0..2).map(|n| match n {
                    0 => Ok(b"some bytes".to_vec()),
                    _ => panic!("on purpose"),
                }),
                100,
            ),
            _ => Body::full("hello"),
        };
        let ends = self.ends.clone();
        Response::new(body.on_end(move |bytes, end| {
            let _ = ends.send((bytes, end));
        }))
    }
}

impl Service for Toy {
    fn call(&self, request: Arc<Request<()>>, caller: Arc<Caller>) -> Answer {
        match request.uri().path() {
            "/panic-at-once" => panic!("on purpose"),
            _ => Answer::later(self.clone().answer(request, caller)),
        }
    }

    fn reject(&self, rejection: Rejection) -> Response<Body> {
        let mut response = Response::new(Body::full(format!("{rejection:?}")));
        *response.status_mut() = rejection.status();
        response
    }
}

/// A library in a file of its own.
fn library() -> (Library, Ends) {
    Library::over(tempfile::tempfile().unwrap())
}

fn chunks(
    chunks: impl futures_util::Stream<Item = Result<Vec<u8>, &'static str>> + Send + 'static,
    length: u64,
) -> Body {
    let chunks = chunks.map(|chunk| chunk.map(Bytes::from).map_err(io::Error::other));
    Body::stream(chunks, Some(length))
}

/// A server that runs, with the address of its first listener.
struct Running {
    address: SocketAddr,
    toy: Toy,
    ends: mpsc::UnboundedReceiver<(u64, End)>,
    metrics: Metrics,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Drained>,
}

fn start(limits: Limits) -> Running {
    start_on(vec![bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap()], limits)
}

/// A listener without TLS.
fn plain(socket: TcpListener) -> Listener {
    Listener { socket, tls: None }
}

#[expect(clippy::disallowed_methods, reason = "the server runs beside its test")]
fn start_on(listeners: Vec<TcpListener>, limits: Limits) -> Running {
    let address = listeners[0].local_addr().unwrap();
    let (ends, seen_ends) = mpsc::unbounded_channel();
    let toy = Toy {
        seen: Arc::default(),
        ends,
        gate: Arc::default(),
        waiting: Arc::default(),
    };
    let metrics = Metrics::new();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        let _ = stopped.await;
    };
    let task = tokio::spawn(serve(
        listeners.into_iter().map(plain).collect(),
        limits,
        toy.clone(),
        metrics.clone(),
        shutdown,
    ));
    Running {
        address,
        toy,
        ends: seen_ends,
        metrics,
        stop: Some(stop),
        task,
    }
}

impl Running {
    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// What comes back for these bytes until the server closes.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.rest().await
    }

    fn seen(&self) -> Vec<String> {
        self.toy.seen.lock().unwrap().clone()
    }

    async fn end(&mut self) -> (u64, End) {
        timeout(PATIENCE, self.ends.recv()).await.unwrap().unwrap()
    }

    /// Waits until the metrics have this line.
    async fn shows(&self, line: &str) {
        while !self.metrics.render().lines().any(|shown| shown == line) {
            tokio::task::yield_now().await;
        }
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    async fn drained(self) -> Drained {
        timeout(PATIENCE, self.task).await.unwrap().unwrap()
    }
}

/// One raw connection.
struct Client(TcpStream);

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Everything until the end, which must be a FIN: a reset panics.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut bytes))
            .await
            .expect("the server closes")
            .expect("it closes with a FIN");
        String::from_utf8(bytes).unwrap()
    }

    /// Everything up to and including `end`.
    async fn until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            let byte = timeout(PATIENCE, self.0.read_u8()).await.unwrap();
            bytes.push(byte.unwrap_or_else(|error| panic!("{error} after {bytes:?}")));
        }
        String::from_utf8(bytes).unwrap()
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

fn get_and_close(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
}

/// The statuses of the responses in `text`, in order.
fn statuses(text: &str) -> Vec<&str> {
    text.match_indices("HTTP/1.")
        .map(|(at, _)| &text[at + 9..at + 12])
        .collect()
}
