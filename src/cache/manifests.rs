//! Manifests: by digest for ever, by tag for as long as the tag holds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::freshness::{self, Freshness, TagPolicy};
use super::shelf::{Manifest, ManifestKey, Shelf, TagKey, TagRecord};
use super::{Error, Outcome};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oci::{Algorithm, Descriptor, Digest, ManifestError, Reference, Tag, check_manifest};
use crate::single_flight::{Role, SingleFlight};
use crate::upstream::{self, ManifestAnswer, Repository};

/// How long a check of a tag may be silent before a stale copy is served and the check goes on behind. Somebody is
/// waiting in front of a terminal.
const REVALIDATION_PATIENCE: Duration = Duration::from_millis(800);

/// How many manifests are fetched at once: each may hold [`upstream::MANIFEST_BYTES_MAX`] in memory. Further ones wait
/// in line.
const FETCHES_MAX: usize = 64;

/// A manifest, and for how long it has been known that its tag points to it.
#[derive(Debug, Clone)]
pub struct TaggedManifest {
    /// The manifest.
    pub manifest: Arc<Manifest>,
    /// Time since upstream said so last.
    pub age: Duration,
}

/// Manifests by digest and by tag. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Manifests {
    shelf: Shelf,
    tags: Arc<TagPolicy>,
    clock: Clock,
    metrics: Metrics,
    /// How many may be fetched at once.
    permits: Arc<Semaphore>,
    /// Fetches by digest under way. The source is part of the key: one caller's refusal is not another's.
    fetches: SingleFlight<ManifestKey, Result<Arc<Manifest>, Error>>,
    /// Checks of tags under way.
    refreshes: SingleFlight<TagKey, Result<Refreshed, Error>>,
}

/// What came of asking upstream about a tag.
#[derive(Debug, Clone)]
struct Refreshed {
    manifest: Arc<Manifest>,
    how: How,
}

/// How it came about.
#[derive(Debug, Clone, Copy)]
enum How {
    /// Upstream sent it.
    Fetched,
    /// Upstream said that it is what was here already.
    Confirmed,
    /// Somebody else had asked since this caller looked.
    ByOthers,
}

impl Manifests {
    pub(super) fn new(shelf: Shelf, tags: TagPolicy, clock: Clock, metrics: Metrics) -> Self {
        Self {
            shelf,
            tags: Arc::new(tags),
            clock,
            metrics,
            permits: Arc::new(Semaphore::new(FETCHES_MAX)),
            fetches: SingleFlight::default(),
            refreshes: SingleFlight::default(),
        }
    }

    pub(super) async fn by_digest(
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
        Ok((miss(role), manifest))
    }

    pub(super) async fn by_tag(
        &self,
        source: Repository,
        tag: Tag,
    ) -> Result<(Outcome, TaggedManifest), Error> {
        let key = TagKey::new(&source, tag);
        let record = self.shelf.tag(&key).await;
        let known = match &record {
            Some(record) => {
                let key = ManifestKey::new(&source, record.descriptor.digest);
                let manifest = self.shelf.manifest(&key).await;
                manifest.map(|manifest| (record.clone(), manifest))
            }
            None => None,
        };
        let Some((record, manifest)) = known else {
            let (role, refreshed) = self.refresh(&source, &key, None).await;
            return refreshed.map(|refreshed| refreshed.answer(role));
        };
        let now = self.clock.now();
        let age = now.duration_since(record.checked).unwrap_or_default();
        let stale_by = match freshness::decide(record.checked, self.tags.rule(&key.tag), now) {
            Freshness::Fresh => return Ok((Outcome::Hit, TaggedManifest { manifest, age })),
            Freshness::Stale { by } => Some(by),
            Freshness::Expired => None,
        };
        let refresh = self.refresh(&source, &key, Some(record));
        let Some(by) = stale_by else {
            let (role, refreshed) = refresh.await;
            return refreshed.map(|refreshed| refreshed.answer(role));
        };
        // Whether the check fails or takes too long, there is something to serve meanwhile.
        let stale = (Outcome::Stale { by }, TaggedManifest { manifest, age });
        match timeout(REVALIDATION_PATIENCE, refresh).await {
            Ok((role, Ok(refreshed))) => Ok(refreshed.answer(role)),
            Ok((_, Err(error))) if error.is_trouble() => {
                tracing::warn!(%source, tag = %key.tag, %error, "serving a stale tag");
                Ok(stale)
            }
            Ok((_, Err(error))) => Err(error),
            Err(_elapsed) => Ok(stale),
        }
    }

    /// Asks upstream about a tag, once for everybody who wants to know. `known` is the record that is to be checked,
    /// whose manifest is at hand.
    async fn refresh(
        &self,
        source: &Repository,
        key: &TagKey,
        known: Option<TagRecord>,
    ) -> (Role, Result<Refreshed, Error>) {
        let task = || {
            let (this, source, key) = (self.clone(), source.clone(), key.clone());
            async move {
                let refreshed = this.ask(&source, &key, known).await;
                if let Err(Error::Upstream(
                    upstream::Error::NotFound | upstream::Error::Denied(_),
                )) = &refreshed
                {
                    // Upstream took it back: an outage later must not bring it up again.
                    this.shelf.forget_tag(&key);
                }
                refreshed
            }
        };
        let (role, refreshed) = self.refreshes.run(key.clone(), task).await;
        (role, refreshed.unwrap_or(Err(Error::Broken)))
    }

