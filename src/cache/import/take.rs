//! Takes content out of a source and into a cache: verified, durable, and within the budget.

use std::collections::HashSet;
use std::io::Read as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Deserialize;

use super::files::Content;
use super::{ImportError, Imported, Root, Source};
use crate::cache::evict::Budget;
use crate::cache::manifest::Manifest;
use crate::cache::manifest_record::{ManifestKey, write_record};
use crate::cache::tag_record::{TagKey, TagRecord};
use crate::oci::{
    Algorithm, Descriptor, Digest, Hasher, MediaType, Tag, check_manifest, described_blobs,
    described_manifests,
};
use crate::storage::{Audience, Local, SHARDS};
use crate::upstream::MANIFEST_BYTES_MAX;

/// How old the word of a source counts: older than tags are usually believed, and far younger than they are served while
/// a registry is in trouble.
const WORD_AGE: Duration = Duration::from_hours(1);

/// How many bytes are read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// What manifests are that do not say what they are (image-spec, manifest.md: `mediaType` SHOULD be used).
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Takes from one source.
pub(super) struct Taker<'a> {
    storage: &'a Local,
    source: &'a Source,
    budget: Budget,
    audience: Audience,
    now: SystemTime,
    /// Bytes of all blobs of the cache.
    taken: u64,
    /// What was dealt with already, as a manifest of a repository or as a blob.
    done: HashSet<Digest>,
    imported: Imported,
}

/// What became of some content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// It is in the cache, and was not before.
    New,
    /// It was in the cache.
    Known,
    /// It was left out.
    Left,
}

impl<'a> Taker<'a> {
    pub(super) fn new(
        storage: &'a Local,
        budget: Budget,
        source: &'a Source,
        audience: Audience,
        now: SystemTime,
    ) -> Result<Self, ImportError> {
        let mut taken = 0;
        for audience in Audience::ALL {
            for algorithm in Algorithm::ALL {
                for shard in SHARDS {
                    let listed = storage.blobs_in(audience, algorithm, shard)?;
                    taken += listed.iter().map(|blob| blob.size).sum::<u64>();
                }
            }
        }
        Ok(Self {
            storage,
            source,
            budget,
            audience,
            now,
            taken,
            done: HashSet::new(),
            imported: Imported::default(),
        })
    }

    /// Takes everything. What is wrong is told in the log and left out.
    pub(super) fn take_all(
        &mut self,
        mut progress: impl FnMut(&Imported, &str),
    ) -> Result<Imported, ImportError> {
        for root in &self.source.roots {
            let is_whole = self.take_manifests(root)?;
            if let (Some(manifest), Some(tag)) = (is_whole, &root.tag) {
                self.take_tag(root, tag, manifest)?;
            }
            progress(&self.imported, &root.name());
        }
        Ok(self.imported)
    }

    /// Takes a manifest and all that it names. Gives what the manifest is, where it is in the cache then.
    fn take_manifests(&mut self, root: &Root) -> Result<Option<Descriptor>, ImportError> {
        let mut top = None;
        let mut open = vec![(root.manifest, root.media_type.clone())];
        let mut seen = HashSet::new();
        while let Some((digest, media_type)) = open.pop() {
            if !seen.insert(digest) {
                continue;
            }
            let Some((descriptor, bytes)) = self.take_manifest(root, digest, media_type)? else {
                continue;
            };
            for (digest, _) in described_blobs(&bytes) {
                self.take_blob(&digest)?;
            }
            let members = described_manifests(&bytes).into_iter();
            open.extend(members.map(|(digest, _)| (digest, None)));
            if digest == root.manifest {
                top = Some(descriptor);
            }
        }
        Ok(top)
    }

