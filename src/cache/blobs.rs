//! Blobs: from storage, or by the fill that everybody shares.

use std::fs::File;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::Error;
use super::behind::Behind;
use super::evict::Evictor;
use super::fill::{Fill, FillError, Fills, Opened, Share, Standing, Stream};
use super::links::{Links, Proof, Subject};
use super::manifest_record::ManifestKey;
use super::outcome::{BypassReason, Outcome};
use super::reader::Blob;
use super::shelf::Shelf;
use super::through::Origin;
use super::tier::{Found, Tier};
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::single_flight::Role;
use crate::storage::{Audience, Local, Operation, StoredBlob};
use crate::upstream::{self, Extent, Repository};

/// How many look at the disk at once. A crowd that comes for one blob would otherwise have a thread for each of it, before
/// the first has found that there is nothing; so those who waited look whether it is on its way meanwhile.
const LOOKS_MAX: usize = 16;

/// Blobs by digest, whichever repository they are asked through.
#[derive(Debug, Clone)]
pub(super) struct Blobs {
    storage: Local,
    shelf: Shelf,
    links: Links,
    evictor: Evictor,
    tier: Tier,
    fills: Fills,
    behind: Behind,
    /// How many may look at the disk.
    looks: Arc<Semaphore>,
    metrics: Metrics,
}

impl Blobs {
    pub(super) fn new(
        storage: Local,
        shelf: Shelf,
        links: Links,
        evictor: Evictor,
        tier: Tier,
        behind: Behind,
        metrics: Metrics,
    ) -> Self {
        let fills = Fills::new(
            storage.clone(),
            links.clone(),
            evictor.clone(),
            tier.clone(),
            behind.clone(),
            metrics.clone(),
        );
        Self {
            storage,
            shelf,
            links,
            evictor,
            tier,
            fills,
            behind,
            looks: Arc::new(Semaphore::new(LOOKS_MAX)),
            metrics,
        }
    }

    /// The blob `digest`, where it is open already and anybody's.
    pub(super) fn get_at_hand(&self, source: &Repository, digest: &Digest) -> Option<Blob> {
        if self.fills.find(digest).is_some() {
            return None;
        }
        let blob = self.at_hand(&ManifestKey::new(source, *digest), digest)?;
        is_open(source, &blob).then(|| Blob::stored(blob))
    }

    /// Whether the blob `digest`, read from `file`, is as it was.
    pub(super) fn is_still(&self, digest: &Digest, file: &File) -> bool {
        self.storage.is_still(digest, file)
    }

