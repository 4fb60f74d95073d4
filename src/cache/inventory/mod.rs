//! What is stored, and which repositories it is of: for people who want to know, and to make room.
//!
//! Which repository a blob is of, the small records and the manifests say. It is as good as they are: a blob whose manifest
//! has gone is nobody's here, though a client that asks for it by its digest gets it all the same. Nothing here is a use of
//! what it looks at. Every call blocks.

mod prune;
pub use prune::{PruneRule, Pruned};

mod records;

mod usage;
pub use usage::{Amounts, NamespaceUsage, RepositoryUsage, Usage};

use std::collections::{HashMap, HashSet};

use crate::oci::{
    Algorithm, Digest, Namespace, RepositoryName, described_blobs, described_manifests,
};
use crate::storage::{self, Audience, Local, RecordKind, SHARDS};
use crate::upstream::MANIFEST_BYTES_MAX;

/// What is stored.
#[derive(Debug)]
pub struct Inventory {
    blobs: HashMap<Digest, Stored>,
    places: Vec<Place>,
}

/// One repository of one registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    namespace: Namespace,
    repository: RepositoryName,
}

/// A blob, as far as it matters here.
#[derive(Debug, Default)]
struct Stored {
    bytes: u64,
    /// When it was last used, in seconds since 1970.
    used: u64,
    /// Which repositories have it, as positions in the list of them; ascending.
    places: Vec<u32>,
}

/// What the records say that a repository has.
#[derive(Debug)]
enum Root {
    /// A manifest, and so all that it names.
    Manifest(Place, Digest),
    /// A blob.
    Blob(Place, Digest),
}

impl Inventory {
    /// Looks through `storage`.
    ///
    /// # Errors
    /// `Open` or `Read` when a part of it is there and cannot be read.
    pub fn read(storage: &Local) -> Result<Self, storage::Error> {
        let mut this = Self {
            blobs: blobs(storage)?,
            places: Vec::new(),
        };
        this.attribute(storage)?;
        Ok(this)
    }

    /// Finds out which repositories blobs are of.
    fn attribute(&mut self, storage: &Local) -> Result<(), storage::Error> {
        let mut numbers = HashMap::new();
        let mut named = HashMap::new();
        let mut seen = HashSet::new();
        for root in roots(storage)? {
            let (place, digest, is_manifest) = match root {
                Root::Manifest(place, digest) => (place, digest, true),
                Root::Blob(place, digest) => (place, digest, false),
            };
            let next = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
            let number = *numbers.entry(place).or_insert_with_key(|place| {
                self.places.push(place.clone());
                next
            });
            let mut open = vec![(digest, is_manifest)];
            while let Some((digest, is_manifest)) = open.pop() {
                if !seen.insert((number, digest, is_manifest)) {
                    continue;
                }
                self.give(&digest, number);
                if is_manifest && self.blobs.contains_key(&digest) {
                    let parts = named
                        .entry(digest)
                        .or_insert_with(|| parts_of(storage, &digest));
                    open.extend(parts.iter().copied());
                }
            }
        }
        for blob in self.blobs.values_mut() {
            blob.places.sort_unstable();
            blob.places.dedup();
        }
        Ok(())
    }

    /// Where it is stored, `digest` is of a repository.
    fn give(&mut self, digest: &Digest, place: u32) {
        if let Some(blob) = self.blobs.get_mut(digest) {
            blob.places.push(place);
        }
    }

    fn place(&self, number: u32) -> Option<&Place> {
        self.places.get(usize::try_from(number).ok()?)
    }
}

/// Every blob that is stored. One that is there for everybody and once more for some counts twice, as it does on disk.
fn blobs(storage: &Local) -> Result<HashMap<Digest, Stored>, storage::Error> {
    let mut blobs: HashMap<Digest, Stored> = HashMap::new();
    for audience in Audience::ALL {
        for algorithm in Algorithm::ALL {
            for shard in SHARDS {
                for listed in storage.blobs_in(audience, algorithm, shard)? {
                    let blob = blobs.entry(listed.digest).or_default();
                    blob.bytes += listed.size;
                    blob.used = blob.used.max(listed.last_use.at);
                }
            }
        }
    }
    Ok(blobs)
}

/// What all records say. One that is damaged says nothing.
fn roots(storage: &Local) -> Result<Vec<Root>, storage::Error> {
    let mut roots = Vec::new();
    for kind in RecordKind::ALL {
        for shard in SHARDS {
            for content in storage.records_in(kind, shard)? {
                records::read(kind, &content, &mut roots);
            }
        }
    }
    Ok(roots)
}

/// What a stored manifest names, and what of it are manifests. One that cannot be read names nothing.
fn parts_of(storage: &Local, digest: &Digest) -> Vec<(Digest, bool)> {
    let content = storage.small_blob(digest, MANIFEST_BYTES_MAX);
    let Ok(Some(content)) = content else {
        return Vec::new();
    };
    if Digest::of(digest.algorithm(), &content) != *digest {
        return Vec::new();
    }
    let manifests = described_manifests(&content).into_iter();
    let blobs = described_blobs(&content).into_iter();
    manifests
        .map(|(digest, _)| (digest, true))
        .chain(blobs.map(|(digest, _)| (digest, false)))
        .collect()
}
