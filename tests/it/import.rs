//! What another cache holds is taken in: verified, within the budget, and for those whose it is.

use std::fs;
use std::path::Path;

use entrepot::cache::{Amount, Budget, ImportError, ImportRule, Imported, import};
use entrepot::storage::{Audience, Local};

use crate::harness::content::{Image, sha256};
use crate::harness::mirror::Mirror;
use crate::harness::world::{REGISTRY, Way, World};

const REPOSITORY: &str = "team/app";

/// As an OCI layout, under the tag `v1`.
fn write_layout(directory: &Path, image: &Image) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("made");
    let manifest = &image.manifest.bytes;
    for content in image.blobs.iter().chain([manifest]) {
        let digest = sha256(content);
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        fs::write(blobs.join(hex), content).expect("written");
    }
    let (media_type, digest, size) = (
        &image.manifest.media_type,
        image.manifest.digest(),
        manifest.len(),
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{media_type}","digest":"{digest}","size":{size},
        "annotations":{{"org.opencontainers.image.ref.name":"v1"}}}}]}}"#
    );
    fs::write(directory.join("index.json"), index).expect("written");
}

fn take(
    mirror: &Mirror,
    source: &Path,
    audience: Audience,
    max_size: u64,
) -> Result<Imported, ImportError> {
    let local = Local::open(mirror.directory.path()).expect("ours");
    let budget = Budget {
        max_size: Amount::Bytes(max_size),
        min_free: Amount::Bytes(0),
    };
    let rule = ImportRule {
        namespace: REGISTRY.parse().ok(),
        repository: REPOSITORY.parse().ok(),
        audience,
    };
    import(&local, budget, source, &rule, mirror.clock.now(), |_, _| {})
}

const ENOUGH: u64 = 1 << 30;

#[tokio::test]
async fn what_is_imported_for_everybody_is_served_beside_the_import_and_without_an_upstream() {
    let world = World::new().await;
    let (image, source) = (Image::new(1), tempfile::tempdir().expect("a directory"));
    write_layout(source.path(), &image);
    let imported = take(&world.mirror, source.path(), Audience::Everybody, ENOUGH);
    let imported = imported.expect("it is taken in");
    assert_eq!(
        (imported.manifests, imported.tags, imported.wrong),
        (1, 1, 0)
    );
    assert_eq!(imported.blobs, image.blobs.len() as u64);
    world.upstream.stop().await;
    let pull = |rest: &str| Way::Default.target(rest);
    world.mirror.pull(pull, REPOSITORY, "v1", &image).await;
}

#[tokio::test]
async fn what_is_imported_for_some_is_nobody_elses() {
    let world = World::new().await;
    let (image, source) = (Image::new(1), tempfile::tempdir().expect("a directory"));
    write_layout(source.path(), &image);
    take(&world.mirror, source.path(), Audience::Entitled, ENOUGH).expect("it is taken in");
    // Upstream has nothing of the kind, and that is its word.
    for rest in [
        format!("manifests/{}", image.manifest.digest()),
        format!("blobs/{}", sha256(&image.blobs[0])),
    ] {
        let target = format!("/v2/{REPOSITORY}/{rest}");
        world.mirror.get(&target).await.expect(404);
    }
    // Once it has, nothing of it is sent again.
    world.upstream.put_image(REPOSITORY, "v1", &image);
    let blob = format!("/v2/{REPOSITORY}/blobs/{}", sha256(&image.blobs[1]));
    assert_eq!(world.mirror.get(&blob).await.expect(200), image.blobs[1]);
    assert_eq!(world.upstream.requests("GET", &blob).len(), 0);
}

#[tokio::test]
async fn an_import_ends_where_the_budget_does() {
    let world = World::new().await;
    let (image, source) = (Image::new(1), tempfile::tempdir().expect("a directory"));
    write_layout(source.path(), &image);
    let room = 10_000;
    let full = take(&world.mirror, source.path(), Audience::Everybody, room);
    assert!(matches!(full, Err(ImportError::Full(10_000))), "{full:?}");
    let files = world.mirror.files();
    let blobs = files
        .iter()
        .filter(|(path, _)| path.starts_with("v1/blobs"));
    assert!(blobs.map(|(_, bytes)| bytes).sum::<u64>() <= room);
    assert!(!files.iter().any(|(path, _)| path.starts_with("v1/ingest")));
}

#[tokio::test]
async fn what_the_mirror_knows_of_a_tag_stays() {
    let world = World::new().await;
    let (old, new) = (Image::new(1), Image::new(2));
    let source = tempfile::tempdir().expect("a directory");
    write_layout(source.path(), &old);
    world.upstream.put_image(REPOSITORY, "v1", &new);
    let tag = format!("/v2/{REPOSITORY}/manifests/v1");
    world.mirror.get(&tag).await.expect(200);
    // The record is written behind the answer.
    while !world
        .mirror
        .files()
        .iter()
        .any(|(path, _)| path.starts_with("v1/tags"))
    {
        tokio::task::yield_now().await;
    }
    let imported = take(&world.mirror, source.path(), Audience::Everybody, ENOUGH);
    assert_eq!(imported.expect("it is taken in").tags, 0);
    let answer = world.mirror.get(&tag).await;
    assert_eq!(answer.expect(200), new.manifest.bytes);
}

#[tokio::test]
async fn what_is_imported_is_checked_with_its_registry_at_its_first_use() {
    let world = World::new().await;
    let (old, new) = (Image::new(1), Image::new(2));
    let source = tempfile::tempdir().expect("a directory");
    write_layout(source.path(), &old);
    world.upstream.put_image(REPOSITORY, "v1", &new);
    take(&world.mirror, source.path(), Audience::Everybody, ENOUGH).expect("it is taken in");
    let answer = world
        .mirror
        .get(&format!("/v2/{REPOSITORY}/manifests/v1"))
        .await;
    assert_eq!(answer.expect(200), new.manifest.bytes);
}