    /// The blob `digest`, from storage or through `source`. Answers as soon as the size is known.
    pub(super) async fn get(
        &self,
        source: Repository,
        digest: Digest,
    ) -> Result<(Outcome, Blob), Error> {
        // Fills first, then storage: a fill is in the one or in the other, and never in between.
        if self.fills.find(&digest).is_none() {
            match self.readable(&source, digest).await? {
                Readable::Yes(outcome, blob) => return Ok((outcome, Blob::stored(blob))),
                Readable::Elsewhere => {
                    return Box::pin(self.pass_through(source, digest, BypassReason::NotBelieved))
                        .await;
                }
                Readable::Nothing => {}
            }
        }
        let hint = self.shelf.size_of(&digest);
        if hint.is_some_and(|size| self.evictor.is_too_large(size)) {
            return Box::pin(self.pass_through(source, digest, BypassReason::NoRoom)).await;
        }
        let (role, fill, _present) = self.fills.join(digest, &source, hint);
        let was_there = fill.is_verified();
        let _waiter = self.metrics.fill_waiter();
        match fill.opened(&source).await {
            Ok(opened) if self.may_read_along(&fill, &source, opened.size).await? => {
                let outcome = joined(&fill, role, was_there);
                let origin = self.origin(source, digest, opened.size);
                Ok((outcome, Blob::filling(fill, opened, origin)))
            }
            Ok(_) => Box::pin(self.pass_through(source, digest, BypassReason::NotBelieved)).await,
            Err(FillError::Storage(error)) => {
                let reason = match error.operation {
                    Operation::Reserve => BypassReason::NoRoom,
                    Operation::Open
                    | Operation::Read
                    | Operation::Create
                    | Operation::Write
                    | Operation::Publish
                    | Operation::Remove
                    | Operation::Touch => BypassReason::StorageFailed,
                };
                Box::pin(self.pass_through(source, digest, reason)).await
            }
            Err(FillError::Upstream(error)) => Err(self.refused(&source, digest, error)),
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
        match self.fills.find(&digest) {
            Some(fill) => {
                if let (Standing::Entitled, Some(Opened { size, .. })) =
                    (fill.standing(source), fill.opened_already())
                {
                    let was_there = fill.is_verified();
                    return Ok((joined(&fill, Role::Follower, was_there), size));
                }
            }
            None => {
                if let Readable::Yes(outcome, blob) = self.readable(source, digest).await? {
                    return Ok((outcome, blob.size));
                }
            }
        }
        if let Some(size) = self.shared_size(source, digest).await? {
            return Ok((Outcome::Shared { collapsed: false }, size));
        }
        let size = source.head_blob(&digest).await;
        let size = size.map_err(|error| self.refused(source, digest, error))?;
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
        let evictor = self.evictor.clone();
        self.behind.run(move || {
            let removed = storage.discard(&digest, &file);
            evictor.missing(&digest);
            if let Err(error) = &removed {
                metrics.storage_error(error.operation.as_str());
            }
            tracing::warn!(%digest, removed = removed.is_ok(), "a stored blob cannot be read");
        });
    }

    /// What is stored under `digest`, as far as the holder of `source` may read it.
    async fn readable(&self, source: &Repository, digest: Digest) -> Result<Readable, Error> {
        let Some(blob) = self.stored(source, digest).await? else {
            return Ok(Readable::Nothing);
        };
        if is_open(source, &blob) {
            return Ok(Readable::Yes(Outcome::Hit, blob));
        }
        Ok(
            match Box::pin(self.links.prove(source, Subject::Blob(digest))).await? {
                Proof::Held => Readable::Yes(Outcome::Hit, blob),
                Proof::Confirmed { size: Some(size) } if size != blob.size => Readable::Elsewhere,
                Proof::Confirmed { .. } => Readable::Yes(Outcome::Revalidated, blob),
                Proof::Unbelieved => Readable::Elsewhere,
            },
        )
    }

    /// Whether the holder of `source` may read what `fill` brings in, a blob of `size` bytes. Whose own source gives it
    /// may; others ask their own whether it would.
    async fn may_read_along(
        &self,
        fill: &Fill,
        source: &Repository,
        size: u64,
    ) -> Result<bool, Error> {
        match fill.standing(source) {
            Standing::Entitled => return Ok(true),
            Standing::Refused(error) => return Err(self.refused(source, fill.digest(), error)),
            Standing::Unknown => {}
        }
        let subject = Subject::Blob(fill.digest());
        Ok(match Box::pin(self.links.prove(source, subject)).await? {
            Proof::Held => true,
            Proof::Confirmed { size: said } => said == Some(size),
            Proof::Unbelieved => false,
        })
    }

    /// The size of what the shared tier has under `digest`, as far as the holder of `source` may read it.
    async fn shared_size(&self, source: &Repository, digest: Digest) -> Result<Option<u64>, Error> {
        let Some((size, audience)) = self.tier.size(&digest).await else {
            return Ok(None);
        };
        let may_read = self.may_read(source, digest, size, audience).await?;
        Ok(may_read.then_some(size))
    }

    /// Whether the holder of `source` may read a blob of `size` bytes that is here as that of `audience`.
    async fn may_read(
        &self,
        source: &Repository,
        digest: Digest,
        size: u64,
        audience: Audience,
    ) -> Result<bool, Error> {
        if audience == Audience::Everybody && source.takes_public_content() {
            return Ok(true);
        }
        let proof = Box::pin(self.links.prove(source, Subject::Blob(digest))).await?;
        Ok(match proof {
            Proof::Held => true,
            Proof::Confirmed { size: said } => said == Some(size),
            Proof::Unbelieved => false,
        })
    }

    /// `error`, once what it ends has ended.
    fn refused(&self, source: &Repository, digest: Digest, error: upstream::Error) -> Error {
        self.links.refused(source, Some(&digest), &error);
        error.into()
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
        let key = ManifestKey::new(source, digest);
        if let Some(blob) = self.at_hand(&key, &digest) {
            return Ok(Some(blob));
        }
        Box::pin(self.look_up(key, digest)).await
    }

    /// A blob that is asked for again and again, without a thread that may block.
    fn at_hand(&self, key: &ManifestKey, digest: &Digest) -> Option<StoredBlob> {
        self.storage.kept_blob(digest).filter(|blob| {
            self.evictor.was_just_used(blob) && self.shelf.is_surely_blob(key, blob.size)
        })
    }

    /// As [`stored`](Self::stored), from the disk.
    async fn look_up(&self, key: ManifestKey, digest: Digest) -> Result<Option<StoredBlob>, Error> {
        // The semaphore is never closed.
        let look = Arc::clone(&self.looks).acquire_owned().await;
        let look = look.map_err(|_| Error::Broken)?;
        if self.fills.find(&digest).is_some() {
            return Ok(None);
        }
        let (storage, shelf) = (self.storage.clone(), self.shelf.clone());
        let evictor = self.evictor.clone();
        let looked_up = spawn_blocking(move || {
            // The look goes on when who asked has left.
            let _look = look;
            let blob = storage.blob(&digest)?;
            match &blob {
                Some(blob) => {
                    evictor.used(&digest, blob);
                    storage.keep_open(&digest, blob);
                }
                None => evictor.missing(&digest),
            }
            let size = blob.as_ref().map_or(0, |blob| blob.size);
            let is_manifest = shelf.is_manifest(&key, size)?;
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

    /// What is on disk is of no use to this caller, who gets a connection of its own: to the shared tier, if that has the
    /// blob and is believed, or else to its source.
    async fn pass_through(
        &self,
        source: Repository,
        digest: Digest,
        reason: BypassReason,
    ) -> Result<(Outcome, Blob), Error> {
        let is_believed = match reason {
            BypassReason::StorageFailed | BypassReason::NoRoom => true,
            BypassReason::NotBelieved => false,
        };
        if is_believed
            && let Found::Blob(blob, stream) = self.tier.find(&digest).await
            && self
                .may_read(&source, digest, blob.size(), blob.audience())
                .await?
        {
            let mut origin = self.origin(source, digest, blob.size());
            origin.shared = Some(blob);
            let blob = Blob::through(origin, Stream::Shared(Box::new(stream)));
            return Ok((Outcome::Shared { collapsed: false }, blob));
        }
        let stream = source.get_blob(&digest, Extent::Whole).await?;
        let size = stream.total().ok_or_else(|| {
            upstream::Error::Protocol("the size of the blob is not declared".to_owned())
        })?;
        let origin = self.origin(source, digest, size);
        Ok((
            Outcome::Bypass(reason),
            Blob::through(origin, stream.into()),
        ))
    }

    /// Where the bytes come from that do not come from disk: the caller's own source.
    fn origin(&self, source: Repository, digest: Digest, size: u64) -> Origin {
        Origin {
            digest,
            size,
            source,
            tier: self.tier.clone(),
            shared: None,
        }
    }
}

/// Whether no right need be shown for a stored blob.
fn is_open(source: &Repository, blob: &StoredBlob) -> bool {
    blob.audience == Audience::Everybody && source.takes_public_content()
}

/// Whether something stored may be read.
enum Readable {
    /// It may, and how that is known.
    Yes(Outcome, StoredBlob),
    /// Upstream says so, but has to send the bytes itself.
    Elsewhere,
    /// There is nothing.
    Nothing,
}

/// How a caller who joins `fill` is answered. What was verified before and only waits for the disk is there as far as
/// anybody can tell.
fn joined(fill: &Fill, role: Role, was_there: bool) -> Outcome {
    let collapsed = role == Role::Follower;
    match fill.share() {
        _ if was_there => Outcome::Hit,
        Share::Nothing => Outcome::fetched(role),
        Share::Gave => Outcome::Shared { collapsed },
        Share::Trouble => Outcome::Unshared { collapsed },
    }
}
