//! What a running mirror answers, asked as a client would: is it ready, and does an image come through it?
//!
//! Probes run beside the mirror, with next to no memory or time, and a container has no other client. So this is HTTP as
//! far as our own server speaks it: one request per connection, and a `Content-Length` on every answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use hyper::Uri;

/// Longest wait for a connection, and for the next bytes of an answer. A pull that has to ask upstream may take a while
/// to its first byte.
const SILENCE: Duration = Duration::from_secs(30);

/// Largest head of an answer, in bytes: several times what our own server sends.
const HEAD_BYTES_MAX: u64 = 32 * 1024;

/// How much of a body that is an error is shown, in bytes.
const SHOWN_BYTES: u64 = 500;

/// Why a mirror cannot be asked, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The URL is not `http://HOST[:PORT]`.
    #[error("`{0}` is not http:// with a host and, if need be, a port")]
    Url(String),
    /// No answer, or half of one.
    #[error("{url}: {source}")]
    Io {
        /// What was asked for.
        url: String,
        /// What went wrong.
        source: io::Error,
    },
    /// It is not HTTP, or not as our server speaks it.
    #[error("{0}: what answers is not a mirror")]
    NotAMirror(String),
    /// Another status than 200.
    #[error("{url}: {status} {body}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// The start of the body.
        body: String,
    },
}

/// A mirror, by its address.
#[derive(Debug, Clone)]
pub struct Probe {
    /// `host:port`, an IPv6 address in brackets.
    authority: String,
}

/// The body of an answer with status 200.
#[derive(Debug)]
pub struct Answer {
    url: String,
    body: io::Take<BufReader<TcpStream>>,
}

// === impl Probe ===

impl Probe {
    /// The mirror that listens on `address` of this machine.
    pub fn of_listener(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            // A listener on every address may be without IPv6, where the machine is.
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
        };
        let authority = SocketAddr::new(ip, address.port()).to_string();
        Self { authority }
    }

    /// The mirror at `url`.
    ///
    /// # Errors
    /// [`ProbeError::Url`].
    pub fn of_url(url: &str) -> Result<Self, ProbeError> {
        let refused = || ProbeError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| refused())?;
        let authority = uri.authority().ok_or_else(refused)?;
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if uri.scheme_str() != Some("http") || !is_bare || authority.as_str().contains('@') {
            return Err(refused());
        }
        let port = authority.port_u16().unwrap_or(80);
        let authority = format!("{}:{port}", authority.host());
        Ok(Self { authority })
    }

    /// Asks for `target`, with `accept` as the media types that are wanted. Blocks.
    ///
    /// # Errors
    /// All but [`ProbeError::Url`].
    pub fn get(&self, target: &str, accept: &str) -> Result<Answer, ProbeError> {
        let url = format!("http://{}{target}", self.authority);
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: entrepot-health\r\nAccept: {accept}\r\n\
             Connection: close\r\n\r\n",
            self.authority
        );
        match self.exchange(&head) {
            Ok(Some((200, body))) => Ok(Answer { url, body }),
            Ok(Some((status, body))) => Err(ProbeError::Status {
                url,
                status,
                body: start_of(body),
            }),
            Ok(None) => Err(ProbeError::NotAMirror(url)),
            Err(source) => Err(ProbeError::Io { url, source }),
        }
    }

    /// Sends a request; gives the status and the body, if it is an answer of ours.
    fn exchange(&self, head: &str) -> io::Result<Option<(u16, io::Take<BufReader<TcpStream>>)>> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        stream.write_all(head.as_bytes())?;
        let mut reader = BufReader::new(stream).take(HEAD_BYTES_MAX);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        let Some(status) = status.and_then(|status| status.parse().ok()) else {
            return Ok(None);
        };
        let mut length = None;
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            }
        }
        let reader = reader.into_inner();
        Ok(length.map(|length| (status, reader.take(length))))
    }

    /// The first address that takes a connection.
    fn connect(&self) -> io::Result<TcpStream> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in self.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, SILENCE) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn start_of(body: io::Take<BufReader<TcpStream>>) -> String {
    let mut start = Vec::new();
    // The status says enough where the body cannot be read.
    let _ = body.take(SHOWN_BYTES).read_to_end(&mut start);
    String::from_utf8_lossy(&start).trim_end().to_owned()
}

// === impl Answer ===

impl Answer {
    /// Gives the body to `sink`, piece by piece. Blocks.
    ///
    /// # Errors
    /// [`ProbeError::Io`], also when it ends early.
    pub fn for_each(mut self, mut sink: impl FnMut(&[u8])) -> Result<(), ProbeError> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.body.read(&mut buffer) {
                Ok(0) if self.body.limit() > 0 => {
                    return Err(self.failed(io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(0) => return Ok(()),
                Ok(count) => sink(&buffer[..count]),
                Err(source) => return Err(self.failed(source)),
            }
        }
    }

    fn failed(self, source: io::Error) -> ProbeError {
        ProbeError::Io {
            url: self.url,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        for (listener, asked) in [
            ("[::]:3000", "127.0.0.1:3000"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[fd00::1]:80", "[fd00::1]:80"),
        ] {
            let probe = Probe::of_listener(listener.parse().unwrap());
            assert_eq!(probe.authority, asked);
        }
    }

    #[test]
    fn a_url_is_a_host_and_nothing_else() {
        for (url, authority) in [
            (
                "http://mirror.registry.svc:3000",
                "mirror.registry.svc:3000",
            ),
            ("http://mirror/", "mirror:80"),
            ("http://[::1]:3000", "[::1]:3000"),
        ] {
            assert_eq!(Probe::of_url(url).unwrap().authority, authority);
        }
        for url in [
            "mirror:3000",
            "https://mirror",
            "http://a/b",
            "http://a?b",
            "http://u:p@a",
            "",
        ] {
            assert!(Probe::of_url(url).is_err(), "{url}");
        }
    }
}
