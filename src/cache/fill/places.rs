//! How many blobs may be on their way in at once, and who is next.
//!
//! A blob takes its place when an upstream has begun to answer, not before: those that wait for an upstream that is
//! slow keep nobody from another one. What an upstream has under way is bounded there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::FillError;

/// Most blobs on their way in. Each is a file that grows and up to four connections with some MiB of buffers; eight
/// upstreams at their own bound, of 32 connections each, come to this.
const FILLS_MAX: usize = 256;

/// Most of them that are large. The other places are for small ones alone, which are through in a moment: they never
/// wait for large ones to end.
const LARGE_FILLS_MAX: usize = 192;

/// Smallest blob that counts as large, in bytes: what takes about as long as anybody waits here, at 50 Mbit/s. One that
/// does not say how large it is counts, too.
const LARGE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Longest wait in line. Clients wait 15 s (Docker) to 30 s (containerd) for the head of an answer.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// When somebody who waited in vain is to come back. About what a layer takes.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The places for blobs on their way in. Cheap to clone: a handle.
#[derive(Debug, Clone)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// Leave to bring one blob in, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _one: OwnedSemaphorePermit,
    _large: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// All of them free.
    pub(super) fn new() -> Self {
        Self::bounded(FILLS_MAX, LARGE_FILLS_MAX)
    }

    fn bounded(all: usize, large: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            large: Arc::new(Semaphore::new(large)),
        }
    }

    /// The next place that is free for a blob of `size` bytes, in the order in which they came.
    ///
    /// Cancel-safe: who goes away leaves the line.
    ///
    /// # Errors
    /// `Full` when none is free for 10 s.
    pub(super) async fn wait(&self, size: Option<u64>) -> Result<Place, FillError> {
        let is_large = size.is_none_or(|size| size >= LARGE_BYTES_MIN);
        let place = timeout(WAIT_MAX, async {
            let large = if is_large {
                Some(Arc::clone(&self.large).acquire_owned().await.ok()?)
            } else {
                None
            };
            let one = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Place {
                _one: one,
                _large: large,
            })
        });
        // Nobody closes the semaphores.
        place.await.ok().flatten().ok_or_else(full)
    }
}

/// As many blobs are on their way in as may be.
pub(super) fn full() -> FillError {
    FillError::Full {
        retry_after: RETRY_AFTER,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const SMALL: Option<u64> = Some(LARGE_BYTES_MIN - 1);
    const LARGE: Option<u64> = Some(LARGE_BYTES_MIN);

    #[tokio::test(start_paused = true)]
    async fn whoever_came_first_is_next_and_who_leaves_keeps_nobody_waiting() {
        let places = Places::bounded(1, 1);
        let held = places.wait(SMALL).await.expect("a free one");
        let mut first = Box::pin(places.wait(SMALL));
        let mut second = Box::pin(places.wait(LARGE));
        let mut third = Box::pin(places.wait(SMALL));
        for waiting in [&mut first, &mut second, &mut third] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(first);
        drop(held);
        assert!(
            third.as_mut().now_or_never().is_none(),
            "it is not its turn"
        );
        drop(second.await.expect("the next in line"));
        third.await.expect("the last in line");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let places = Places::bounded(1, 1);
        let _held = places.wait(SMALL).await.expect("a free one");
        let full = places.wait(SMALL).await;
        assert!(
            matches!(full, Err(FillError::Full { retry_after }) if retry_after == RETRY_AFTER),
            "{full:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn small_ones_do_not_wait_for_large_ones() {
        let places = Places::bounded(2, 1);
        let _large = places.wait(LARGE).await.expect("a free one");
        for size in [LARGE, None] {
            assert!(places.wait(size).await.is_err(), "{size:?}");
        }
        let mut waiting = Box::pin(places.wait(LARGE));
        assert!(waiting.as_mut().now_or_never().is_none());
        places.wait(SMALL).await.expect("a place for small ones");
    }
}
