//! What is written on disk of a manifest, beside its bytes.

use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use crate::oci::{Descriptor, Digest, MediaType, Namespace, RepositoryName};
use crate::storage::{self, Audience, Local, RecordKey};
use crate::upstream::{MANIFEST_BYTES_MAX, Repository};

/// Which manifest is meant: what one repository calls a manifest is nothing to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ManifestKey {
    pub(super) namespace: Namespace,
    pub(super) repository: RepositoryName,
    pub(super) digest: Digest,
}

impl ManifestKey {
    pub(super) fn new(source: &Repository, digest: Digest) -> Self {
        Self::of(source.namespace().clone(), source.name().clone(), digest)
    }

    pub(super) fn of(namespace: Namespace, repository: RepositoryName, digest: Digest) -> Self {
        Self {
            namespace,
            repository,
            digest,
        }
    }

    pub(super) fn record(&self) -> RecordKey<'_> {
        RecordKey::Manifest(&self.namespace, &self.repository, &self.digest)
    }
}

/// Says on disk that a blob is a manifest, and of which type.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ManifestRecord {
    media_type: MediaType,
    /// Whether it is everybody's.
    #[serde(default)]
    public: bool,
    /// What it is about, for people: the first ones did not say.
    #[serde(flatten)]
    about: Option<About>,
}

/// Which manifest a record is about.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    namespace: Namespace,
    repository: RepositoryName,
    digest: Digest,
}

impl ManifestRecord {
    /// What `record` says, where it can be read.
    pub(super) fn read(record: &[u8]) -> Option<Self> {
        serde_json::from_slice(record).ok()
    }

    /// The manifest that has these `bytes`, which hash to `digest`.
    pub(super) fn manifest(self, digest: Digest, bytes: Bytes) -> Manifest {
        let descriptor = Descriptor {
            media_type: self.media_type,
            digest,
            size: bytes.len() as u64,
        };
        let audience = if self.public {
            Audience::Everybody
        } else {
            Audience::Entitled
        };
        Manifest::new(descriptor, bytes, audience)
    }
}

/// Reads a manifest and checks it once more: it is small, and it decides what everything else is. Blocks.
pub(super) fn load(storage: &Local, key: &ManifestKey) -> Result<Option<Manifest>, storage::Error> {
    let record = storage.record(key.record())?;
    let Some(record) = record.as_deref().and_then(ManifestRecord::read) else {
        return Ok(None);
    };
    let digest = key.digest;
    let Some(blob) = storage
        .verified_blob(&digest)?
        .filter(|blob| blob.size <= MANIFEST_BYTES_MAX)
    else {
        return Ok(None);
    };
    let mut bytes = vec![0; usize::try_from(blob.size).unwrap_or(0)];
    let whole = blob.file.read_exact_at(&mut bytes, 0).is_ok();
    if !whole || Digest::of(digest.algorithm(), &bytes) != digest {
        tracing::warn!(%digest, "the stored manifest is damaged");
        return Ok(None);
    }
    Ok(Some(record.manifest(digest, bytes.into())))
}

/// Says on disk that something is a manifest. Blocks.
pub(super) fn write_record(
    storage: &Local,
    key: &ManifestKey,
    manifest: &Manifest,
) -> Result<(), storage::Error> {
    let record = ManifestRecord {
        media_type: manifest.descriptor.media_type.clone(),
        public: manifest.audience == Audience::Everybody,
        about: Some(About {
            namespace: key.namespace.clone(),
            repository: key.repository.clone(),
            digest: key.digest,
        }),
    };
    storage.write_record(key.record(), &json(&record))
}

fn json<T: Serialize>(record: &T) -> Vec<u8> {
    // Records are strings and numbers, which always serialise; an empty record reads as none.
    serde_json::to_vec(record).unwrap_or_default()
}
