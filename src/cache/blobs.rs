//! Blobs: from storage, or by the fill that everybody shares.

use std::fs::File;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::Error;
use super::behind::Behind;
use super::fill::{Fill, FillError, Fills, Opened};
use super::outcome::{BypassReason, Outcome};
use super::reader::Blob;
use super::shelf::{ManifestKey, Shelf};
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::single_flight::Role;
use crate::storage::{Local, Operation, StoredBlob};
use crate::upstream::{self, Extent, Repository};

/// Blobs by digest, whichever repository they are asked through.
#[derive(Debug, Clone)]
pub(super) struct Blobs {
    storage: Local,
    shelf: Shelf,
    fills: Fills,
    behind: Behind,
    metrics: Metrics,
}

impl Blobs {
    pub(super) fn new(storage: Local, shelf: Shelf, behind: Behind, metrics: Metrics) -> Self {
        let fills = Fills::new(storage.clone(), behind.clone(), metrics.clone());
        Self {
            storage,
            shelf,
            fills,
            behind,
            metrics,
        }
    }

    /// The blob `digest`, from storage or through `source`. Answers as soon as the size is known.
    pub(super) async fn get(
        &self,
        source: Repository,
        digest: Digest,
    ) -> Result<(Outcome, Blob), Error> {
        // Fills first, then storage: a fill is in the one or in the other, and never in between.
        let fill = self.fills.find(&digest);
        if fill.is_none()
            && let Some(blob) = self.stored(&source, digest).await?
        {
            return Ok((Outcome::Hit, Blob::stored(blob)));
        }
        if let Some(fill) = fill
            && !may_join(&fill, &source).await?
        {
            return self.pass_through(source, digest).await;
        }
        let hint = self.shelf.size_of(&digest);
        let (role, fill, _present) = self.fills.join(digest, &source, hint);
        let outcome = joined(&fill, role);
        let _waiter = self.metrics.fill_waiter();
        match fill.opened(&source).await {
            Ok(opened) => Ok((outcome, Blob::filling(fill, opened, source))),
            Err(FillError::Storage(_)) => self.pass_through(source, digest).await,
            Err(FillError::Upstream(error)) => Err(error.into()),
            Err(FillError::WrongDigest { found }) => Err(Error::WrongDigest { found }),
            Err(FillError::Full { retry_after }) => Err(Error::Full { retry_after }),
            Err(FillError::BegunAnew | FillError::Broken) => Err(Error::Broken),
        }
    }

    /// The size of the blob `digest`, without fetching it.
    pub(super) async fn size(
        &self,
        source: &Repository,
        digest: Digest,
    ) -> Result<(Outcome, u64), Error> {
        let fill = self.fills.find(&digest);
        if let Some(fill) = &fill
            && (fill.asks(source.namespace()) || fill.is_verified())
            && let Some(Opened { size, .. }) = fill.opened_already()
        {
            return Ok((joined(fill, Role::Follower), size));
        }
        if fill.is_none()
            && let Some(blob) = self.stored(source, digest).await?
        {
            return Ok((Outcome::Hit, blob.size));
        }
        let size = source.head_blob(&digest).await?;
        Ok((
            Outcome::Miss {
                collapsed: false,
                stored: false,
            },
            size,
        ))
    }

    /// Removes the blob `digest`, whose `file` cannot be read, so that the next caller has it fetched anew.
    pub(super) fn unreadable(&self, digest: Digest, file: Arc<File>) {
        self.metrics.storage_error(Operation::Read.as_str());
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        self.behind.run(move || {
            let removed = storage.discard(&digest, &file);
            if let Err(error) = &removed {
                metrics.storage_error(error.operation.as_str());
            }
            tracing::warn!(%digest, removed = removed.is_ok(), "a stored blob cannot be read");
        });
    }

    /// What storage has under `digest`. Storage that cannot say has nothing.
    ///
    /// # Errors
    /// `NotFound` when it is a manifest: containerd, told that the blob is there, would keep it as one for ever.
    async fn stored(
        &self,
        source: &Repository,
        digest: Digest,
    ) -> Result<Option<StoredBlob>, Error> {
        let (storage, shelf) = (self.storage.clone(), self.shelf.clone());
        let key = ManifestKey::new(source, digest);
        let looked_up = spawn_blocking(move || {
            let blob = storage.blob(&digest)?;
            let size = blob.as_ref().map_or(0, |blob| blob.size);
            let is_manifest = size <= upstream::MANIFEST_BYTES_MAX && shelf.is_manifest(&key)?;
            Ok::<_, crate::storage::Error>((blob, is_manifest))
        });
        match looked_up.await {
            Ok(Ok((_, true))) => Err(upstream::Error::NotFound.into()),
            Ok(Ok((blob, false))) => Ok(blob),
            Ok(Err(error)) => {
                tracing::warn!(%digest, %error, cause = %error.cause, "storage is failing");
                self.metrics.storage_error(error.operation.as_str());
                Ok(None)
            }
            Err(_) => Err(Error::Broken),
        }
    }

    /// Storage is failing: this caller gets a connection of its own.
    async fn pass_through(
        &self,
        source: Repository,
        digest: Digest,
    ) -> Result<(Outcome, Blob), Error> {
        let stream = source.get_blob(&digest, Extent::Whole).await?;
        let size = stream.total().ok_or_else(|| {
            upstream::Error::Protocol("the size of the blob is not declared".to_owned())
        })?;
        let outcome = Outcome::Bypass(BypassReason::StorageFailed);
        Ok((outcome, Blob::upstream(digest, size, source, stream)))
    }
}

/// Whether the caller may take part in `fill`. Where another registry is asked, one's own is asked first whether it has
/// the blob and how large it is: nobody is told what a registry says that they did not ask.
async fn may_join(fill: &Fill, source: &Repository) -> Result<bool, Error> {
    if fill.asks(source.namespace()) || fill.is_verified() {
        return Ok(true);
    }
    let size = source.head_blob(&fill.digest()).await?;
    Ok(fill
        .opened_already()
        .is_none_or(|opened| opened.size == size))
}

/// How a caller who joins `fill` is answered. What is verified and only waits for the disk is there as far as anybody
/// can tell.
fn joined(fill: &Fill, role: Role) -> Outcome {
    if fill.is_verified() {
        Outcome::Hit
    } else {
        Outcome::Miss {
            collapsed: role == Role::Follower,
            stored: true,
        }
    }
}
