//! One connection from its acceptance to its last packet.

use std::error::Error;
use std::future::poll_fn;
use std::iter;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::conversation::Conversation;
use super::exchange::Exchange;
use super::handshake::{Shaken, shake_hands};
use super::line::Line;
use super::socket::Socket;
use super::tls::Tls;
use super::wire::Wire;
use super::{Phase, Server, Standing, reached};
use crate::http::{Caller, Service};

/// How long a client may take to close its side after we have closed ours.
const LINGER: Duration = Duration::from_secs(2);

/// How much it may send meanwhile.
const LINGER_BYTES: usize = 1024 * 1024;

/// Bytes thrown away per read then.
const LINGER_READ_BYTES: usize = 16 * 1024;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// By the client, by HTTP, by a deadline or by an error of its own.
    Done,
    /// By us, in the middle of a response, because the time to drain was over.
    Aborted,
}

/// Serves a connection to its end. Its errors are its own: they go to the log and no further.
pub(super) async fn serve<S: Service>(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    caller: Caller,
    standing: Standing,
    server: Arc<Server<S>>,
) -> Closed {
    // Heads and small bodies leave in one write; waiting for more would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(peer = %caller.peer, %error, "the connection was gone at once");
        return Closed::Done;
    }
    match tls {
        None => {
            let line = server.line(true);
            talk(stream, line, (caller, standing), server).await
        }
        Some(tls) => serve_tls(stream, &tls, (caller, standing), server).await,
    }
}

/// Shakes hands, and serves what comes of it. A drain does not wait for a handshake.
async fn serve_tls<S: Service>(
    stream: TcpStream,
    tls: &Arc<Tls>,
    (caller, standing): (Caller, Standing),
    server: Arc<Server<S>>,
) -> Closed {
    let peer = caller.peer;
    let shaken = tokio::select! {
        shaken = timeout(server.limits.head_timeout, shake_hands(stream, tls)) => shaken,
        () = reached(server.phase.clone(), Phase::Draining) => return Closed::Done,
    };
    let error = match shaken {
        Ok(Ok(Shaken::Tls(stream, client))) => {
            let caller = Caller {
                is_encrypted: true,
                client,
                ..caller
            };
            // What is encrypted cannot be sent from files.
            let line = server.line(false);
            return talk(*stream, line, (caller, standing), server).await;
        }
        Ok(Ok(Shaken::Plain(stream))) => {
            close(stream).await;
            "the client does not speak TLS".to_owned()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    server.metrics.accept_error("handshake");
    tracing::debug!(%peer, error, "no handshake");
    Closed::Done
}

/// Speaks HTTP until the end.
async fn talk<S: Service, W: Wire + Send + 'static>(
    stream: W,
    line: Line,
    (caller, standing): (Caller, Standing),
    server: Arc<Server<S>>,
) -> Closed {
    let peer = caller.peer;
    let line = Arc::new(line);
    let socket = Socket::new(stream, Arc::clone(&line), &server.limits);
    let phase = server.phase.clone();
    let exchange = Exchange::new(server, caller, standing, Arc::clone(&line));
    let mut conversation = Conversation::new(socket, exchange, Arc::clone(&line));

    let closed = {
        let mut draining = pin!(reached(phase.clone(), Phase::Draining));
        let mut aborting = pin!(reached(phase, Phase::Aborting));
        let mut is_draining = false;
        loop {
            tokio::select! {
                biased;
                result = poll_fn(|cx| conversation.poll(cx)) => {
                    if let Err(error) = result {
                        tracing::debug!(%peer, error = chain(&*error), "connection broke");
                    }
                    break Closed::Done;
                }
                () = &mut draining, if !is_draining => is_draining = true,
                () = &mut aborting, if is_draining => break Closed::Aborted,
            }
            // The drain has begun: a resting connection closes, another one after its response.
            conversation.come_to_an_end();
        }
    };
    if let Some(socket) = conversation.into_socket() {
        close(socket.into_stream()).await;
    }
    closed
}

/// An error and its causes in one line. Their `Display` only: it is made to be shown.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// Ends the connection with a FIN. Closing a socket with unread bytes would send a reset instead, which destroys what
/// is on its way to the client, so what it still sends is read and thrown away for a while.
async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let lingering = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut waste = vec![0; LINGER_READ_BYTES];
        let mut bytes = 0;
        while bytes < LINGER_BYTES {
            match stream.read(&mut waste).await {
                Ok(0) | Err(_) => return,
                Ok(n) => bytes += n,
            }
        }
    };
    // Whoever does not close in time is cut off.
    let _ = timeout(LINGER, lingering).await;
}