    fn take_manifest(
        &mut self,
        root: &Root,
        digest: Digest,
        media_type: Option<MediaType>,
    ) -> Result<Option<(Descriptor, Bytes)>, ImportError> {
        let Some(content) = self.source.content(&digest)? else {
            self.imported.missing += 1;
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = content.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|source| unreadable(&digest, source))?;
        let media_type = media_type.or_else(|| media_type_of(&bytes));
        let is_right = Digest::of(digest.algorithm(), &bytes) == digest
            && bytes.len() as u64 <= MANIFEST_BYTES_MAX;
        let checked =
            media_type.filter(|media_type| is_right && check_manifest(&bytes, media_type).is_ok());
        let Some(media_type) = checked else {
            tracing::warn!(image = root.name(), %digest, "left out what is not the manifest it is called");
            self.imported.wrong += 1;
            return Ok(None);
        };
        let descriptor = Descriptor {
            media_type,
            digest,
            size: bytes.len() as u64,
        };
        let manifest = Manifest::new(descriptor, bytes.into(), self.audience);
        let key = ManifestKey::of(root.namespace.clone(), root.repository.clone(), digest);
        // The record first: bytes that are there without it would pass for a blob.
        write_record(self.storage, &key, &manifest)?;
        let content = Content::made(manifest.bytes.clone());
        if self.done.insert(digest) {
            match self.copy(&digest, content)? {
                Taken::New => self.imported.manifests += 1,
                Taken::Known => self.imported.known += 1,
                Taken::Left => return Ok(None),
            }
        }
        Ok(Some((manifest.descriptor, manifest.bytes)))
    }

    fn take_blob(&mut self, digest: &Digest) -> Result<(), ImportError> {
        if !self.done.insert(*digest) {
            return Ok(());
        }
        let Some(content) = self.source.content(digest)? else {
            self.imported.missing += 1;
            return Ok(());
        };
        match self.copy(digest, content)? {
            Taken::New => self.imported.blobs += 1,
            Taken::Known => self.imported.known += 1,
            Taken::Left => {}
        }
        Ok(())
    }

    /// Copies what is called `digest` into the cache, if it is that.
    fn copy(&mut self, digest: &Digest, mut content: Content) -> Result<Taken, ImportError> {
        let stored = self.storage.blob(digest)?;
        let is_enough = |audience| audience == Audience::Everybody || audience == self.audience;
        if stored.is_some_and(|blob| is_enough(blob.audience)) {
            return Ok(Taken::Known);
        }
        let size = content.left();
        let limit = self.budget.bytes(self.storage.space()?, self.taken);
        if self.taken.saturating_add(size) > limit {
            return Err(ImportError::Full(limit));
        }
        let ingest = self.storage.ingest(digest, Some(size))?;
        let (mut hasher, mut offset) = (Hasher::new(digest.algorithm()), 0);
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = content
                .read(&mut buffer)
                .map_err(|source| unreadable(digest, source))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            ingest.write_at(&[Bytes::copy_from_slice(&buffer[..read])], offset)?;
            offset += read as u64;
        }
        if hasher.finish() != *digest {
            tracing::warn!(%digest, "left out what has other bytes than it is called");
            self.imported.wrong += 1;
            return Ok(Taken::Left);
        }
        ingest.publish(self.audience)?;
        self.taken += offset;
        self.imported.bytes += offset;
        Ok(Taken::New)
    }

    /// Takes the word of a source that `tag` points to `manifest`, unless the mirror has one of its own.
    fn take_tag(
        &mut self,
        root: &Root,
        tag: &Tag,
        manifest: Descriptor,
    ) -> Result<(), ImportError> {
        let key = TagKey {
            namespace: root.namespace.clone(),
            repository: root.repository.clone(),
            tag: tag.clone(),
        };
        let known = self.storage.record(key.record())?;
        if known.is_some_and(|content| TagRecord::parse(&content, &key).is_some()) {
            return Ok(());
        }
        let confirmed = self.now.checked_sub(WORD_AGE).unwrap_or(self.now);
        let record = TagRecord::new(manifest, confirmed);
        self.storage
            .write_record(key.record(), &record.to_json(&key))?;
        self.imported.tags += 1;
        Ok(())
    }
}

fn unreadable(digest: &Digest, source: std::io::Error) -> ImportError {
    ImportError::Source {
        path: digest.to_string().into(),
        source,
    }
}

/// What a document says that it is, or what its fields make it.
fn media_type_of(bytes: &[u8]) -> Option<MediaType> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        media_type: Option<MediaType>,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
    }
    let document: Document = serde_json::from_slice(bytes).ok()?;
    let usual = match document.manifests {
        Some(_) => OCI_INDEX,
        None => OCI_MANIFEST,
    };
    document.media_type.or_else(|| usual.parse().ok())
}