    async fn ask(
        &self,
        source: &Repository,
        key: &TagKey,
        known: Option<TagRecord>,
    ) -> Result<Refreshed, Error> {
        // The age counts from when the question was asked (RFC 9111 section 4.2.3).
        let asked = self.clock.now();
        let reference = Reference::Tag(key.tag.clone());
        // Somebody else's question may have ended since the look-up, and was not there to be joined any more.
        if let Some(record) = self
            .shelf
            .hot_tag(key)
            .filter(|record| Some(record) != known.as_ref())
            && let key = ManifestKey::new(source, record.descriptor.digest)
            && let Some(manifest) = self.shelf.manifest(&key).await
        {
            let how = How::ByOthers;
            return Ok(Refreshed { manifest, how });
        }
        if known.is_some() {
            // HEAD is free of Docker Hub's pull quota; GET is not.
            let head = source.head_manifest(&reference).await?;
            if let Some(digest) = head.digest
                && let of_digest = ManifestKey::new(source, digest)
                && let Some(manifest) = self.shelf.manifest(&of_digest).await
            {
                self.keep_tag(key, &manifest, asked);
                let how = How::Confirmed;
                return Ok(Refreshed { manifest, how });
            }
        }
        let manifest = self.fetch(source, &reference).await?;
        self.keep_tag(key, &manifest, asked);
        let how = How::Fetched;
        Ok(Refreshed { manifest, how })
    }

    fn keep_tag(&self, key: &TagKey, manifest: &Manifest, checked: SystemTime) {
        let descriptor = manifest.descriptor.clone();
        self.shelf
            .keep_tag(key, TagRecord::new(descriptor, checked));
    }

    /// Fetches a manifest and keeps it. Bytes that are not what they should be are asked for once more: some
    /// registries mix up answers now and then (goharbor/harbor#16495).
    async fn fetch(
        &self,
        source: &Repository,
        reference: &Reference,
    ) -> Result<Arc<Manifest>, Error> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await.map_err(|_| Error::Broken)?;
        let first = verify(source.get_manifest(reference).await?, reference);
        let verified = match first {
            Err(Error::WrongDigest { .. }) => {
                self.metrics.digest_mismatch(source.label());
                verify(source.get_manifest(reference).await?, reference)
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
}

impl Refreshed {
    fn answer(self, role: Role) -> (Outcome, TaggedManifest) {
        let outcome = match self.how {
            How::Fetched => miss(role),
            How::Confirmed => Outcome::Revalidated,
            How::ByOthers => miss(Role::Follower),
        };
        (outcome, fresh(self.manifest))
    }
}

fn fresh(manifest: Arc<Manifest>) -> TaggedManifest {
    TaggedManifest {
        manifest,
        age: Duration::ZERO,
    }
}

fn miss(role: Role) -> Outcome {
    Outcome::Miss {
        collapsed: role == Role::Follower,
        stored: true,
    }
}

/// Holds an answer against what was asked for, what upstream claims, and what a manifest is.
fn verify(answer: ManifestAnswer, reference: &Reference) -> Result<Manifest, Error> {
    let ManifestAnswer {
        content_type,
        digest: claimed,
        bytes,
    } = answer;
    let asked = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(_) => None,
    };
    // A claim may be in another algorithm than the question; each is checked in its own.
    for expected in asked.iter().chain(&claimed) {
        let found = Digest::of(expected.algorithm(), &bytes);
        if found != *expected {
            return Err(Error::WrongDigest { found });
        }
    }
    let media_type = content_type
        .parse()
        .map_err(|_| ManifestError::MediaType(content_type.clone()))?;
    check_manifest(&bytes, &media_type)?;
    let digest = asked
        .or(claimed)
        .unwrap_or_else(|| Digest::of(Algorithm::Sha256, &bytes));
    let size = bytes.len() as u64;
    Ok(Manifest {
        descriptor: Descriptor {
            media_type,
            digest,
            size,
        },
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const BODY: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

    fn answer(content_type: &str, digest: Option<Digest>) -> ManifestAnswer {
        let content_type = content_type.to_owned();
        ManifestAnswer {
            content_type,
            digest,
            bytes: Bytes::from_static(BODY),
        }
    }

    fn tag() -> Reference {
        "v1".parse().expect("a tag")
    }

    #[test]
    fn the_digest_is_computed_when_upstream_does_not_say() {
        let manifest = verify(answer(INDEX, None), &tag()).expect("a manifest");
        assert_eq!(
            manifest.descriptor.digest,
            Digest::of(Algorithm::Sha256, BODY)
        );
        assert_eq!(manifest.descriptor.size, BODY.len() as u64);
    }

    #[test]
    fn a_claim_in_another_algorithm_is_checked_in_its_own() {
        let sha256 = Digest::of(Algorithm::Sha256, BODY);
        let sha512 = Digest::of(Algorithm::Sha512, BODY);
        let manifest = verify(answer(INDEX, Some(sha256)), &Reference::Digest(sha512));
        assert_eq!(manifest.expect("a manifest").descriptor.digest, sha512);
    }

    #[test]
    fn false_claims_and_other_content_are_refused() {
        let other = Digest::of(Algorithm::Sha256, b"other");
        let wrong = |result| matches!(result, Err(Error::WrongDigest { .. }));
        assert!(wrong(verify(answer(INDEX, Some(other)), &tag())));
        assert!(wrong(verify(
            answer(INDEX, None),
            &Reference::Digest(other)
        )));
    }

    #[test]
    fn a_type_that_is_none_is_refused() {
        for content_type in ["", "text/html; charset=utf-8", "nonsense"] {
            let refused = verify(answer(content_type, None), &tag());
            assert!(matches!(refused, Err(Error::Manifest(_))), "{content_type}");
        }
    }
}
