//! How many blobs may be on their way from one upstream at once, and who is next.
//!
//! Only blobs wait: their bodies take minutes. Manifests, tokens and sizes are one short answer each, and a tag must
//! not be stale because layers are being pulled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Error;
use super::clients::Standing;
use crate::oci::Namespace;

/// Most blobs on their way from one upstream, unless the operator says otherwise: eight fills at their widest, or
/// thirty-two at their narrowest. Registries and object stores count connections per address, and a mirror is one
/// address for many machines.
pub(super) const CONNECTIONS_MAX: usize = 32;

/// Most blobs on their way from all the registries of which nothing is known. The rest of what these may send at once
/// (`transport`) is left to manifests and tokens.
const STRANGERS_CONNECTIONS_MAX: usize = 96;

/// Longest wait in line. Clients wait 15 s (Docker) to 30 s (containerd) for the head of an answer, and upstream
/// needs some of that.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Most callers in line. Whoever is further back would have to see each connection change hands every 0.3 s to be served
/// in time, and is better told at once.
const LINE_MAX: usize = 1024;

/// When somebody who waited in vain is to come back. About what a layer takes.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The connections of one upstream that carry blobs. Cheap to clone: a handle.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    free: Arc<Semaphore>,
    /// Places in line.
    line: Semaphore,
}

/// Leave to have one blob on its way, until it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    _permit: OwnedSemaphorePermit,
    /// What is in use is not forgotten.
    _of: Connections,
}

impl Connections {
    /// None of `connections_max` in use.
    pub(super) fn bounded(connections_max: usize) -> Self {
        Self(Arc::new(Inner {
            free: Arc::new(Semaphore::new(connections_max)),
            line: Semaphore::new(LINE_MAX),
        }))
    }

    fn given(&self, permit: OwnedSemaphorePermit) -> Connection {
        Connection {
            _permit: permit,
            _of: self.clone(),
        }
    }

    /// The next one that is free, in the order in which callers came.
    ///
    /// Cancel-safe: a caller that goes away leaves the line.
    ///
    /// # Errors
    /// `Busy` when none is free for 10 s, or too many are in line.
    pub(super) async fn wait(&self) -> Result<Connection, Error> {
        let Ok(_place) = self.0.line.try_acquire() else {
            return Err(busy());
        };
        let permit = timeout(WAIT_MAX, Arc::clone(&self.0.free).acquire_owned()).await;
        // Nobody closes the semaphore.
        match permit {
            Ok(Ok(permit)) => Ok(self.given(permit)),
            Err(_) | Ok(Err(_)) => Err(busy()),
        }
    }

    /// One that is free now and that nobody waits for.
    ///
    /// # Errors
    /// `Busy` when there is none.
    pub(super) fn at_once(&self) -> Result<Connection, Error> {
        match Arc::clone(&self.0.free).try_acquire_owned() {
            Ok(permit) => Ok(self.given(permit)),
            Err(_) => Err(busy()),
        }
    }
}

/// All that may be under way is.
pub(super) fn busy() -> Error {
    Error::Busy {
        retry_after: RETRY_AFTER,
    }
}

/// The connections of the upstreams that nobody configured.
#[derive(Debug)]
pub(super) struct PublicConnections {
    /// By registry, as long as anybody has to do with it: a family of the table has any number of them.
    known: Mutex<HashMap<Namespace, Weak<Inner>>>,
    /// Of all the others together.
    strangers: Connections,
}

impl PublicConnections {
    /// None in use.
    pub(super) fn new() -> Self {
        Self {
            known: Mutex::default(),
            strangers: Connections::bounded(STRANGERS_CONNECTIONS_MAX),
        }
    }

    /// Those of `namespace`, which is of this `standing`.
    pub(super) fn of(&self, standing: Standing, namespace: &Namespace) -> Connections {
        match standing {
            Standing::Stranger => return self.strangers.clone(),
            Standing::Known => {}
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(namespace).and_then(Weak::upgrade) {
            return Connections(found);
        }
        known.retain(|_, connections| connections.strong_count() > 0);
        let made = Connections::bounded(CONNECTIONS_MAX);
        known.insert(namespace.clone(), Arc::downgrade(&made.0));
        made
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_came_first_is_next_and_nobody_slips_in() {
        let connections = Connections::bounded(1);
        let held = connections.at_once().expect("a free one");
        let mut first = Box::pin(connections.wait());
        let mut second = Box::pin(connections.wait());
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        drop(held);
        assert!(connections.at_once().is_err());
        assert!(second.as_mut().now_or_never().is_none());
        let held = first.await.expect("the first in line");
        drop(held);
        second.await.expect("the second in line");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let connections = Connections::bounded(1);
        let _held = connections.at_once().expect("a free one");
        let busy = connections.wait().await;
        assert!(
            matches!(busy, Err(Error::Busy { retry_after }) if retry_after == RETRY_AFTER),
            "{busy:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_has_an_end() {
        let connections = Connections::bounded(1);
        let held = connections.wait().await.expect("a free one");
        let mut line: Vec<_> = (0..LINE_MAX)
            .map(|_| Box::pin(connections.wait()))
            .collect();
        for waiting in &mut line {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        let refused = connections.wait().now_or_never().expect("at once");
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        // Who leaves makes room.
        line.pop();
        assert!(connections.wait().now_or_never().is_none());
        drop(held);
        line.remove(0).await.expect("the first in line");
    }

    #[test]
    fn a_known_registry_has_its_own_for_as_long_as_they_are_in_use() {
        let public = PublicConnections::new();
        let of = |standing, name: &str| public.of(standing, &name.parse().expect("a namespace"));
        let held = of(Standing::Known, "ghcr.io")
            .at_once()
            .expect("a free one");
        assert_eq!(
            of(Standing::Known, "ghcr.io").0.free.available_permits(),
            31
        );
        assert_eq!(
            of(Standing::Known, "quay.io").0.free.available_permits(),
            32
        );
        drop(held);
        of(Standing::Known, "gcr.io");
        assert_eq!(public.known.lock().expect("no panic").len(), 1);
        let one = of(Standing::Stranger, "one.example");
        let _held = one.at_once().expect("a free one");
        let other = of(Standing::Stranger, "other.example");
        assert_eq!(
            other.0.free.available_permits(),
            STRANGERS_CONNECTIONS_MAX - 1
        );
    }
}
