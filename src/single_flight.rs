//! One running task per key. The task outlives its callers: the first caller, too, only waits for it, so a caller
//! that leaves cancels nothing.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use tokio::sync::watch;

/// The task panicked, so there is no value. The next caller starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task that others waited for panicked")]
pub struct Panicked;

type Landing<V> = watch::Receiver<Option<Result<V, Panicked>>>;

type Flights<K, V> = Arc<Mutex<HashMap<K, Landing<V>>>>;

/// Tasks under way, by key.
pub struct SingleFlight<K, V> {
    flights: Flights<K, V>,
}

impl<K, V> Clone for SingleFlight<K, V> {
    fn clone(&self) -> Self {
        Self {
            flights: Arc::clone(&self.flights),
        }
    }
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self {
            flights: Flights::default(),
        }
    }
}

impl<K, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").finish_non_exhaustive()
    }
}

/// Whether a caller started the task it waits for, or found it under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// This caller started it.
    Leader,
    /// It was under way.
    Follower,
}

/// A task under way, or ended. Dropping it leaves the task running.
pub struct Flight<V> {
    role: Role,
    landing: Landing<V>,
}

impl<V> Clone for Flight<V> {
    fn clone(&self) -> Self {
        Self {
            role: self.role,
            landing: self.landing.clone(),
        }
    }
}

impl<V> fmt::Debug for Flight<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").finish_non_exhaustive()
    }
}

impl<V: Clone> Flight<V> {
    /// Whether whoever holds this started the task.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Waits for the value.
    ///
    /// Cancel-safe: dropping the returned future leaves the task running for whoever else waits, or for the cache.
    ///
    /// # Errors
    /// [`Panicked`] when the task panicked.
    pub async fn landed(mut self) -> Result<V, Panicked> {
        match self.landing.wait_for(Option::is_some).await {
            Ok(value) => value.clone().unwrap_or(Err(Panicked)),
            // The sender went without a value: the runtime is shutting down.
            Err(_) => Err(Panicked),
        }
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Waits for the task of `key`, starting `make()` when none is under way.
    ///
    /// Cancel-safe: dropping the returned future leaves the task running for whoever else waits, or for the cache.
    ///
    /// # Errors
    /// [`Panicked`] when the task panicked.
    pub async fn run<F>(&self, key: K, make: impl FnOnce() -> F) -> (Role, Result<V, Panicked>)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let flight = self.start(key, make);
        (flight.role(), flight.landed().await)
    }

    /// The task of `key`, where one is under way.
    pub fn find(&self, key: &K) -> Option<Flight<V>> {
        let flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let landing = flights.get(key)?.clone();
        let role = Role::Follower;
        Some(Flight { role, landing })
    }

    /// The task of `key`, starting `make()` when none is under way. It runs whether or not anybody waits for it.
    pub fn start<F>(&self, key: K, make: impl FnOnce() -> F) -> Flight<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(landing) = flights.get(&key).cloned() {
            let role = Role::Follower;
            return Flight { role, landing };
        }
        // Before the key is taken, so that it is free again should this panic.
        let task = make();
        let (sender, landing) = watch::channel(None);
        flights.insert(key.clone(), landing.clone());
        let flights = Arc::clone(&self.flights);
        #[expect(
            clippy::disallowed_methods,
            reason = "the task must outlive its callers"
        )]
        tokio::spawn(async move {
            let value = AssertUnwindSafe(task)
                .catch_unwind()
                .await
                .map_err(|_| Panicked);
            // Out of the map before the value is out, so that whoever sees the value and asks again starts anew.
            flights
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key);
            sender.send_replace(Some(value));
        });
        let role = Role::Leader;
        Flight { role, landing }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn callers_that_leave_do_not_stop_the_task() {
        let flights = SingleFlight::<&str, u32>::default();
        let starts = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Notify::new());
        let make = || {
            let (starts, gate) = (Arc::clone(&starts), Arc::clone(&gate));
            async move {
                starts.fetch_add(1, Ordering::Relaxed);
                gate.notified().await;
                7
            }
        };
        for _ in 0..299 {
            // Polled once, then dropped.
            assert!(flights.run("key", make).now_or_never().is_none());
        }
        let last = flights.run("key", make);
        gate.notify_one();
        assert_eq!(last.await, (Role::Follower, Ok(7)));
        assert_eq!(starts.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_task_runs_without_anybody_waiting() {
        let flights = SingleFlight::<&str, u32>::default();
        assert!(flights.find(&"key").is_none());
        let gate = Arc::new(Notify::new());
        let held = Arc::clone(&gate);
        let flight = flights.start("key", || async move {
            held.notified().await;
            7
        });
        assert_eq!(flight.role(), Role::Leader);
        let found = flights.find(&"key").expect("it is under way");
        assert_eq!(found.role(), Role::Follower);
        gate.notify_one();
        assert_eq!(found.landed().await, Ok(7));
        assert!(flights.find(&"key").is_none());
        // Whoever held on to it still learns what came of it.
        assert_eq!(flight.landed().await, Ok(7));
    }

    #[tokio::test]
    async fn an_ended_task_is_not_joined() {
        let flights = SingleFlight::<&str, u32>::default();
        assert_eq!(
            flights.run("key", || async { 1 }).await,
            (Role::Leader, Ok(1))
        );
        assert_eq!(
            flights.run("key", || async { 2 }).await,
            (Role::Leader, Ok(2))
        );
    }

    #[tokio::test]
    async fn a_panic_reaches_every_waiter_and_leaves_nothing_behind() {
        let flights = SingleFlight::<&str, u32>::default();
        let make = || async { panic!("on purpose") };
        let (first, second) = tokio::join!(flights.run("key", make), flights.run("key", make));
        assert_eq!((first.1, second.1), (Err(Panicked), Err(Panicked)));
        assert_eq!(flights.run("key", || async { 3 }).await.1, Ok(3));
    }
}
