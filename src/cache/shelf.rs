//! Where manifests and tags are kept: in memory while they are hot, in storage for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hashbrown::DefaultHashBuilder;
use tokio::task::spawn_blocking;

use super::Memory;
use super::behind::Behind;
use super::evict::Evictor;
use super::manifest::Manifest;
use super::manifest_record::{ManifestKey, ManifestRecord, load, write_record};
use super::pending::Pending;
use super::provenance::Provenance;
use super::tag_record::{TagKey, TagRecord};
use super::tier::Tier;
use crate::metrics::Metrics;
use crate::oci::{Descriptor, Digest, described_blobs};
use crate::storage::{self, Local};
use crate::upstream::MANIFEST_BYTES_MAX;

/// How many bytes of manifests stay in memory: some thousand of the usual size.
const HOT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How many blobs are remembered to be no manifests: those that are asked for all the time.
const BLOBS_MAX: u64 = 4096;

/// How long that is believed: another process may learn that one is a manifest after all.
const BLOBS_TTL: Duration = Duration::from_mins(1);

/// How many sizes of blobs are remembered, at some fifty bytes each: what thousands of images are made of.
const SIZES_MAX: u64 = 50_000;

/// How many tags stay in memory, at some hundred bytes each.
const HOT_TAGS_MAX: u64 = 20_000;

/// A tag that upstream confirmed again within this time is not written again: after a restart it is merely checked that
/// much earlier.
const CONFIRMED_AGAIN: Duration = Duration::from_mins(1);

/// Manifests and tags at rest. What storage cannot give counts as missing; what it cannot take stays in memory.
/// Nobody waits for what is kept: it goes into memory at once, and to disk behind the answer.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    storage: Local,
    evictor: Evictor,
    tier: Tier,
    behind: Behind,
    metrics: Metrics,
    hot: Memory<ManifestKey, Arc<Manifest>>,
    tags: Memory<TagKey, TagRecord>,
    /// How large blobs are, by the manifests that went through.
    sizes: moka::sync::Cache<Digest, u64>,
    /// What was found to be no manifest of its repository a moment ago.
    blobs: Memory<ManifestKey, ()>,
    provenance: Provenance,
    /// See [`Shelf::changes`].
    changes: Arc<AtomicU64>,
    /// Tag records on their way to disk; `None` is on its way to being removed.
    pending: Pending<TagKey, Option<TagRecord>>,
}

impl Shelf {
    pub(super) fn new(
        storage: Local,
        provenance: Provenance,
        evictor: Evictor,
        tier: Tier,
        behind: Behind,
        metrics: Metrics,
    ) -> Self {
        let hot = moka::sync::Cache::builder()
            .max_capacity(HOT_BYTES_MAX)
            .weigher(|_: &ManifestKey, manifest: &Arc<Manifest>| manifest.weight())
            .build_with_hasher(DefaultHashBuilder::default());
        let pending = Pending::new(behind.clone());
        Self {
            storage,
            provenance,
            evictor,
            tier,
            behind,
            pending,
            changes: Arc::default(),
            metrics,
            hot,
            tags: moka::sync::Cache::builder()
                .max_capacity(HOT_TAGS_MAX)
                .build_with_hasher(DefaultHashBuilder::default()),
            sizes: moka::sync::Cache::new(SIZES_MAX),
            blobs: moka::sync::Cache::builder()
                .max_capacity(BLOBS_MAX)
                .time_to_live(BLOBS_TTL)
                .build_with_hasher(DefaultHashBuilder::default()),
        }
    }

    /// How often something that was known became something else, or nothing.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// What was known of a manifest or a tag is no longer so: called when that can be seen.
    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The manifest `digest`, if it is in memory.
    pub(super) fn hot(&self, key: &ManifestKey) -> Option<Arc<Manifest>> {
        let manifest = self.hot.get(key)?;
        // Or its file would go while everybody asks for it, and a restart would not find it.
        self.evictor
            .used_in_memory(&key.digest, &manifest.told_used);
        Some(manifest)
    }

    /// What is known of a tag, if it is in memory.
    pub(super) fn hot_tag(&self, key: &TagKey) -> Option<TagRecord> {
        self.tags
            .get(key)
            .or_else(|| self.pending.get(key).flatten())
    }

