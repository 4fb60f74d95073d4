//! Sockets and HTTP/1.1; knows nothing of OCI.
//!
//! [`serve`] accepts, bounds what a client may send and how long it may take, and hands every request to a
//! [`Service`] as a head without a body: nothing here takes uploads, so bytes after a head are never read as one, and
//! a request that announces a body is the last of its connection. `/livez`, `/readyz` and `/metrics` are answered here.

mod accept;
mod admin;
mod certificate;
mod connection;
mod conversation;
mod exchange;
mod handshake;
mod head;
mod host;
mod limits;
mod line;
mod listen;
mod outgoing;
mod reads;
mod repeats;
mod sending;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod trial;
mod validity;
mod wire;

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use self::accept::next_connection;
use self::connection::Closed;
use self::line::Line;
use self::reads::Reads;
use self::repeats::Repeats;
use crate::http::{Caller, Service, Share, Shares};
use crate::metrics::Metrics;

pub use self::limits::Limits;
pub use self::listen::{BindError, bind};
pub use self::tls::{CertificateFiles, ClientCertificate, Tls, TlsError, TlsFiles};

/// Where connections come from.
#[derive(Debug)]
pub struct Listener {
    /// The socket, as [`bind`] gives it.
    pub socket: TcpListener,
    /// What to encrypt them with; `None` takes them as they are.
    pub tls: Option<Arc<Tls>>,
}

/// What the server is doing. Only ever goes down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Serving.
    Serving,
    /// Serving still, but no longer ready: whoever balances the load should take us out.
    LameDuck,
    /// Accepting nothing; responses under way complete.
    Draining,
    /// The time for that is over.
    Aborting,
}

/// What all connections share.
struct Server<S> {
    service: S,
    limits: Limits,
    metrics: Metrics,
    reads: Reads,
    repeats: Repeats,
    /// Who has which connections, by the other end of each.
    shares: Shares<SocketAddr>,
    /// Leave to be told that they are too many.
    refusals: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
}

/// Whether a connection is one of those that its client may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is.
    Welcome,
    /// It is one too many: the first request is answered with that, whatever it is.
    TooMany,
}

/// What a connection has for as long as it is open, so that it can be counted.
#[derive(Debug)]
enum Part {
    /// Of what its client may have.
    OfClient { _share: Share<SocketAddr> },
    /// Of what there is for those that are too many.
    OfRefusals { _permit: OwnedSemaphorePermit },
}

impl<S> Server<S> {
    /// The line of a connection that sends the bytes of files itself if it `takes_files`.
    fn line(&self, takes_files: bool) -> Line {
        Line::new(takes_files, self.reads.clone(), self.metrics.clone())
    }

    /// Whether a connection from `peer` is served, or only told that it is one too many; `None` for not even that.
    fn let_in(&self, peer: SocketAddr) -> Option<(Standing, Part)> {
        if let Some(share) = self.shares.take(peer.ip(), peer) {
            return Some((Standing::Welcome, Part::OfClient { _share: share }));
        }
        self.metrics.accept_error("client");
        tracing::debug!(%peer, "the client has too many connections");
        let permit = Arc::clone(&self.refusals).try_acquire_owned().ok()?;
        Some((Standing::TooMany, Part::OfRefusals { _permit: permit }))
    }
}

/// How the connections ended after the shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every response under way was completed.
    Completely,
    /// Some were broken off when the time was over.
    Aborted {
        /// Connections that had to be closed.
        n: usize,
    },
}

/// Serves until `shutdown` is ready and the connections are drained: at once not ready, after [`Limits::lame_duck`] no
/// new connections, idle ones closed, and responses under way completed for at most [`Limits::drain`].
///
/// Dropping the future ends everything at once: how a second signal is obeyed.
pub async fn serve<S: Service>(
    listeners: Vec<Listener>,
    limits: Limits,
    service: S,
    metrics: Metrics,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let (phase, seen) = watch::channel(Phase::Serving);
    let (lame_duck, drain) = (limits.lame_duck, limits.drain);
    let slots = limits.connections.clamp(1, Semaphore::MAX_PERMITS);
    let slots = Arc::new(Semaphore::new(slots));
    let server = Arc::new(Server {
        service,
        shares: Shares::new(limits.connections_per_client),
        refusals: Arc::new(Semaphore::new(Limits::REFUSALS)),
        limits,
        metrics,
        reads: Reads::default(),
        repeats: Repeats::default(),
        phase: seen,
    });
    let accepting = listeners
        .into_iter()
        .enumerate()
        .map(|(index, listener)| accept_from(listener, index, &server, &slots));
    let ending = async {
        shutdown.await;
        tracing::info!(?lame_duck, "not ready any more");
        phase.send_replace(Phase::LameDuck);
        sleep(lame_duck).await;
        tracing::info!(?drain, "accepting no more");
        phase.send_replace(Phase::Draining);
        sleep(drain).await;
        phase.send_replace(Phase::Aborting);
        pending::<Infallible>().await
    };
    tokio::select! {
        aborted = join_all(accepting) => match aborted.into_iter().sum() {
            0 => Drained::Completely,
            n => Drained::Aborted { n },
        },
        never = ending => match never {},
    }
}

/// Accepts until the drain, then waits for the connections to end. Gives the number of those that were broken off.
async fn accept_from<S: Service>(
    Listener { socket, tls }: Listener,
    index: usize,
    server: &Arc<Server<S>>,
    slots: &Arc<Semaphore>,
) -> usize {
    let mut connections = JoinSet::new();
    let mut draining = pin!(reached(server.phase.clone(), Phase::Draining));
    loop {
        let next = next_connection(&socket, slots, &server.metrics);
        let (slot, stream, peer) = tokio::select! {
            biased;
            () = &mut draining => break,
            next = next => next,
        };
        let caller = Caller {
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            listener: index,
            is_encrypted: false,
            client: None,
        };
        let Some((standing, share)) = server.let_in(caller.peer) else {
            continue;
        };
        let open = (slot, share, server.metrics.connection());
        let task = connection::serve(stream, tls.clone(), caller, standing, Arc::clone(server));
        connections.spawn(async move {
            let closed = task.await;
            drop(open);
            closed
        });
        // Those that ended since the last accept.
        while let Some(joined) = connections.try_join_next() {
            ended(joined, &server.metrics);
        }
    }
    drop(socket);
    let mut aborted = 0;
    while let Some(joined) = connections.join_next().await {
        aborted += usize::from(ended(joined, &server.metrics) == Some(Closed::Aborted));
    }
    aborted
}

/// How a connection ended, unless its task panicked.
fn ended(joined: Result<Closed, JoinError>, metrics: &Metrics) -> Option<Closed> {
    joined
        .inspect_err(|error| {
            metrics.panic();
            tracing::error!(%error, "a connection panicked");
        })
        .ok()
}

/// Ready when the server has come to `phase`, also when it went without a word.
async fn reached(mut seen: watch::Receiver<Phase>, phase: Phase) {
    // An error means that the server's future was dropped, which ends every connection anyway.
    let _ = seen.wait_for(|now| *now >= phase).await;
}
