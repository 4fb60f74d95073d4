//! What to serve, and from where. The only module that knows both storage and upstream.

mod outcome;
pub use outcome::{BypassReason, Outcome, WhyStale};

mod freshness;
pub use freshness::{Lifetime, OnRefusal, TagPolicy, TagRule, TagTerms};

mod tags;
pub use tags::TaggedManifest;

mod manifest;
mod manifest_record;
pub use manifest::Manifest;

mod absent;
mod manifests;
mod shelf;
mod tag_record;
mod verify;

mod list_store;
mod listings;
pub use listings::Listed;

mod behind;
mod blobs;
mod fill;
mod homes;
pub use homes::Home;
mod links;
mod pending;
mod provenance;

mod tier;

mod evict;
pub use evict::{Amount, Budget};

mod import;
pub use import::{ImportError, ImportRule, Imported, import};

mod inventory;
pub use inventory::{
    Amounts, Inventory, NamespaceUsage, PruneRule, Pruned, RepositoryUsage, Usage,
};

mod scrub;
pub use scrub::{ScrubPlan, Scrubbed, scrub};

mod reader;
pub use reader::{Blob, BlobReader, ReadError, Unfinished};

mod through;

#[doc(hidden)]
pub mod inner;

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oci::{Digest, ManifestError, Namespace, Referrers, RepositoryName, Tag, TagList};
use crate::storage::Local;
use crate::storage::shared::Shared;
use crate::upstream::{self, Repository};

use behind::Behind;
use blobs::Blobs;
use evict::Evictor;
use homes::Homes;
use links::Links;
use list_store::ListStore;
use listings::Listings;
use manifest_record::ManifestKey;
use manifests::Manifests;
use provenance::{Kind, Provenance};
use scrub::Scrubber;
use shelf::Shelf;
use tags::Tags;
use tier::Tier;

/// What every request looks into, by a hash that is quicker than the standard library's. Only what upstream has given, or
/// been asked for, is in it.
type Memory<K, V> = moka::sync::Cache<K, V, hashbrown::DefaultHashBuilder>;

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
    pub const fn is_trouble(&self) -> bool {
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
    links: Links,
    provenance: Provenance,
    homes: Homes,
    shelf: Shelf,
    clock: Clock,
    behind: Behind,
    _scrubber: Scrubber,
}

impl Cache {
    /// A cache over `storage` within `budget`, behind which is what is `shared`, with tags as `tags` says, that is read once
    /// more as `scrub` says. Must be called inside a tokio runtime.
    pub fn new(
        storage: Local,
        shared: Option<Shared>,
        tags: TagPolicy,
        budget: Budget,
        scrub: ScrubPlan,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let behind = Behind::default();
        let provenance = Provenance::new(storage.clone(), behind.clone(), metrics.clone());
        let homes = Homes::new(
            storage.clone(),
            behind.clone(),
            clock.clone(),
            metrics.clone(),
        );
        let evictor = Evictor::start(
            storage.clone(),
            budget,
            clock.clone(),
            metrics.clone(),
            behind.clone(),
        );
        let scrubber = Scrubber::start(
            storage.clone(),
            scrub,
            evictor.clone(),
            clock.clone(),
            metrics.clone(),
        );
        let tier = Tier::start(shared, &storage, evictor.clone(), metrics.clone());
        let shelf = Shelf::new(
            storage.clone(),
            provenance.clone(),
            evictor.clone(),
            tier.clone(),
            behind.clone(),
            metrics.clone(),
        );
        let links = Links::new(
            storage.clone(),
            tier.clone(),
            behind.clone(),
            clock.clone(),
            metrics.clone(),
        );
        let list_store = ListStore::new(
            storage.clone(),
            tier.clone(),
            behind.clone(),
            metrics.clone(),
        );
        let listings = Listings::new(list_store, links.clone(), &tags, clock.clone());
        let manifests =
            Manifests::new(shelf.clone(), links.clone(), clock.clone(), metrics.clone());
        let tags = Tags::new(
            manifests.clone(),
            shelf.clone(),
            tags,
            clock.clone(),
            behind.clone(),
        );
        Self {
            listings,
            blobs: Blobs::new(
                storage,
                shelf.clone(),
                links.clone(),
                evictor,
                tier,
                behind.clone(),
                metrics,
            ),
            tags,
            manifests,
            links,
            provenance,
            homes,
            shelf,
            clock,
            behind,
            _scrubber: scrubber,
        }
    }

