//! What counts as a change.

use super::*;
use crate::cache::evict::{Amount, Budget};
use crate::clock::Clock;
use crate::oci::{Algorithm, Namespace, RepositoryName};
use crate::storage::Audience;

/// A shelf over an empty directory.
fn shelf(directory: &tempfile::TempDir) -> Shelf {
    let storage = Local::open(directory.path()).expect("writable");
    let (behind, metrics) = (Behind::default(), Metrics::new());
    let budget = Budget {
        max_size: Amount::Percent(100),
        min_free: Amount::Percent(0),
    };
    let evictor = Evictor::start(
        storage.clone(),
        budget,
        Clock::system(),
        metrics.clone(),
        behind.clone(),
    );
    let tier = Tier::start(None, &storage, evictor.clone(), metrics.clone());
    let provenance = Provenance::new(storage.clone(), behind.clone(), metrics.clone());
    Shelf::new(storage, provenance, evictor, tier, behind, metrics)
}

fn manifest(text: &'static str) -> Arc<Manifest> {
    let bytes = Bytes::from_static(text.as_bytes());
    let media_type = "application/vnd.oci.image.index.v1+json";
    let descriptor = Descriptor {
        media_type: media_type.parse().expect("a media type"),
        digest: Digest::of(Algorithm::Sha256, &bytes),
        size: bytes.len() as u64,
    };
    Arc::new(Manifest::new(descriptor, bytes, Audience::Everybody))
}

fn repository() -> (Namespace, RepositoryName) {
    let namespace = "registry.example".parse().expect("a namespace");
    (namespace, "team/app".parse().expect("a name"))
}

fn manifest_key(manifest: &Manifest) -> ManifestKey {
    let (namespace, repository) = repository();
    ManifestKey::of(namespace, repository, manifest.descriptor.digest)
}

fn tag_key() -> TagKey {
    let (namespace, repository) = repository();
    TagKey {
        namespace,
        repository,
        tag: "v1".parse().expect("a tag"),
    }
}

#[tokio::test]
async fn a_manifest_that_comes_or_goes_is_a_change() {
    let directory = tempfile::tempdir().expect("a directory");
    let (shelf, manifest) = (shelf(&directory), manifest("{}"));
    let key = manifest_key(&manifest);
    let before = shelf.changes();
    shelf.keep(&key, &manifest);
    let kept = shelf.changes();
    assert_ne!(kept, before);
    assert!(shelf.hot(&key).is_some());
    assert_eq!(shelf.changes(), kept, "to look is none");
    shelf.forget(&key);
    assert_ne!(shelf.changes(), kept);
    assert!(shelf.hot(&key).is_none());
}

#[tokio::test]
async fn a_tag_that_points_elsewhere_or_nowhere_is_a_change_and_one_that_is_confirmed_is_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let (shelf, key) = (shelf(&directory), tag_key());
    let (one, other) = (manifest("{}"), manifest("{ }"));
    let now = Clock::system().now();
    let mut before = shelf.changes();
    let mut is_change = |change: &dyn Fn()| {
        change();
        let after = shelf.changes();
        std::mem::replace(&mut before, after) != after
    };
    assert!(is_change(&|| drop(shelf.keep_tag(
        &key,
        &one.descriptor,
        now
    ))));
    assert!(!is_change(&|| drop(shelf.keep_tag(
        &key,
        &one.descriptor,
        now
    ))));
    assert!(is_change(&|| drop(shelf.keep_tag(
        &key,
        &other.descriptor,
        now
    ))));
    assert!(is_change(&|| shelf.forget_tag(&key)));
}