    /// A manifest, if it is here.
    pub(super) async fn manifest(&self, key: &ManifestKey) -> Option<Arc<Manifest>> {
        if let Some(manifest) = self.hot(key) {
            return Some(manifest);
        }
        let wanted = key.clone();
        let stored = self.storage(move |storage| load(storage, &wanted)).await;
        let manifest = match stored.flatten() {
            Some(manifest) => Arc::new(manifest),
            None => self.shared_manifest(key).await?,
        };
        self.evictor
            .used_in_memory(&key.digest, &manifest.told_used);
        self.learn(key, &manifest);
        self.hot.insert(key.clone(), Arc::clone(&manifest));
        Some(manifest)
    }

    /// A manifest that another replica has fetched. It is kept here from now on.
    async fn shared_manifest(&self, key: &ManifestKey) -> Option<Arc<Manifest>> {
        let record = self.tier.record(key.record()).await?;
        let record = ManifestRecord::read(&record)?;
        let bytes = self.tier.document(&key.digest).await?;
        let manifest = Arc::new(record.manifest(key.digest, bytes));
        self.provenance
            .keep(&key.namespace, &key.repository, &key.digest);
        let (key, kept, evictor) = (key.clone(), Arc::clone(&manifest), self.evictor.clone());
        self.storage_behind(move |storage| store(storage, &evictor, &key, &kept));
        Some(manifest)
    }

    /// How large the blob `digest` is, as far as a manifest has said. A hint.
    pub(super) fn size_of(&self, digest: &Digest) -> Option<u64> {
        self.sizes.get(digest)
    }

    fn learn(&self, key: &ManifestKey, manifest: &Manifest) {
        let (namespace, repository) = (&key.namespace, &key.repository);
        self.provenance
            .learn(namespace, repository, &key.digest, &manifest.bytes);
        for (digest, size) in described_blobs(&manifest.bytes) {
            self.sizes.insert(digest, size);
        }
    }

    /// Whether `key`, of `size` bytes, is known to be a manifest. Blocks.
    pub(super) fn is_manifest(&self, key: &ManifestKey, size: u64) -> Result<bool, storage::Error> {
        if size > MANIFEST_BYTES_MAX {
            return Ok(false);
        }
        if self.hot.contains_key(key) || self.storage.record(key.record())?.is_some() {
            return Ok(true);
        }
        self.blobs.insert(key.clone(), ());
        Ok(false)
    }

    /// Whether it is known, without a look at the disk, that `key` is no manifest.
    pub(super) fn is_surely_blob(&self, key: &ManifestKey, size: u64) -> bool {
        size > MANIFEST_BYTES_MAX || (self.blobs.contains_key(key) && !self.hot.contains_key(key))
    }

    /// Keeps a manifest whose digest was checked.
    pub(super) fn keep(&self, key: &ManifestKey, manifest: &Arc<Manifest>) {
        self.learn(key, manifest);
        self.provenance
            .keep(&key.namespace, &key.repository, &key.digest);
        self.hot.insert(key.clone(), Arc::clone(manifest));
        self.blobs.invalidate(key);
        self.changed();
        let (key, manifest) = (key.clone(), Arc::clone(manifest));
        let (evictor, tier) = (self.evictor.clone(), self.tier.clone());
        self.storage_behind(move |storage| {
            store(storage, &evictor, &key, &manifest)?;
            // The bytes first: a record without them is of no use.
            tier.note_document(&key.digest, &manifest.bytes);
            tier.note_record(key.record());
            Ok(())
        });
    }

    /// Forgets that a repository has a manifest.
    pub(super) fn forget(&self, key: &ManifestKey) {
        self.hot.invalidate(key);
        self.changed();
        let (key, tier) = (key.clone(), self.tier.clone());
        self.storage_behind(move |storage| {
            tier.note_removal(key.record());
            storage.remove_record(key.record())
        });
    }

    /// What is known of a tag.
    pub(super) async fn tag(&self, key: &TagKey) -> Option<TagRecord> {
        if let Some(record) = self.hot_tag(key) {
            return Some(record);
        }
        if self.pending.get(key).is_some() {
            // On its way to being removed; the disk does not know yet.
            return None;
        }
        let wanted = key.clone();
        let stored = self.storage(move |storage| storage.record(wanted.record()));
        let stored = stored.await.flatten();
        let known = stored.and_then(|content| TagRecord::parse(&content, key));
        let record = if let Some(record) = known {
            record
        } else {
            let content = self.tier.record(key.record()).await?;
            let record = TagRecord::parse(&content, key)?;
            self.adopt_tag(key, record.clone());
            record
        };
        if let Some(pending) = self.pending.get(key) {
            // Somebody knows better meanwhile.
            return pending;
        }
        self.tags.insert(key.clone(), record.clone());
        Some(record)
    }

