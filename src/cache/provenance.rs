//! Where a digest was seen: which registry's repository of this name has it, and as what.
//!
//! Learned from the manifests that go through. In memory it is every digest they name, bounded; on disk it is, per name
//! of a repository, the registries it was pulled from and the manifests that were pulled, from which the rest is
//! learned again when it is asked for. All of it is a hint: it only chooses whom to ask.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::DefaultHashBuilder;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::behind::Behind;
use super::pending::Pending;
use super::shelf::told;
use super::{Error, Memory};
use crate::metrics::Metrics;
use crate::oci::{Digest, Namespace, RepositoryName, described_blobs, described_manifests};
use crate::storage::{Local, RecordKey};
use crate::upstream::{self, Repository};

/// How many digests are remembered, at some two hundred bytes each: what thousands of images are made of.
const HOT_MAX: u64 = 50_000;

/// How many repositories have their record in memory, at some hundred bytes for each manifest in it.
const RECORDS_MAX: u64 = 2_000;

/// How many manifests are kept per name of a repository, the last ones that were pulled.
const SEEN_MAX: usize = 32;

/// What a digest stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An image or an index of them.
    Manifest,
    /// A layer or a configuration.
    Blob,
}

/// Where a digest was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    namespace: Namespace,
    /// What it is, where a manifest or upstream has said so.
    kind: Option<Kind>,
}

/// A manifest that was pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) namespace: Namespace,
    pub(super) manifest: Digest,
}

/// The record of a repository's name on disk. It says what it is about, because the file name does not.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OriginFile {
    pub(super) repository: RepositoryName,
    /// The latest first.
    pub(super) seen: Vec<Seen>,
}

/// What is known of where digests come from. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Provenance {
    storage: Local,
    behind: Behind,
    metrics: Metrics,
    hot: Memory<(RepositoryName, Digest), Origin>,
    records: moka::sync::Cache<RepositoryName, Arc<Vec<Seen>>>,
    /// Held while a record is read and changed, so that no change is lost. Only by work behind answers.
    changing: Arc<Mutex<()>>,
    pending: Pending<RepositoryName, Arc<Vec<Seen>>>,
}

impl Provenance {
    pub(super) fn new(storage: Local, behind: Behind, metrics: Metrics) -> Self {
        Self {
            storage,
            behind: behind.clone(),
            metrics,
            hot: moka::sync::Cache::builder()
                .max_capacity(HOT_MAX)
                .build_with_hasher(DefaultHashBuilder::default()),
            records: moka::sync::Cache::new(RECORDS_MAX),
            changing: Arc::default(),
            pending: Pending::new(behind),
        }
    }

    /// Learns what the manifest `digest` names.
    pub(super) fn learn(
        &self,
        namespace: &Namespace,
        repository: &RepositoryName,
        digest: &Digest,
        bytes: &[u8],
    ) {
        let learn = |digest: Digest, kind| {
            let (namespace, kind) = (namespace.clone(), Some(kind));
            self.hot
                .insert((repository.clone(), digest), Origin { namespace, kind });
        };
        learn(*digest, Kind::Manifest);
        for (digest, _) in described_manifests(bytes) {
            learn(digest, Kind::Manifest);
        }
        for (digest, _) in described_blobs(bytes) {
            learn(digest, Kind::Blob);
        }
    }

    /// A blob was read through `source`. Nothing better is known of blobs that no manifest here names.
    pub(super) fn saw_blob(&self, source: &Repository, digest: &Digest) {
        let key = (source.name().clone(), *digest);
        if !self.hot.contains_key(&key) {
            let namespace = source.namespace().clone();
            // Registries give manifests as blobs, too.
            let kind = None;
            self.hot.insert(key, Origin { namespace, kind });
        }
    }

    /// Remembers for good that a manifest was pulled.
    pub(super) fn keep(&self, namespace: &Namespace, repository: &RepositoryName, digest: &Digest) {
        let this = self.clone();
        let repository = repository.clone();
        let seen = Seen {
            namespace: namespace.clone(),
            manifest: *digest,
        };
        self.behind.run(move || this.add(&repository, seen));
    }

