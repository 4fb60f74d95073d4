//! A client that sends the bytes it is told, and knows how an answer ended.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::secrets;

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
}

impl Request {
    /// A request of any method. It carries `Host: mirror.test` and nothing else.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
        }
    }

    /// A GET.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A HEAD.
    pub fn head(target: &str) -> Self {
        Self::new("HEAD", target)
    }

    /// One more header line. A `Host` takes the place of the usual one.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref().to_vec();
        secrets::plant_header(name, &String::from_utf8_lossy(&value));
        self.headers.push((name.to_owned(), value));
        self
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The request as it goes over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let host = ("Host".to_owned(), b"mirror.test".to_vec());
        let named = self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = (!named).then_some(&host);
        for (name, value) in host.into_iter().chain(&self.headers) {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        text
    }

    /// Sends it on a connection of its own and reads the whole answer.
    pub async fn send(self, address: SocketAddr) -> Answer {
        self.open(address).await.finish().await
    }

    /// Sends it on a connection of its own and reads the head of the answer.
    pub async fn open(self, address: SocketAddr) -> Pull {
        let mut connection = Connection::open(address).await;
        connection.write(&self.to_bytes()).await;
        let answered = connection.pull(&self.method).await;
        answered.unwrap_or_else(|| panic!("an answer to {} {}", self.method, self.target))
    }
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every byte that was declared came.
    Complete,
    /// The connection was closed before that, as clients resume from.
    Short,
    /// The connection was reset before that.
    Reset,
}

/// A whole answer, or what came of it.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header lines, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// How it ended.
    pub ending: Ending,
}

/// The values of a header, one a line.
fn lines<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let same = headers
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name));
    same.map(|(_, value)| &**value).collect()
}

impl Answer {
    /// The value of a header that stands there at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = lines(&self.headers, name);
        assert!(values.len() <= 1, "{name} stands once: {values:?}");
        values.first().copied()
    }

    /// The body of a complete answer with this status.
    pub fn expect(self, status: u16) -> Bytes {
        assert_eq!(
            (self.status, self.ending),
            (status, Ending::Complete),
            "{}",
            String::from_utf8_lossy(&self.body[..self.body.len().min(500)])
        );
        self.body
    }
}

/// What a connection runs over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to the mirror.
pub struct Connection {
    stream: Box<dyn Stream>,
    /// What was read and not yet used.
    buffer: BytesMut,
}

impl Connection {
    /// A connection.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        Self::over(stream)
    }

    /// A connection from another address of this machine, as another client has it.
    pub async fn open_from(source: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let source = format!("{source}:0").parse().expect("an address");
        socket.bind(source).expect("all of 127.0.0.0/8 is here");
        Self::over(socket.connect(address).await.expect("it listens"))
    }

    /// A connection over something else than TCP alone.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: BytesMut::new(),
        }
    }

    /// Sends a request and reads the head of the answer; `None` when the connection ends before.
    pub async fn ask(mut self, request: &Request) -> Option<Pull> {
        self.write(&request.to_bytes()).await;
        self.pull(request.method()).await
    }

    /// A connection that takes little before it is read, as a slow client's does.
    pub async fn open_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a socket");
        Self::over(socket.connect(address).await.expect("it listens"))
    }

    /// Sends some bytes; the other side may have closed already.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Reads the head of the next answer that is not interim; `None` when the connection ends before.
    pub async fn pull(mut self, method: &str) -> Option<Pull> {
        loop {
            let (status, headers) = self.head().await?;
            if status >= 200 {
                return Some(Pull::new(self, method, status, headers));
            }
        }
    }

    async fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !matches!(self.more().await, Ok(1..)) {
                return None;
            }
        };
        let head = self.buffer.split_to(end).to_vec();
        let head = String::from_utf8(head).expect("a head of the mirror is text");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.split(' ').nth(1).expect("a status");
        let headers = lines
            .map(|line| line.split_once(": ").expect("a header line"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Some((status.parse().expect("a status"), headers))
    }

    /// Reads until the other side closes or resets; gives what came.
    pub async fn read_to_end(mut self) -> Bytes {
        while let Ok(1..) = self.more().await {}
        self.buffer.freeze()
    }

    async fn more(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.buffer).await
    }
}

/// An answer whose body is being read. Dropping it hangs up.
pub struct Pull {
    /// The status.
    pub status: u16,
    /// The header lines, in order.
    pub headers: Vec<(String, String)>,
    connection: Connection,
    /// How much of the body has not been given yet; `None` when only the end of the connection says.
    left: Option<u64>,
}

impl Pull {
    fn new(
        connection: Connection,
        method: &str,
        status: u16,
        headers: Vec<(String, String)>,
    ) -> Self {
        let declared = lines(&headers, "Content-Length");
        let left = if method == "HEAD" || matches!(status, 204 | 304) {
            Some(0)
        } else {
            declared
                .first()
                .map(|length| length.parse().expect("a length"))
        };
        Self {
            status,
            headers,
            connection,
            left,
        }
    }

    /// Reads `n` bytes of the body; fewer when it ends before.
    pub async fn read(&mut self, n: usize) -> Bytes {
        while self.connection.buffer.len() < n {
            if !matches!(self.connection.more().await, Ok(1..)) {
                break;
            }
        }
        let n = n.min(self.connection.buffer.len());
        self.left = self.left.map(|left| left.saturating_sub(n as u64));
        self.connection.buffer.split_to(n).freeze()
    }

    /// Reads the rest of the body.
    pub async fn finish(self) -> Answer {
        self.finish_and_keep().await.0
    }

    /// Reads the rest of the body, for another request on the same connection.
    pub async fn finish_and_keep(mut self) -> (Answer, Connection) {
        let wanted = self.left.map_or(usize::MAX, |left| {
            usize::try_from(left).expect("a body that fits in memory")
        });
        let connection = &mut self.connection;
        let mut ending = Ending::Complete;
        while connection.buffer.len() < wanted {
            ending = match connection.more().await {
                Ok(1..) => continue,
                Ok(0) if self.left.is_none() => break,
                Ok(0) => Ending::Short,
                Err(_) => Ending::Reset,
            };
            break;
        }
        let n = wanted.min(connection.buffer.len());
        let answer = Answer {
            status: self.status,
            headers: self.headers,
            body: connection.buffer.split_to(n).freeze(),
            ending,
        };
        (answer, self.connection)
    }
}