    /// What another replica was told of a tag, if that is later than what is known here.
    pub(super) async fn newer_tag(&self, key: &TagKey, known: &TagRecord) -> Option<TagRecord> {
        let content = self.tier.record(key.record()).await?;
        let record = TagRecord::parse(&content, key)?;
        (record.confirmed > known.confirmed).then_some(record)
    }

    /// Keeps that upstream said at `confirmed` that a tag points to `manifest`. Gives the record that was there before.
    pub(super) fn keep_tag(
        &self,
        key: &TagKey,
        manifest: &Descriptor,
        confirmed: SystemTime,
    ) -> Option<TagRecord> {
        let before = self.hot_tag(key);
        let mut record = match &before {
            Some(before) => before.followed_by(manifest, confirmed),
            None => TagRecord::new(manifest.clone(), confirmed),
        };
        // A tag that is checked at every pull need not go to disk at every pull.
        let on_disk = before.as_ref().filter(|before| {
            let later = confirmed.duration_since(before.on_disk);
            before.manifest == record.manifest && later.is_ok_and(|later| later < CONFIRMED_AGAIN)
        });
        if let Some(before) = on_disk {
            record.on_disk = before.on_disk;
            self.tags.insert(key.clone(), record);
        } else {
            self.tags.insert(key.clone(), record.clone());
            self.put_tag(key, Some(record));
        }
        if before.as_ref().is_none_or(|it| it.manifest != *manifest) {
            self.changed();
        }
        before
    }

    /// Forgets a tag.
    pub(super) fn forget_tag(&self, key: &TagKey) {
        self.put_tag(key, None);
        self.tags.invalidate(key);
        self.changed();
    }

    /// Keeps what another replica was told of a tag. It is not uploaded again.
    fn adopt_tag(&self, key: &TagKey, record: TagRecord) {
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        let write = move |key: &TagKey, record: &Option<TagRecord>| {
            if let Some(record) = record {
                told(
                    storage.write_record(key.record(), &record.to_json(key)),
                    &metrics,
                );
            }
        };
        self.pending.set_first(key.clone(), Some(record), write);
    }

    fn put_tag(&self, key: &TagKey, record: Option<TagRecord>) {
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        let tier = self.tier.clone();
        self.pending.set(key.clone(), record, move |key, record| {
            let written = match record {
                Some(record) => storage.write_record(key.record(), &record.to_json(key)),
                None => storage.remove_record(key.record()),
            };
            told(written, &metrics);
            tier.note_change(key.record(), record.is_some());
        });
    }

    /// Waits for `work` on storage. A failure is counted and told, and is otherwise nothing.
    async fn storage<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Local) -> Result<T, storage::Error> + Send + 'static,
    ) -> Option<T> {
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        let done = spawn_blocking(move || told(work(&storage), &metrics)).await;
        done.unwrap_or_else(|panicked| {
            tracing::error!(%panicked, "storage panicked");
            None
        })
    }

    /// Does `work` on storage while the answer is on its way.
    fn storage_behind(
        &self,
        work: impl FnOnce(&Local) -> Result<(), storage::Error> + Send + 'static,
    ) {
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        self.behind.run(move || {
            told(work(&storage), &metrics);
        });
    }
}

/// What storage gave; a failure is told here and is otherwise nothing.
pub(super) fn told<T>(result: Result<T, storage::Error>, metrics: &Metrics) -> Option<T> {
    result
        .inspect_err(|error| {
            tracing::warn!(%error, cause = %error.cause, "storage is failing");
            metrics.storage_error(error.operation.as_str());
        })
        .ok()
}

/// The record first: bytes that are there without it would pass for a blob.
fn store(
    storage: &Local,
    evictor: &Evictor,
    key: &ManifestKey,
    manifest: &Manifest,
) -> Result<(), storage::Error> {
    write_record(storage, key, manifest)?;
    let Descriptor { digest, size, .. } = &manifest.descriptor;
    let (fits, room) = evictor.admit(*size, None);
    if !fits {
        return Ok(());
    }
    let ingest = storage.ingest(digest, Some(*size))?;
    ingest.write_at(&[Bytes::clone(&manifest.bytes)], 0)?;
    ingest.publish(manifest.audience)?;
    evictor.stored(digest, room);
    Ok(())
}

#[cfg(test)]
mod tests;