    /// Blocks.
    fn add(&self, repository: &RepositoryName, seen: Seen) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.load(repository);
        if known.contains(&seen) {
            return;
        }
        let others = known.iter().take(SEEN_MAX - 1).cloned();
        let changed = Arc::new(std::iter::once(seen).chain(others).collect::<Vec<_>>());
        self.records
            .insert(repository.clone(), Arc::clone(&changed));
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        self.pending
            .set(repository.clone(), changed, move |repository, seen| {
                let file = OriginFile {
                    repository: repository.clone(),
                    seen: seen.to_vec(),
                };
                // Strings always serialise; an empty record reads as none.
                let content = serde_json::to_vec(&file).unwrap_or_default();
                told(
                    storage.write_record(RecordKey::Origin(repository), &content),
                    &metrics,
                );
            });
    }

    /// What was pulled from repositories of this name. Blocks.
    fn load(&self, repository: &RepositoryName) -> Arc<Vec<Seen>> {
        if let Some(known) = self.records.get(repository) {
            return known;
        }
        if let Some(pending) = self.pending.get(repository) {
            return pending;
        }
        let record = told(
            self.storage.record(RecordKey::Origin(repository)),
            &self.metrics,
        );
        let seen = record
            .flatten()
            .map(|content| OriginFile::parse(&content, repository))
            .unwrap_or_default();
        let seen = Arc::new(seen);
        self.records.insert(repository.clone(), Arc::clone(&seen));
        seen
    }

    /// The registry in whose repository of this name `digest` was seen, as far as memory goes.
    pub(super) fn find(&self, repository: &RepositoryName, digest: &Digest) -> Option<Namespace> {
        let origin = self.hot.get(&(repository.clone(), *digest))?;
        Some(origin.namespace)
    }

    /// The manifests that were pulled from repositories of this name.
    ///
    /// Cancel-safe.
    pub(super) async fn seen(&self, repository: &RepositoryName) -> Arc<Vec<Seen>> {
        if let Some(known) = self.records.get(repository) {
            return known;
        }
        let (this, repository) = (self.clone(), repository.clone());
        let loaded = spawn_blocking(move || this.load(&repository)).await;
        loaded.unwrap_or_default()
    }

    /// `error`, unless `digest` is known to be something else than was asked for: then trouble is no reason to keep a
    /// client from looking for it under the right name.
    pub(super) fn told(
        &self,
        source: &Repository,
        digest: &Digest,
        wanted: Kind,
        error: Error,
    ) -> Error {
        if !error.is_trouble() {
            return error;
        }
        let origin = self.hot.get(&(source.name().clone(), *digest));
        let is_other = origin.is_some_and(|origin| {
            let is_here = origin.namespace == *source.namespace();
            is_here && origin.kind.is_some_and(|kind| kind != wanted)
        });
        if is_other {
            upstream::Error::NotFound.into()
        } else {
            error
        }
    }
}

impl OriginFile {
    /// What the record in `content` says, if it is about `repository`. A damaged one says nothing.
    fn parse(content: &[u8], repository: &RepositoryName) -> Vec<Seen> {
        let file = serde_json::from_slice::<Self>(content).ok();
        let mut seen = file
            .filter(|file| file.repository == *repository)
            .map(|file| file.seen)
            .unwrap_or_default();
        seen.truncate(SEEN_MAX);
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn a_record_of_another_name_or_a_damaged_one_says_nothing() {
        let name = |text: &str| text.parse::<RepositoryName>().expect("a name");
        let seen = Seen {
            namespace: "quay.io".parse().expect("a namespace"),
            manifest: Digest::of(Algorithm::Sha256, b"x"),
        };
        let file = OriginFile {
            repository: name("team/app"),
            seen: vec![seen.clone()],
        };
        let content = serde_json::to_vec(&file).expect("JSON");
        assert_eq!(OriginFile::parse(&content, &name("team/app")), [seen]);
        assert_eq!(OriginFile::parse(&content, &name("team/b")), []);
        for cut in 0..content.len() {
            assert_eq!(OriginFile::parse(&content[..cut], &name("team/app")), []);
        }
    }
}
