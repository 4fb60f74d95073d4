//! From a TCP connection to one that nobody else can read.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::name_of;
use super::tls::Tls;

/// The first byte of whoever speaks TLS: a record of the handshake (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// What those get who forgot the `s` of `https`, and would otherwise see seven unreadable bytes.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Connection: close\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 36\r\n\
    \r\n\
    this port speaks https, and not http";

/// What came of a handshake.
pub(super) enum Shaken {
    /// A connection, and the name in the client's certificate where it showed one.
    Tls(Box<TlsStream<TcpStream>>, Option<Arc<str>>),
    /// The other side does not speak TLS, and was told that we do.
    Plain(TcpStream),
}

/// Shakes hands with whoever is at the other end of `stream`. Whoever calls this bounds its time.
///
/// # Errors
/// What the network or TLS says.
pub(super) async fn shake_hands(mut stream: TcpStream, tls: &Arc<Tls>) -> io::Result<Shaken> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
        stream.write_all(NOT_TLS).await?;
        return Ok(Shaken::Plain(stream));
    }
    let acceptor = TlsAcceptor::from(tls.current().await);
    let stream = acceptor.accept(stream).await?;
    let (_, session) = stream.get_ref();
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let name = shown.and_then(name_of);
    Ok(Shaken::Tls(Box::new(stream), name))
}
