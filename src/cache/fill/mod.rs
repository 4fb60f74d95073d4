//! One upstream blob on its way in, for everybody who wants it.
//!
//! A fill is keyed by digest and belongs to no request: whoever asks joins it and brings a source of their own, an
//! upstream repository that may have the blob. The bytes go into one ingest file, and every reader reads that file at
//! its own pace, so the slowest client slows nobody and memory does not grow with the blob or its readers.
//!
//! What is there is a set of ranges, not a length: several connections may work on several places at once, resume
//! where another stopped, or jump to where a reader waits ([`plan`]). One connection is enough until it is shown that
//! more of them help ([`growth`]). Hashing follows the front ([`sink`]). A reader of the whole blob is kept
//! [`WITHHELD_BYTES`] away from the end until the digest is known to be right: no client ever completes a body that is
//! wrong.
//!
//! A fill ends in exactly one [`End`]; a reader that finds neither the bytes nor an end waits, and can never take
//! "nobody writes any more" for the end of the body.

mod extents;
mod plan;

mod gather;
mod giver;
pub(super) use giver::Stream;

mod growth;
mod places;
use places::Places;

mod progress;
use progress::End;
pub(super) use progress::{Fill, Opened, Presence, Share, Standing, WITHHELD_BYTES};

mod run;
mod sink;
mod sources;

mod task;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::behind::Behind;
use super::evict::Evictor;
use super::links::Links;
use super::tier::Tier;
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::single_flight::Role;
use crate::storage::{self, Local};
use crate::upstream::{self, Repository};

/// Why a fill gave no blob.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum FillError {
    /// The source this caller brought failed, and so did all others.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// All bytes came, and they are not the blob.
    #[error("upstream sent bytes that hash to {found}")]
    WrongDigest {
        /// What they hash to.
        found: Digest,
    },
    /// The bytes so far were wrong, and another source is asked for all of them.
    #[error("the fill began anew")]
    BegunAnew,
    /// The bytes could not be kept.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// As many blobs are on their way in as may be.
    #[error("as many blobs are on their way in as may be")]
    Full {
        /// When to come back.
        retry_after: Duration,
    },
    /// A bug here.
    #[error("the fill ended without a result")]
    Broken,
}

/// The blobs on their way in. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Fills {
    active: Arc<Mutex<HashMap<Digest, Arc<Fill>>>>,
    places: Places,
    storage: Local,
    links: Links,
    evictor: Evictor,
    tier: Tier,
    behind: Behind,
    metrics: Metrics,
}

impl Fills {
    /// None under way.
    pub(super) fn new(
        storage: Local,
        links: Links,
        evictor: Evictor,
        tier: Tier,
        behind: Behind,
        metrics: Metrics,
    ) -> Self {
        Self {
            active: Arc::default(),
            places: Places::new(),
            storage,
            links,
            evictor,
            tier,
            behind,
            metrics,
        }
    }

    /// Joins the fill of `digest` with `source`, or starts it. `hint` is how large the blob is said to be. A fill that
    /// waits for a place does so for as long as somebody is present.
    pub(super) fn join(
        &self,
        digest: Digest,
        source: &Repository,
        hint: Option<u64>,
    ) -> (Role, Arc<Fill>, Presence) {
        let mut active = self.active();
        if let Some(fill) = active.get(&digest)
            && fill.sources.offer(source)
        {
            return (Role::Follower, Arc::clone(fill), fill.presence());
        }
        let fill = Arc::new(Fill::new(digest, source, hint));
        let presence = fill.presence();
        active.insert(digest, Arc::clone(&fill));
        let entry = Entry {
            fills: self.clone(),
            fill: Arc::clone(&fill),
        };
        #[expect(clippy::disallowed_methods, reason = "no request owns a fill")]
        tokio::spawn(async move {
            let (tier, _inflight) = (entry.fills.tier.clone(), entry.fills.metrics.fill());
            let held = task::run(&entry.fill, &entry.fills).await;
            // Also when the task panics. Whoever comes from now on finds what is stored.
            drop(entry);
            if let Some(held) = held {
                tier.hold(held);
            }
        });
        (Role::Leader, fill, presence)
    }

    /// The fill of `digest`, where one is under way.
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Fill>> {
        self.active().get(digest).cloned()
    }

    /// Takes `fill` out of the map if nobody is present; says whether that is so. Whoever comes then starts another.
    fn give_up(&self, fill: &Arc<Fill>) -> bool {
        // Nobody joins while this is held.
        let mut active = self.active();
        let nobody = fill.state.receiver_count() == 0;
        if nobody
            && active
                .get(&fill.digest)
                .is_some_and(|found| Arc::ptr_eq(found, fill))
        {
            active.remove(&fill.digest);
        }
        nobody
    }

    fn active(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Fill>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the fill out of the map when its task is over, however it ended, and makes sure that it has an end.
struct Entry {
    fills: Fills,
    fill: Arc<Fill>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.fill.end(End::Failed(FillError::Broken));
        let mut active = self.fills.active();
        if active
            .get(&self.fill.digest)
            .is_some_and(|fill| Arc::ptr_eq(fill, &self.fill))
        {
            active.remove(&self.fill.digest);
        }
    }
}
