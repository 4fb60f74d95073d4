//! The shared tier as the cache sees it: the first to be asked for what is not here, and given, behind, what upstream
//! sent.
//!
//! Nobody is told of its trouble but the log, the metrics and `Cache-Status`: what it cannot say counts as not there.
//! What is to be uploaded is noted in the directory ([`queue`]), so that a restart goes on with it; [`uploader`] does
//! the work. Without a shared tier every question here is answered at once, and nothing is noted.

mod patience;

mod queue;
pub(super) use queue::Held;
use queue::Queue;

mod uploader;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::evict::Evictor;
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::single_flight::SingleFlight;
use crate::storage::shared::{Shared, SharedBlob, SharedStream};
use crate::storage::{Audience, Local, Parcel, RecordKey, RecordName};
use crate::upstream::MANIFEST_BYTES_MAX;

/// How long a fill that found no room waits for uploads to end. As for a place among the fills.
pub(super) const ROOM_PATIENCE: Duration = Duration::from_secs(10);

/// How many bytes of manifests that are to be uploaded stay in memory: some thousand. The others are read from disk,
/// where they are as long as there is room.
const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// For how long a blob is not asked for that is wrong there and could not be removed, and how many of those are remembered.
const DISTRUSTED_FOR: Duration = Duration::from_mins(10);
const DISTRUSTED_MAX: u64 = 1024;

/// The shared tier, where there is one. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Tier(Option<Arc<Inner>>);

struct Inner {
    shared: Shared,
    metrics: Metrics,
    queue: Arc<Queue>,
    /// Manifests that are to be uploaded, also where the disk has no room for them.
    on_their_way: Documents,
    /// Small questions under way: a thousand nodes that ask for one tag ask the store once.
    records: SingleFlight<RecordName, Option<Bytes>>,
    documents: SingleFlight<Digest, Option<Bytes>>,
    /// Blobs that are wrong there and that could not be removed.
    distrusted: moka::sync::Cache<Digest, ()>,
}

/// Manifests in memory by their digests.
type Documents = moka::sync::Cache<Digest, Bytes>;

