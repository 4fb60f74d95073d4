//! Accepting connections, and the end of it all.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::connection::{self, Closed};
use super::{Caller, Limits, Service};
use crate::metrics::Metrics;

/// The first pause after accepting failed for want of something the whole system is short of.
const BACK_OFF_MIN: Duration = Duration::from_millis(5);

/// The longest such pause.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// What the server is doing. Only ever goes down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
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
pub(super) struct Server<S> {
    pub(super) service: S,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) phase: watch::Receiver<Phase>,
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
    listeners: Vec<TcpListener>,
    limits: Limits,
    service: S,
    metrics: Metrics,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let (phase, seen) = watch::channel(Phase::Serving);
    let (lame_duck, drain) = (limits.lame_duck, limits.drain);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let server = Arc::new(Server {
        service,
        limits,
        metrics,
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
    listener: TcpListener,
    index: usize,
    server: &Arc<Server<S>>,
    slots: &Arc<Semaphore>,
) -> usize {
    let mut connections = JoinSet::new();
    let mut draining = pin!(reached(server.phase.clone(), Phase::Draining));
    loop {
        let next = next_connection(&listener, slots, &server.metrics);
        let (slot, stream, peer) = tokio::select! {
            biased;
            () = &mut draining => break,
            next = next => next,
        };
        let caller = Caller {
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            listener: index,
        };
        let open = (slot, server.metrics.connection());
        let served = connection::serve(stream, caller, Arc::clone(server));
        connections.spawn(async move {
            let closed = served.await;
            drop(open);
            closed
        });
        // Those that ended since the last accept.
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let closed = connections.join_all().await;
    closed
        .into_iter()
        .filter(|closed| *closed == Closed::Aborted)
        .count()
}

/// Ready when the server has come to `phase`, also when it went without a word.
pub(super) async fn reached(mut seen: watch::Receiver<Phase>, phase: Phase) {
    // An error means that the server's future was dropped, which ends every connection anyway.
    let _ = seen.wait_for(|now| *now >= phase).await;
}

/// The next connection, once there is room for it.
async fn next_connection(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    metrics: &Metrics,
) -> (Option<OwnedSemaphorePermit>, TcpStream, SocketAddr) {
    if slots.available_permits() == 0 {
        metrics.accept_error("limit");
    }
    // The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    let (stream, peer) = accepted(async || listener.accept().await, metrics).await;
    (slot, stream, peer)
}

/// What `accept` gives once it gives something. Troubles of one connection are passed over; when the system is short of
/// something, accepting again at once would only burn a core, so it pauses.
async fn accepted<T>(accept: impl AsyncFn() -> io::Result<T>, metrics: &Metrics) -> T {
    let mut pause = BACK_OFF_MIN;
    loop {
        let error = match accept().await {
            Ok(accepted) => return accepted,
            Err(error) => error,
        };
        let trouble = Trouble::of(&error);
        metrics.accept_error(trouble.as_str());
        if trouble == Trouble::Connection {
            tracing::debug!(%error, "a connection was gone before it was accepted");
            continue;
        }
        tracing::warn!(%error, ?pause, "cannot accept connections");
        sleep(pause).await;
        pause = (pause * 2).min(BACK_OFF_MAX);
    }
}

/// Why accepting failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// That one connection: accept(2) gives what happened to it on the network.
    Connection,
    /// No file descriptor is left, to us or to the system.
    Descriptors,
    /// No memory is left for sockets.
    Memory,
    /// Anything else; rather pause than spin.
    Other,
}

impl Trouble {
    fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            // accept(2), "Error handling": to be treated like EAGAIN; EPERM is a firewall's.
            Some(
                Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NOPROTOOPT
                | Errno::OPNOTSUPP
                | Errno::NONET
                | Errno::TIMEDOUT
                | Errno::PERM,
            ) => Self::Connection,
            Some(Errno::MFILE | Errno::NFILE) => Self::Descriptors,
            Some(Errno::NOBUFS | Errno::NOMEM) => Self::Memory,
            Some(_) | None => Self::Other,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    /// How long accepting takes when it fails this way that many times first.
    async fn time_lost(errno: Errno, times: u32) -> Duration {
        let left = Cell::new(times);
        let start = Instant::now();
        let accept = async || match left.get() {
            0 => Ok(()),
            n => {
                left.set(n - 1);
                Err(errno.into())
            }
        };
        accepted(accept, &Metrics::new()).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lack_of_descriptors_makes_it_pause_ever_longer() {
        let millis = Duration::from_millis;
        assert_eq!(time_lost(Errno::MFILE, 1).await, millis(5));
        assert_eq!(time_lost(Errno::NFILE, 4).await, millis(5 + 10 + 20 + 40));
        assert_eq!(
            time_lost(Errno::NOBUFS, 10).await,
            millis(5 + 10 + 20 + 40 + 80 + 160 + 320 + 640 + 1000 + 1000)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_foresaw_makes_it_pause_too() {
        assert_eq!(time_lost(Errno::INVAL, 1).await, BACK_OFF_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_went_again_costs_nothing() {
        assert_eq!(time_lost(Errno::CONNABORTED, 100).await, Duration::ZERO);
        assert_eq!(time_lost(Errno::PERM, 100).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_counted_by_reason() {
        let metrics = Metrics::new();
        let left = Cell::new(3);
        let accept = async || match left.replace(left.get() - 1) {
            0 => Ok(()),
            _ => Err(Errno::MFILE.into()),
        };
        accepted(accept, &metrics).await;
        let expected = r#"entrepot_accept_errors_total{reason="descriptors"} 3"#;
        assert!(metrics.render().contains(expected));
    }
}
