//! Work on storage that nobody waits for: the answer goes out first.

use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// Keeps count of the work under way, so that the end of the process can wait for it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Behind {
    under_way: watch::Sender<usize>,
}

/// Something that is under way for as long as this lives.
#[derive(Debug)]
pub(super) struct UnderWay(watch::Sender<usize>);

impl Behind {
    /// Runs `work`, which may block, without waiting for it.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        let under_way = self.under_way();
        // The handle is let go; the count is what is waited for.
        drop(spawn_blocking(move || {
            work();
            drop(under_way);
        }));
    }

    /// Something is under way until what is returned is dropped.
    pub(super) fn under_way(&self) -> UnderWay {
        self.under_way.send_modify(|n| *n += 1);
        UnderWay(self.under_way.clone())
    }

    /// Waits until nothing is under way.
    ///
    /// Cancel-safe.
    pub(super) async fn settled(&self) {
        // The sender lives as long as `self`, so there is no error to hear of.
        let _ = self.under_way.subscribe().wait_for(|n| *n == 0).await;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn settled_means_that_the_work_is_done() {
        let behind = Behind::default();
        behind.settled().await;
        let done = Arc::new(AtomicBool::new(false));
        let work = Arc::clone(&done);
        behind.run(move || work.store(true, Ordering::Release));
        behind.settled().await;
        assert!(done.load(Ordering::Acquire));
    }
}