/// What the shared tier says of a blob.
#[derive(Debug)]
pub(super) enum Found {
    /// It does not have it, or there is no shared tier.
    Nothing,
    /// It has it, and begins to send it.
    Blob(SharedBlob, SharedStream),
    /// It is in trouble.
    Trouble,
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.0.as_ref().map(|inner| &inner.shared);
        f.debug_tuple("Tier").field(&shared).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Tier {
    /// The tier over `shared`. Must be called inside a tokio runtime, where it uploads from now on what is noted in
    /// `storage`.
    pub(super) fn start(
        shared: Option<Shared>,
        storage: &Local,
        evictor: Evictor,
        metrics: Metrics,
    ) -> Self {
        let Some(shared) = shared else {
            return Self(None);
        };
        let queue = Arc::new(Queue::new(storage.clone(), evictor, metrics.clone()));
        let on_their_way = Documents::builder()
            .weigher(|_, content: &Bytes| u32::try_from(content.len()).unwrap_or(u32::MAX))
            .max_capacity(DOCUMENT_BYTES_MAX)
            .build();
        uploader::start(&queue, &shared, storage, &on_their_way, &metrics);
        Self(Some(Arc::new(Inner {
            shared,
            metrics,
            queue,
            on_their_way,
            records: SingleFlight::default(),
            documents: SingleFlight::default(),
            distrusted: moka::sync::Cache::builder()
                .max_capacity(DISTRUSTED_MAX)
                .time_to_live(DISTRUSTED_FOR)
                .build(),
        })))
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Looks for the blob `digest`, and begins to read it.
    ///
    /// Cancel-safe.
    pub(super) async fn find(&self, digest: &Digest) -> Found {
        let Some(inner) = &self.0 else {
            return Found::Nothing;
        };
        if inner.distrusted.contains_key(digest) {
            return Found::Nothing;
        }
        match inner.shared.find(digest).await {
            Ok(Some((blob, stream))) => Found::Blob(blob, stream),
            Ok(None) => Found::Nothing,
            Err(error) => {
                tracing::debug!(%digest, %error, "the shared tier cannot say whether it has a blob");
                Found::Trouble
            }
        }
    }

    /// The size of the blob `digest` in bytes and whose it is, where the shared tier has it.
    ///
    /// Cancel-safe.
    pub(super) async fn size(&self, digest: &Digest) -> Option<(u64, Audience)> {
        let inner = self.0.as_ref()?;
        inner.shared.size(digest).await.ok().flatten()
    }

    /// The record of `key` in the shared tier. What it says is for the caller to check.
    ///
    /// Cancel-safe: a question that was asked is answered for whoever asks next.
    pub(super) async fn record(&self, key: RecordKey<'_>) -> Option<Bytes> {
        let inner = self.0.as_ref()?;
        let name = RecordName::from(key);
        let shared = inner.shared.clone();
        let asked = name.clone();
        let task = || async move { shared.record(&asked).await.ok().flatten() };
        let (_, answer) = inner.records.run(name, task).await;
        answer.ok().flatten()
    }

    /// The bytes of the manifest `digest` in the shared tier, if they are that.
    ///
    /// Cancel-safe, as [`record`](Self::record) is.
    pub(super) async fn document(&self, digest: &Digest) -> Option<Bytes> {
        let inner = self.0.as_ref()?;
        let (shared, asked) = (inner.shared.clone(), *digest);
        let task = || async move {
            let found = shared.document(&asked, MANIFEST_BYTES_MAX).await;
            found.ok().flatten()
        };
        let (_, answer) = inner.documents.run(*digest, task).await;
        let content = answer.ok().flatten()?;
        let found = Digest::of(digest.algorithm(), &content);
        if found != *digest {
            tracing::warn!(%digest, %found, "the shared tier has wrong bytes");
            inner.metrics.digest_mismatch("shared");
            return None;
        }
        Some(content)
    }

    /// Has a record uploaded, as it is on disk by then. Blocks.
    pub(super) fn note_record(&self, key: RecordKey<'_>) {
        self.note(|| Parcel::Record(key.into()));
    }

    /// Has a record uploaded that was written, or taken out of the shared tier where it was removed. Blocks.
    pub(super) fn note_change(&self, key: RecordKey<'_>, is_there: bool) {
        if is_there {
            self.note_record(key);
        } else {
            self.note_removal(key);
        }
    }

    /// Has a record taken out of the shared tier. Blocks.
    pub(super) fn note_removal(&self, key: RecordKey<'_>) {
        self.note(|| Parcel::Removal(key.into()));
    }

    /// Has the bytes of a manifest uploaded. Blocks.
    pub(super) fn note_document(&self, digest: &Digest, content: &Bytes) {
        if let Some(inner) = &self.0 {
            inner.on_their_way.insert(*digest, content.clone());
        }
        self.note(|| Parcel::Document(*digest));
    }

    fn note(&self, parcel: impl FnOnce() -> Parcel) {
        if let Some(inner) = &self.0 {
            inner.queue.note(parcel());
        }
    }

    /// Has a blob uploaded that was just verified and put where it belongs. It is not evicted before that, as long as the
    /// shared tier takes anything. Blocks.
    pub(super) fn note_blob(&self, digest: &Digest) {
        self.note(|| Parcel::Blob(*digest));
    }

    /// Has a blob uploaded that was just verified and is not kept: now or never.
    pub(super) fn hold(&self, held: Held) {
        if let Some(inner) = &self.0 {
            inner.queue.hold(held);
        }
    }

    /// When an upload ends from now on and room may be free, where there is any under way that takes some.
    pub(super) fn next_release(&self) -> Option<impl Future<Output = ()> + use<'_>> {
        self.0.as_ref()?.queue.next_release()
    }

    /// Somebody has waited for that in vain: uploads give way for a while.
    pub(super) fn too_slow(&self) {
        if let Some(inner) = &self.0 {
            inner.queue.too_slow();
        }
    }

    /// The shared tier gave a reader bytes that are not `digest`. Does not wait for long.
    pub(super) async fn gave_wrong(&self, digest: &Digest, blob: &SharedBlob) {
        if let Some(inner) = &self.0 {
            inner.metrics.digest_mismatch("shared");
        }
        self.distrust(digest, blob).await;
    }

    /// What the shared tier has under `digest` is wrong: it goes, so that the right one can take its place. Does not
    /// wait for long.
    pub(super) async fn distrust(&self, digest: &Digest, blob: &SharedBlob) {
        if let Some(inner) = &self.0 {
            let removed = inner.shared.remove_blob(digest, blob.audience()).await;
            let removed = removed.is_ok();
            if !removed {
                inner.distrusted.insert(*digest, ());
            }
            tracing::warn!(%digest, bytes = blob.size(), removed, "the shared tier has wrong bytes");
        }
    }
}
