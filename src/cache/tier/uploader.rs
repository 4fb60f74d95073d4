//! Uploads what waits, behind everything else.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Documents;
use super::queue::{Held, Queue, Work};
use crate::cache::shelf::told;
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::storage::shared::{Error, Shared};
use crate::storage::{Local, Parcel, StoredBlob};
use crate::upstream::MANIFEST_BYTES_MAX;

/// Uploads at a time. Each holds one part of a blob in memory: 32 MiB in all.
const UPLOADS_MAX: usize = 4;

/// The pause after an upload that failed, doubled each time one does.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest of them.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// What uploads work with.
#[derive(Clone)]
struct Uploader {
    queue: Arc<Queue>,
    shared: Shared,
    storage: Local,
    on_their_way: Documents,
    metrics: Metrics,
}

/// Begins to upload what is in `queue`, until that is closed.
pub(super) fn start(
    queue: &Arc<Queue>,
    shared: &Shared,
    storage: &Local,
    on_their_way: &Documents,
    metrics: &Metrics,
) {
    let uploader = Uploader {
        queue: Arc::clone(queue),
        shared: shared.clone(),
        storage: storage.clone(),
        on_their_way: on_their_way.clone(),
        metrics: metrics.clone(),
    };
    for _ in 0..UPLOADS_MAX {
        let uploader = uploader.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "no request waits for uploads; they end with the cache"
        )]
        tokio::spawn(async move { uploader.run().await });
    }
}

impl Uploader {
    async fn run(&self) {
        let mut pause = PAUSE_MIN;
        while let Some(work) = self.queue.next().await {
            let result = match work {
                Work::Held(held) => self.held(held).await,
                Work::Noted(parcel) => self.noted(parcel).await,
            };
            let error = match result {
                Ok(is_taken) => {
                    if is_taken {
                        self.queue.worked();
                    }
                    pause = PAUSE_MIN;
                    continue;
                }
                Err(error) => error,
            };
            tracing::debug!(%error, "an upload to the shared tier failed");
            self.queue.failed(&error);
            let left_alone = self.shared.left_alone_for().unwrap_or_default();
            sleep(left_alone.max(pause.mul_f64(0.5 + fastrand::f64()))).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Uploads a blob whose file is open. Gives whether the store has taken it.
    async fn held(&self, held: Held) -> Result<bool, Error> {
        let put = self.shared.put_blob(&held.digest, &held.blob).await;
        let is_taken = put.is_ok();
        match put {
            Err(error) if error.is_trouble() => {
                self.queue.hold_on(held);
                return Err(error);
            }
            Err(error) => self.refused(&Parcel::Blob(held.digest), &error),
            Ok(()) => {}
        }
        self.queue.let_go(held);
        Ok(is_taken)
    }

    /// Uploads what a note says. Gives whether the store has taken it.
    async fn noted(&self, parcel: Parcel) -> Result<bool, Error> {
        let put = self.upload(&parcel).await;
        let is_taken = matches!(put, Ok(true));
        match put {
            Err(error) if error.is_trouble() => {
                self.queue.put_back(parcel);
                return Err(error);
            }
            Err(error) => self.refused(&parcel, &error),
            Ok(false) => self.metrics.shared_dropped("evicted"),
            Ok(true) => {}
        }
        let queue = Arc::clone(&self.queue);
        // A panic there is told by the runtime.
        let _ = spawn_blocking(move || queue.done(&parcel)).await;
        Ok(is_taken)
    }

    /// There is no use in trying again.
    fn refused(&self, parcel: &Parcel, error: &Error) {
        tracing::warn!(%parcel, %error, "not uploaded to the shared tier");
        self.metrics.shared_dropped(error.as_str());
    }

    /// Uploads what a note says. `false` when it is not here any more.
    async fn upload(&self, parcel: &Parcel) -> Result<bool, Error> {
        match parcel {
            Parcel::Blob(digest) => {
                let digest = *digest;
                let blob = self.read(move |storage| storage.blob(&digest)).await;
                let Some(blob) = blob.flatten() else {
                    return Ok(false);
                };
                self.shared.put_blob(&digest, &blob).await?;
            }
            Parcel::Document(digest) => {
                let Some(content) = self.document(*digest).await else {
                    return Ok(false);
                };
                self.shared.put_document(digest, content).await?;
                self.on_their_way.invalidate(digest);
            }
            Parcel::Record(name) => {
                let wanted = name.clone();
                let read = self.read(move |storage| storage.record_named(&wanted));
                let Some(content) = read.await.flatten() else {
                    return Ok(false);
                };
                self.shared.put_record(name, &content).await?;
            }
            Parcel::Removal(name) => self.shared.remove_record(name).await?,
        }
        Ok(true)
    }

    /// The bytes of the manifest `digest`, from memory or from disk.
    async fn document(&self, digest: Digest) -> Option<Bytes> {
        if let Some(content) = self.on_their_way.get(&digest) {
            return Some(content);
        }
        let blob = self.read(move |storage| storage.blob(&digest)).await;
        content(blob.flatten()?).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Local) -> Result<T, crate::storage::Error> + Send + 'static,
    ) -> Option<T> {
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        let read = spawn_blocking(move || told(read(&storage), &metrics));
        read.await.ok().flatten()
    }
}

/// The bytes of a manifest.
async fn content(blob: StoredBlob) -> Option<Bytes> {
    let length = usize::try_from(blob.size.min(MANIFEST_BYTES_MAX)).ok()?;
    let read = spawn_blocking(move || {
        let mut bytes = vec![0; length];
        blob.file.read_exact_at(&mut bytes, 0).ok()?;
        Some(Bytes::from(bytes))
    });
    read.await.ok().flatten()
}
