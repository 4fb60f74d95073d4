//! The directory is the whole state: what is in it is served after a restart, and what is taken out of it is fetched
//! again.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FlockOperation;
use tempfile::TempDir;

use crate::harness::client::Request;
use crate::harness::content::{Image, MIB, bytes, sha256};
use crate::harness::gate::Gate;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Body, Upstream};
use crate::harness::world::{REGISTRY, Way, World};

fn blob(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

#[tokio::test]
async fn what_was_pulled_is_served_after_a_restart() {
    let mut world = World::new().await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    let pull = |rest: &str| Way::Default.target(rest);
    world.mirror.pull(pull, "team/app", "v1", &image).await;
    world.mirror.stop().await;
    world.upstream.stop().await;
    for _ in 0..2 {
        let mut mirror = world.mirror.start_again().await;
        mirror.pull(pull, "team/app", "v1", &image).await;
        let tag = mirror.get("/v2/team/app/manifests/v1").await;
        assert_eq!(tag.header("Cache-Status"), Some("entrepot; hit"));
        assert_eq!(tag.expect(200), image.manifest.bytes);
        mirror.stop().await;
    }
}

#[tokio::test]
async fn a_tag_grows_old_over_a_restart() {
    let mut world = World::new().await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    world
        .mirror
        .get("/v2/team/app/manifests/v1")
        .await
        .expect(200);
    world.mirror.stop().await;
    world.upstream.stop().await;
    let mirror = world.mirror.start_again().await;
    mirror.clock.advance(16 * 60);
    let answer = mirror.get("/v2/team/app/manifests/v1").await;
    assert!(answer.header("Warning").is_some(), "{answer:?}");
    answer.expect(200);
}

#[tokio::test]
async fn a_manifest_is_still_no_blob_after_a_restart() {
    let mut world = World::new().await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    world
        .mirror
        .get("/v2/team/app/manifests/v1")
        .await
        .expect(200);
    world.mirror.stop().await;
    let mirror = world.mirror.start_again().await;
    let as_blob = blob(&image.manifest.digest());
    mirror.get(&as_blob).await.expect_error(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn leftovers_are_removed_at_start_unless_somebody_holds_them() {
    let upstream = Upstream::start().await;
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let ingest = directory.path().join("v1/ingest");
    fs::create_dir_all(&ingest).expect("a directory");
    let name = |n: u8| ingest.join(format!("{}.{n:016x}", "a".repeat(64)));
    for n in 0..3 {
        fs::write(name(n), b"half").expect("a file");
    }
    let held = fs::File::open(name(1)).expect("a file");
    rustix::fs::flock(&held, FlockOperation::LockExclusive).expect("a lock");
    let setup = Setup::new().upstream(REGISTRY, &upstream);
    let _mirror = setup.start_on(directory).await;
    assert!(!name(0).exists() && !name(2).exists(), "nobody holds these");
    assert!(
        name(1).exists(),
        "another process is still filling this one"
    );
}

#[tokio::test]
async fn a_killed_fill_leaves_nothing_under_a_final_name() {
    let upstream = Upstream::start().await;
    let content = bytes(1, 4 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(3 * MIB, &gate);
    let digest = upstream.put_blob("team/app", body);
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let setup = Setup::new().upstream(REGISTRY, &upstream);
    let mut mirror = setup.start_apart(directory).await;
    let mut pull = Request::get(&blob(&digest)).open(mirror.address).await;
    pull.read(2 * MIB).await;
    gate.reached().await;
    mirror.kill().await;
    assert!(!mirror.has(&digest));
    drop(pull);

    gate.open();
    let mirror = mirror.start_again().await;
    let leftovers: Vec<_> = mirror
        .files()
        .into_iter()
        .filter(|(path, _)| path.starts_with("v1/ingest"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
    assert_eq!(mirror.get(&blob(&digest)).await.expect(200), content);
}

/// What `find DIR -mindepth 1 -delete` does.
fn empty(directory: &Path) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            fs::remove_dir_all(path).expect("it goes");
        } else {
            fs::remove_file(path).expect("it goes");
        }
    }
}

#[tokio::test]
async fn a_directory_that_is_emptied_costs_misses() {
    let world = World::new().await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    let pull = |rest: &str| Way::Default.target(rest);
    for _ in 0..3 {
        world.mirror.pull(pull, "team/app", "v1", &image).await;
        for stored in &image.blobs {
            world.mirror.wait_until_stored(&sha256(stored)).await;
        }
        empty(world.mirror.directory.path());
    }
    // Each blob was fetched each time.
    let fetched = world.upstream.requests("GET", "/v2/team/app/blobs/*").len();
    assert_eq!(fetched, 3 * image.blobs.len());
}

#[tokio::test]
async fn a_directory_that_is_emptied_during_a_fill_harms_nobody() {
    let world = World::new().await;
    let content = bytes(1, 4 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(2 * MIB, &gate);
    let digest = world.upstream.put_blob("team/app", body);
    let target = blob(&digest);
    let mut pull = Request::get(&target).open(world.mirror.address).await;
    let first = pull.read(MIB).await;
    gate.reached().await;
    empty(world.mirror.directory.path());
    gate.open();
    let rest = pull.finish().await.expect(200);
    assert_eq!([first, rest].concat(), content);
    assert_eq!(world.mirror.get(&target).await.expect(200), content);
}

#[tokio::test]
async fn a_blob_that_is_removed_while_it_is_read_is_read_to_its_end() {
    let world = World::new().await;
    let content = bytes(1, 8 * MIB);
    let digest = world.upstream.put_blob("team/app", content.clone());
    let target = blob(&digest);
    world.mirror.get(&target).await.expect(200);
    world.mirror.wait_until_stored(&digest).await;
    let mut pull = Request::get(&target).open(world.mirror.address).await;
    let first = pull.read(1000).await;
    empty(world.mirror.directory.path());
    let rest = pull.finish().await.expect(200);
    assert_eq!([first, rest].concat(), content);
}

#[tokio::test]
async fn two_mirrors_share_a_directory() {
    let world = World::new().await;
    let content = bytes(1, 4 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(2 * MIB, &gate);
    let digest = world.upstream.put_blob("team/app", body);
    let target = blob(&digest);
    let mut pull = Request::get(&target).open(world.mirror.address).await;
    let first = pull.read(MIB).await;
    gate.reached().await;
    // The second starts while the first is filling, and cleans up only what is nobody's.
    let second = world.mirror.start_again().await;
    gate.open();
    let rest = pull.finish().await.expect(200);
    assert_eq!([first, rest].concat(), content);
    world.mirror.wait_until_stored(&digest).await;
    world.upstream.stop().await;
    assert_eq!(second.get(&target).await.expect(200), content);
}

#[tokio::test]
async fn a_record_that_is_damaged_is_a_miss() {
    let mut world = World::new().await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    let target = "/v2/team/app/manifests/v1";
    for damage in [&b""[..], b"{", b"null", b"[[[[", &[0xff; 4096]] {
        world.mirror.get(target).await.expect(200);
        world.mirror.stop().await;
        for (path, _) in world.mirror.files() {
            let is_record = path.starts_with("v1/tags") || path.starts_with("v1/manifests");
            if is_record {
                fs::write(world.mirror.directory.path().join(path), damage).expect("a file");
            }
        }
        world.mirror = world.mirror.start_again().await;
        assert_eq!(
            world.mirror.get(target).await.expect(200),
            image.manifest.bytes
        );
    }
}
