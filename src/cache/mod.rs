//! What to serve, and from where. The only module that knows both storage and upstream.

mod outcome;
pub use outcome::{BypassReason, Outcome, WhyStale};

mod freshness;
pub use freshness::{Lifetime, OnRefusal, TagPolicy, TagRule, TagTerms};

mod tags;
pub use tags::TaggedManifest;

mod absent;
mod manifests;
mod verify;

mod shelf;
mod tag_record;
pub use shelf::Manifest;

mod list_store;
mod listings;
pub use listings::Listed;

mod behind;
mod blobs;
mod fill;
mod pending;

mod reader;
pub use reader::{Blob, BlobReader, ReadError, Unfinished};

mod through;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oci::{Digest, ManifestError, Referrers, Tag, TagList};
use crate::storage::Local;
use crate::upstream::{self, Repository};

use behind::Behind;
use blobs::Blobs;
use list_store::ListStore;
use listings::Listings;
use manifests::Manifests;
use shelf::Shelf;
use tags::Tags;

/// Why there is nothing to serve.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Upstream did not give it.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// Upstream gave bytes that are not what was asked for.
    #[error("upstream sent bytes that hash to {found}")]
    WrongDigest {
        /// What they hash to.
        found: Digest,
    },
    /// Upstream gave something that cannot be served as a manifest.
    #[error("upstream sent a manifest that cannot be served: {0}")]
    Manifest(#[from] ManifestError),
    /// As many blobs are on their way in as may be.
    #[error("as many blobs are on their way in as may be")]
    Full {
        /// When to come back.
        retry_after: Duration,
    },
    /// A bug here.
    #[error("something went wrong in the mirror")]
    Broken,
}

impl Error {
    /// Whether asking again, later or elsewhere, may help, so that a stale copy may stand in meanwhile.
    const fn is_trouble(&self) -> bool {
        match self {
            Self::Upstream(error) => error.is_trouble(),
            Self::WrongDigest { .. } | Self::Manifest(_) | Self::Full { .. } | Self::Broken => true,
        }
    }
}

/// The cache. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cache {
    blobs: Blobs,
    manifests: Manifests,
    listings: Listings,
    tags: Tags,
    behind: Behind,
}

impl Cache {
    /// A cache over `storage`, with tags as `tags` says.
    pub fn new(storage: Local, tags: TagPolicy, clock: Clock, metrics: Metrics) -> Self {
        let behind = Behind::default();
        let shelf = Shelf::new(storage.clone(), behind.clone(), metrics.clone());
        let list_store = ListStore::new(storage.clone(), behind.clone(), metrics.clone());
        let listings = Listings::new(list_store, &tags, clock.clone());
        let manifests = Manifests::new(shelf.clone(), clock.clone(), metrics.clone());
        Self {
            listings,
            blobs: Blobs::new(storage, shelf.clone(), behind.clone(), metrics),
            tags: Tags::new(manifests.clone(), shelf, tags, clock, behind.clone()),
            manifests,
            behind,
        }
    }

    /// Waits until what was fetched and verified is on disk, or could not be put there.
    ///
    /// Cancel-safe.
    pub async fn settled(&self) {
        self.behind.settled().await;
    }

    /// The blob `digest`, from storage or through `source`. Returns as soon as its size is known.
    ///
    /// Cancel-safe: a fill that was started goes on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn blob(&self, source: Repository, digest: Digest) -> Result<(Outcome, Blob), Error> {
        self.blobs.get(source, digest).await
    }

    /// Says that `file`, which the blob `digest` was read from, cannot be read: it is kept no longer. Does not wait.
    pub fn unreadable(&self, digest: Digest, file: Arc<File>) {
        self.blobs.unreadable(digest, file);
    }

    /// The size of the blob `digest` in bytes, without fetching it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn blob_size(
        &self,
        source: &Repository,
        digest: Digest,
    ) -> Result<(Outcome, u64), Error> {
        self.blobs.size(source, digest).await
    }

    /// The manifest `digest`, from memory, storage or through `source`.
    ///
    /// Cancel-safe: a fetch that was started goes on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn manifest(
        &self,
        source: Repository,
        digest: Digest,
    ) -> Result<(Outcome, Arc<Manifest>), Error> {
        self.manifests.get(source, digest).await
    }

    /// The manifest `tag` points to, fresh, or stale as far as the operator allows.
    ///
    /// Cancel-safe: a fetch that was started goes on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn tagged_manifest(
        &self,
        source: Repository,
        tag: Tag,
    ) -> Result<(Outcome, TaggedManifest), Error> {
        self.tags.get(source, tag).await
    }

    /// All tags of a repository, fresh, or stale while upstream is in trouble.
    ///
    /// Cancel-safe: a listing that was started goes on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn tags(&self, source: Repository) -> Result<(Outcome, Listed<TagList>), Error> {
        self.listings.tags(source).await
    }

    /// All that refers to the manifest `subject`, fresh, or stale while upstream is in trouble.
    ///
    /// Cancel-safe: a listing that was started goes on.
    ///
    /// # Errors
    /// See [`Error`]; never that it is not found.
    pub async fn referrers(
        &self,
        source: Repository,
        subject: Digest,
    ) -> Result<(Outcome, Listed<Referrers>), Error> {
        self.listings.referrers(source, subject).await
    }
}
