//! Time-outs without waiting for them.

use std::time::Duration;

/// Lets `seconds` of tokio's time pass at once, so that every time-out of that length strikes.
///
/// Called when all is quiet: whoever is to be timed out has come to the gate of the test. Time runs as usual before
/// and after, because a paused clock would jump whenever all tasks wait for sockets.
pub async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}
