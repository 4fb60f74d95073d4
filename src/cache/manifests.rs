//! Manifests by digest, which hold for ever, and how any manifest is fetched.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::absent::Absent;
use super::links::{Links, Proof, Subject};
use super::manifest::Manifest;
use super::manifest_record::ManifestKey;
use super::shelf::Shelf;
use super::verify::verify;
use super::{Error, Outcome};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oci::{Digest, Reference};
use crate::single_flight::SingleFlight;
use crate::storage::Audience;
use crate::upstream::{self, Holder, ManifestAnswer, ManifestHead, Repository};

/// How many manifests are fetched at once: each may hold [`upstream::MANIFEST_BYTES_MAX`] in memory. Further
/// ones wait in line.
const FETCHES_MAX: usize = 64;

/// Manifests by digest. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Manifests {
    shelf: Shelf,
    links: Links,
    metrics: Metrics,
    /// What upstream does not have, be it asked for by digest or by tag.
    absent: Absent,
    /// How many may be fetched at once.
    permits: Arc<Semaphore>,
    /// Fetches by digest under way. Source and holder are part of the key: one caller's refusal is not another's, and
    /// neither is one caller's right.
    fetches: SingleFlight<(Holder, ManifestKey), Result<Arc<Manifest>, Error>>,
}

impl Manifests {
    pub(super) fn new(shelf: Shelf, links: Links, clock: Clock, metrics: Metrics) -> Self {
        Self {
            shelf,
            links,
            metrics,
            absent: Absent::new(clock),
            permits: Arc::new(Semaphore::new(FETCHES_MAX)),
            fetches: SingleFlight::default(),
        }
    }

    /// The manifest `digest`, where it is in memory and anybody's.
    pub(super) fn get_at_hand(&self, source: &Repository, digest: Digest) -> Option<Arc<Manifest>> {
        let manifest = self.shelf.hot(&ManifestKey::new(source, digest))?;
        is_open(source, &manifest).then_some(manifest)
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
        let reference = Reference::Digest(digest);
        if let Some(manifest) = self.shelf.manifest(&key).await {
            let outcome = self.may_read(&source, &manifest, &reference).await?;
            return Ok((outcome, manifest));
        }
        let fetch = || {
            let (this, source, key) = (self.clone(), source.clone(), key.clone());
            async move {
                // Somebody else's fetch may have ended since the look-up.
                match this.shelf.hot(&key) {
                    Some(manifest) => {
                        let may_read = this.may_read(&source, &manifest, &reference).await;
                        may_read.map(|_| manifest)
                    }
                    None => this.fetch(&source, &reference).await,
                }
            }
        };
        let flight = (source.holder().clone(), key.clone());
        let (role, fetched) = self.fetches.run(flight, fetch).await;
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
        let head = async {
            let answer = source.head_manifest(reference).await;
            self.links.learn(source, &answer);
            answer
        };
        self.absent.unless(source, reference, head).await
    }

    /// Whether the holder of `source` may read a stored manifest of its repository, and how that is known.
    ///
    /// Cancel-safe.
    pub(super) async fn may_read(
        &self,
        source: &Repository,
        manifest: &Manifest,
        reference: &Reference,
    ) -> Result<Outcome, Error> {
        if is_open(source, manifest) {
            return Ok(Outcome::Hit);
        }
        let subject = Subject::Manifest(reference.clone());
        match Box::pin(self.links.prove(source, subject)).await {
            Ok(Proof::Held) => Ok(Outcome::Hit),
            Ok(Proof::Confirmed { .. } | Proof::Unbelieved) => Ok(Outcome::Revalidated),
            Err(error) => {
                if let (Reference::Digest(digest), Holder::Anybody | Holder::Mirror(_)) =
                    (reference, source.holder())
                    && matches!(error, Error::Upstream(upstream::Error::NotFound))
                {
                    self.shelf.forget(&ManifestKey::new(source, *digest));
                }
                Err(error)
            }
        }
    }

    /// Whether the holder of `source` may read a stored manifest while upstream cannot say.
    ///
    /// Cancel-safe.
    pub(super) async fn outlasts_trouble(&self, source: &Repository, manifest: &Manifest) -> bool {
        is_open(source, manifest) || self.links.outlasts_trouble(source).await
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
        let mut manifest = verified.inspect_err(|error| {
            tracing::warn!(%source, %reference, %error, "upstream sent something else");
        })?;
        if source.gives_to_anybody() {
            manifest.audience = Audience::Everybody;
        }
        let manifest = Arc::new(manifest);
        let key = ManifestKey::new(source, manifest.descriptor.digest);
        self.shelf.keep(&key, &manifest);
        Ok(manifest)
    }

    async fn ask(
        &self,
        source: &Repository,
        reference: &Reference,
    ) -> Result<ManifestAnswer, Error> {
        let get = async {
            let answer = source.get_manifest(reference).await;
            self.links.learn(source, &answer);
            answer
        };
        self.absent.unless(source, reference, get).await
    }
}

/// Whether no right need be shown for a manifest.
fn is_open(source: &Repository, manifest: &Manifest) -> bool {
    manifest.audience == Audience::Everybody && source.takes_public_content()
}
