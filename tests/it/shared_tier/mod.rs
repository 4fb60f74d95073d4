//! Replicas with one bucket between them, and nothing else.

mod clouds;
mod faults;
mod larger;
mod reading;
mod rights;
mod tags;
mod trouble;
mod uploads;

use crate::harness::bucket::Bucket;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::world::REGISTRY;

/// A registry, a bucket, and how each replica is set up.
async fn world() -> (Upstream, Bucket, Setup) {
    let (upstream, bucket) = (Upstream::start().await, Bucket::start().await);
    let setup = Setup::new().upstream(REGISTRY, &upstream).shared(&bucket);
    (upstream, bucket, setup)
}

/// A replica with an empty disk.
async fn replica(setup: &Setup) -> Mirror {
    setup.clone().start().await
}