    /// The same cache, with tags as `tags` says.
    #[must_use]
    pub fn with_tags(&self, tags: TagPolicy) -> Self {
        Self {
            listings: self.listings.with_tags(&tags),
            tags: self.tags.with_policy(tags),
            ..self.clone()
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
        let ask = |source: Repository| async move {
            let got = self.blobs.get(source.clone(), digest).await;
            got.inspect(|_| self.provenance.saw_blob(&source, &digest))
                .map_err(|error| self.told(&source, &digest, Kind::Blob, error))
        };
        self.by_right(source, ask).await
    }

    /// The blob `digest`, where it is open already and anybody's: without waiting for anything.
    pub fn blob_at_hand(&self, source: &Repository, digest: &Digest) -> Option<Blob> {
        self.blobs.get_at_hand(source, digest)
    }

    /// Whether the blob `digest`, which was at hand in `file`, is as it was: without waiting for anything.
    pub fn is_still(&self, digest: &Digest, file: &File) -> bool {
        self.blobs.is_still(digest, file)
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
        let ask = |source: Repository| async move {
            let got = self.blobs.size(&source, digest).await;
            got.map_err(|error| self.told(&source, &digest, Kind::Blob, error))
        };
        self.by_right(source.clone(), ask).await
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
        let ask = |source: Repository| async move {
            let got = self.manifests.get(source.clone(), digest).await;
            got.map_err(|error| self.told(&source, &digest, Kind::Manifest, error))
        };
        self.by_right(source, ask).await
    }

    /// The manifest `digest`, where it is in memory and anybody's: without waiting for anything.
    pub fn manifest_at_hand(&self, source: &Repository, digest: &Digest) -> Option<Arc<Manifest>> {
        self.manifests.get_at_hand(source, *digest)
    }

    /// The manifest `tag` points to, where it is fresh, in memory and anybody's, and for how long it stays fresh: without
    /// waiting for anything.
    pub fn tagged_manifest_at_hand(
        &self,
        source: &Repository,
        tag: &Tag,
    ) -> Option<(TaggedManifest, Duration)> {
        self.tags.get_at_hand(source, tag)
    }

    /// A number that is another one each time that a manifest or a tag may no longer be what it was. As long as it is the
    /// same, and the time has not come, what was at hand is at hand.
    pub fn changes(&self) -> u64 {
        self.shelf.changes()
    }

    /// The time by which it is judged what is fresh.
    pub fn now(&self) -> SystemTime {
        self.clock.now()
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
        let ask = |source: Repository| {
            let tag = tag.clone();
            async move {
                let got = self.tags.get(source.clone(), tag).await;
                got.map_err(|error| self.links.told(&source, error))
            }
        };
        self.by_right(source, ask).await
    }

    /// The registry in which the repository `name` was found that is asked for by that alone.
    ///
    /// Cancel-safe.
    pub async fn home(&self, name: &RepositoryName) -> Option<Home> {
        self.homes.find(name).await
    }

    /// Takes down that the repository that is asked for by `name` alone is in the registry `namespace`. What was found a
    /// moment ago stays.
    pub fn keep_home(&self, name: &RepositoryName, namespace: &Namespace) {
        self.homes.keep(name, namespace);
    }

    /// The registry in whose repository of one of these names `digest` was seen, and the name it was seen under: for a
    /// request that names no registry. Decides nothing about who may read it.
    ///
    /// Cancel-safe.
    pub async fn origin(
        &self,
        written: &RepositoryName,
        usual: &RepositoryName,
        digest: &Digest,
    ) -> Option<(Namespace, RepositoryName)> {
        if let Some(found) = self.origin_at_hand(written, usual, digest) {
            return Some(found);
        }
        for name in [written, usual] {
            for seen in &*self.provenance.seen(name).await {
                // Whatever is read is learned.
                let key = ManifestKey::of(seen.namespace.clone(), name.clone(), seen.manifest);
                if self.shelf.hot(&key).is_none() {
                    self.shelf.manifest(&key).await;
                }
                if let Some(namespace) = self.provenance.find(name, digest) {
                    return Some((namespace, name.clone()));
                }
            }
        }
        None
    }

    /// The same, as far as memory goes.
    pub fn origin_at_hand(
        &self,
        written: &RepositoryName,
        usual: &RepositoryName,
        digest: &Digest,
    ) -> Option<(Namespace, RepositoryName)> {
        [written, usual].into_iter().find_map(|name| {
            let namespace = self.provenance.find(name, digest)?;
            Some((namespace, name.clone()))
        })
    }

    /// Asks by the right of anybody first, and by the caller's token where that is not enough: a token that nobody wants
    /// to see is not shown, and what anybody may read is kept as everybody's.
    async fn by_right<T, F: Future<Output = Result<T, Error>>>(
        &self,
        source: Repository,
        ask: impl Fn(Repository) -> F,
    ) -> Result<T, Error> {
        let Some(own) = source.in_reserve() else {
            return ask(source).await;
        };
        if !self.links.want_token(&source) {
            // Boxed, because a request whose caller shows a token is the exception.
            match Box::pin(ask(source)).await {
                Err(Error::Upstream(upstream::Error::Denied(denial)))
                    if denial.challenge().is_some() => {}
                answered => return answered,
            }
        }
        Box::pin(ask(own)).await
    }

    /// What the caller is told of `error`.
    fn told(&self, source: &Repository, digest: &Digest, wanted: Kind, error: Error) -> Error {
        let error = self.provenance.told(source, digest, wanted, error);
        self.links.told(source, error)
    }

    /// All tags of a repository, fresh, or stale while upstream is in trouble.
    ///
    /// Cancel-safe: a listing that was started goes on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn tags(&self, source: Repository) -> Result<(Outcome, Listed<TagList>), Error> {
        let ask = |source: Repository| async move {
            let got = self.listings.tags(source.clone()).await;
            got.map_err(|error| self.links.told(&source, error))
        };
        self.by_right(source, ask).await
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
        let ask = |source: Repository| async move {
            let got = self.listings.referrers(source.clone(), subject).await;
            got.map_err(|error| self.links.told(&source, error))
        };
        self.by_right(source, ask).await
    }
}
