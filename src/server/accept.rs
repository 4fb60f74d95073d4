//! The next connection, and patience when there is none to be had.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::metrics::Metrics;

/// The first pause after accepting failed for want of something the whole system is short of.
const BACK_OFF_MIN: Duration = Duration::from_millis(5);

/// The longest such pause.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// The next connection, once there is room for it, and the permit that says so.
///
/// Cancel-safe: a connection is either given or still in the backlog.
pub(super) async fn next_connection(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    metrics: &Metrics,
) -> (Option<OwnedSemaphorePermit>, TcpStream, SocketAddr) {
    if slots.available_permits() == 0 {
        metrics.accept_error("limit");
    }
    // The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    let (stream, peer) = accepted(|| listener.accept(), metrics).await;
    (slot, stream, peer)
}

/// What `accept` gives once it gives something. Troubles of one connection are passed over; when the system is short of
/// something, accepting again at once would only burn a core, so it pauses.
async fn accepted<T, F>(accept: impl Fn() -> F, metrics: &Metrics) -> T
where
    F: Future<Output = io::Result<T>>,
{
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
    /// That one connection: accept(2) gives what happened to it on the network, and takes it from the backlog.
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
            // accept(2), "Error handling": to be treated like EAGAIN. Not so EPERM and EOPNOTSUPP, which can be said for
            // ever: by a sandbox, or of a socket that is none.
            Some(
                Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NOPROTOOPT
                | Errno::NONET
                | Errno::TIMEDOUT,
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
    use std::future::ready;

    use tokio::time::Instant;

    use super::*;

    /// How long accepting takes when it fails this way that many times first.
    async fn time_lost(errno: Errno, times: u32) -> Duration {
        let left = Cell::new(times);
        let start = Instant::now();
        let accept = || match left.get() {
            0 => ready(Ok(())),
            n => {
                left.set(n - 1);
                ready(Err(errno.into()))
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
        assert_eq!(time_lost(Errno::PERM, 1).await, BACK_OFF_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_went_again_costs_nothing() {
        assert_eq!(time_lost(Errno::CONNABORTED, 100).await, Duration::ZERO);
        assert_eq!(time_lost(Errno::PROTO, 100).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_counted_by_reason() {
        let metrics = Metrics::new();
        let left = Cell::new(3);
        let accept = || match left.replace(left.get() - 1) {
            0 => ready(Ok(())),
            _ => ready(Err(Errno::MFILE.into())),
        };
        accepted(accept, &metrics).await;
        let expected = r#"entrepot_accept_errors_total{reason="descriptors"} 3"#;
        assert!(metrics.render().contains(expected));
    }
}
