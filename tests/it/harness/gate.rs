//! A point at which somebody waits until the test lets them on, and which tells the test that they have come.

use tokio::sync::watch;

/// A gate. Clones are the same gate; once open it stays open.
#[derive(Debug, Clone)]
pub struct Gate {
    open: watch::Sender<bool>,
    arrivals: watch::Sender<usize>,
}

impl Gate {
    /// A gate that is closed.
    pub fn closed() -> Self {
        Self {
            open: watch::Sender::new(false),
            arrivals: watch::Sender::new(0),
        }
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Arrives, and waits until the gate is open.
    pub async fn pass(&self) {
        self.arrivals.send_modify(|arrivals| *arrivals += 1);
        // The sender is `self`, so the channel cannot close.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    /// Waits until `n` have arrived, counted from the beginning.
    pub async fn reached_by(&self, n: usize) {
        let _ = self
            .arrivals
            .subscribe()
            .wait_for(|count| *count >= n)
            .await;
    }

    /// Waits until somebody has arrived.
    pub async fn reached(&self) {
        self.reached_by(1).await;
    }
}
