//! What the small records say that repositories have.

use serde::Deserialize;

use super::{Place, Root};
use crate::cache::provenance::OriginFile;
use crate::oci::{Descriptor, Digest, Namespace, RepositoryName};
use crate::storage::RecordKind;

/// A record that is about a digest in a repository: that it is a manifest there, or that it is linked to it. Those that say
/// that something is a manifest have said where for some time only.
#[derive(Deserialize)]
struct AboutDigest {
    namespace: Namespace,
    repository: RepositoryName,
    digest: Digest,
}

/// A record of a tag.
#[derive(Deserialize)]
struct AboutTag {
    namespace: Namespace,
    repository: RepositoryName,
    manifest: Descriptor,
}

/// Adds what one record says to `roots`.
pub(super) fn read(kind: RecordKind, content: &[u8], roots: &mut Vec<Root>) {
    let place = |namespace, repository| Place {
        namespace,
        repository,
    };
    match kind {
        RecordKind::Manifest | RecordKind::Link => {
            let Ok(about) = serde_json::from_slice::<AboutDigest>(content) else {
                return;
            };
            let place = place(about.namespace, about.repository);
            roots.push(if kind == RecordKind::Manifest {
                Root::Manifest(place, about.digest)
            } else {
                Root::Blob(place, about.digest)
            });
        }
        RecordKind::Tag => {
            if let Ok(about) = serde_json::from_slice::<AboutTag>(content) {
                let place = place(about.namespace, about.repository);
                roots.push(Root::Manifest(place, about.manifest.digest));
            }
        }
        RecordKind::Origin => {
            if let Ok(OriginFile { repository, seen }) = serde_json::from_slice(content) {
                let seen = seen.into_iter().map(|seen| {
                    Root::Manifest(place(seen.namespace, repository.clone()), seen.manifest)
                });
                roots.extend(seen);
            }
        }
        // They are about no content.
        RecordKind::List | RecordKind::Right | RecordKind::Home => {}
    }
}
