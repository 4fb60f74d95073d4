//! Manifests by digest, which hold for ever, and how any manifest is fetched.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::absent::Absent;
use super::shelf::{Manifest, ManifestKey, Shelf};
use super::verify::verify;
use super::{Error, Outcome};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oci::{Digest, Reference};
use crate::single_flight::SingleFlight;
use crate::upstream::{ManifestAnswer, ManifestHead, Repository};

/// How many manifests are fetched at once: each may hold [`crate::upstream::MANIFEST_BYTES_MAX`] in memory. Further
/// ones wait in line.
const FETCHES_MAX: usize = 64;

/// Manifests by digest. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Manifests {
    shelf: Shelf,
    metrics: Metrics,
    /// What upstream does not have, be it asked for by digest or by tag.
    absent: Absent,
    /// How many may be fetched at once.
    permits: Arc<Semaphore>,
    /// Fetches by digest under way. The source is part of the key: one caller's refusal is not another's.
    fetches: SingleFlight<ManifestKey, Result<Arc<Manifest>, Error>>,
}

impl Manifests {
    pub(super) fn new(shelf: Shelf, clock: Clock, metrics: Metrics) -> Self {
        Self {
            shelf,
            metrics,
            absent: Absent::new(clock),
            permits: Arc::new(Semaphore::new(FETCHES_MAX)),
            fetches: SingleFlight::default(),
        }
    }

    /// The manifest `digest`, from memory, storage or through `source`.
    ///
    /// Cancel-safe: a fetch that was started goes on.
    pub(super) async fn get(
        &self,
        source: Repository,
        digest: Digest,
    ) -> Result<(Outcome, Arc<Manifest>), Error> {
        let key = ManifestKey::new(&source, digest);
        if let Some(manifest) = self.shelf.manifest(&key).await {
            return Ok((Outcome::Hit, manifest));
        }
        let fetch = || {
            let (this, source, key) = (self.clone(), source.clone(), key.clone());
            async move {
                // Somebody else's fetch may have ended since the look-up.
                match this.shelf.hot(&key) {
                    Some(manifest) => Ok(manifest),
                    None => this.fetch(&source, &Reference::Digest(digest)).await,
                }
            }
        };
        let (role, fetched) = self.fetches.run(key.clone(), fetch).await;
        let manifest = fetched.map_err(|_| Error::Broken)??;
        Ok((Outcome::fetched(role), manifest))
    }

    /// What `source` says of `reference` without sending it.
    ///
    /// Cancel-safe.
    pub(super) async fn head(
        &self,
        source: &Repository,
        reference: &Reference,
    ) -> Result<ManifestHead, Error> {
        let head = source.head_manifest(reference);
        self.absent.unless(source, reference, head).await
    }

    /// Fetches a manifest and keeps it. Bytes that are not what they should be are asked for once more: some
    /// registries mix up answers now and then (goharbor/harbor#16495).
    ///
    /// Cancel-safe: what is dropped leaves nothing behind.
    pub(super) async fn fetch(
        &self,
        source: &Repository,
        reference: &Reference,
    ) -> Result<Arc<Manifest>, Error> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await.map_err(|_| Error::Broken)?;
        let first = verify(self.ask(source, reference).await?, reference);
        let verified = match first {
            Err(Error::WrongDigest { .. }) => {
                self.metrics.digest_mismatch(source.label());
                verify(self.ask(source, reference).await?, reference)
            }
            first => first,
        };
        let manifest = Arc::new(verified.inspect_err(|error| {
            tracing::warn!(%source, %reference, %error, "upstream sent something else");
        })?);
        let key = ManifestKey::new(source, manifest.descriptor.digest);
        self.shelf.keep(&key, &manifest);
        Ok(manifest)
    }

    async fn ask(
        &self,
        source: &Repository,
        reference: &Reference,
    ) -> Result<ManifestAnswer, Error> {
        let get = source.get_manifest(reference);
        self.absent.unless(source, reference, get).await
    }
}
