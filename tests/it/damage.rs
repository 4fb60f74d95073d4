//! F30: what strangers do to stored files costs misses: never wrong bytes, never a hang.

use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{FileType, Mode};

use crate::harness::client::Ending;
use crate::harness::content::{KIB, bytes, sha256};
use crate::harness::world::World;

/// Large enough to be no manifest, small enough for many.
const LENGTH: usize = 100 * KIB;

fn target(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

/// Pulls a blob, lets a stranger at its file, and pulls it again: from upstream, and the right bytes; and a third time,
/// from the cache.
async fn check(what: &str, damage: impl Fn(&Path)) {
    let world = World::new().await;
    let content = bytes(1, LENGTH);
    let digest = world.upstream.put_blob("team/app", content.clone());
    let requests = || world.upstream.requests("GET", &target(&digest)).len();
    world.mirror.get(&target(&digest)).await.expect(200);
    world.mirror.wait_until_stored(&digest).await;
    damage(&world.mirror.path_of(&digest));
    let again = world.mirror.get(&target(&digest)).await;
    assert_eq!(again.expect(200), content, "{what}");
    assert_eq!(requests(), 2, "{what}");
    let is_stored = || {
        fs::metadata(world.mirror.path_of(&digest))
            .is_ok_and(|file| file.is_file() && file.len() == LENGTH as u64)
    };
    while !is_stored() {
        tokio::task::yield_now().await;
    }
    world.mirror.wait_until_stored(&digest).await;
    let third = world.mirror.get(&target(&digest)).await;
    assert_eq!(
        third.header("Cache-Status"),
        Some("entrepot; hit"),
        "{what}"
    );
    assert_eq!(third.expect(200), content, "{what}");
    assert_eq!(requests(), 2, "{what}");
}

fn open(path: &Path) -> fs::File {
    OpenOptions::new()
        .write(true)
        .open(path)
        .expect("it is stored")
}

#[tokio::test]
async fn a_blob_that_was_cut_is_fetched_again() {
    check("cut", |path| {
        open(path).set_len(LENGTH as u64 / 2).expect("it is ours");
    })
    .await;
    check("cut by a byte", |path| {
        open(path).set_len(LENGTH as u64 - 1).expect("it is ours");
    })
    .await;
    check("emptied", |path| open(path).set_len(0).expect("it is ours")).await;
}

#[tokio::test]
async fn a_blob_that_was_changed_is_fetched_again() {
    check("a bit flipped", |path| {
        let mut file = open(path);
        file.seek(SeekFrom::Start(1000)).expect("it is a file");
        file.write_all(&[bytes(1, LENGTH)[1000] ^ 1])
            .expect("it is ours");
    })
    .await;
    check("zeroed", |path| {
        fs::write(path, vec![0; LENGTH]).expect("it is ours");
    })
    .await;
    check("grown", |path| {
        open(path).set_len(LENGTH as u64 + 1).expect("it is ours");
    })
    .await;
    check("another file", |path| {
        fs::remove_file(path).expect("it is ours");
        fs::write(path, bytes(2, LENGTH)).expect("it is ours");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_file_is_replaced() {
    check("a symbolic link", |path| {
        fs::remove_file(path).expect("it is ours");
        symlink("/etc/passwd", path).expect("it is ours");
    })
    .await;
    check("a FIFO", |path| {
        fs::remove_file(path).expect("it is ours");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0).expect("it is ours");
    })
    .await;
    check("a directory", |path| {
        fs::remove_file(path).expect("it is ours");
        fs::create_dir(path).expect("it is ours");
    })
    .await;
    check("a directory that is not empty", |path| {
        fs::remove_file(path).expect("it is ours");
        fs::create_dir(path).expect("it is ours");
        fs::write(path.join("file"), b"a stranger's").expect("it is ours");
    })
    .await;
}

#[tokio::test]
async fn what_stands_in_the_place_of_a_directory_is_replaced() {
    check("a file", |path| {
        let shard = path.parent().expect("a directory");
        fs::remove_dir_all(shard).expect("it is ours");
        fs::write(shard, b"a stranger's").expect("it is ours");
    })
    .await;
    check("a symbolic link", |path| {
        let blobs = path.ancestors().nth(3).expect("a directory");
        fs::remove_dir_all(blobs).expect("it is ours");
        symlink("/etc", blobs).expect("it is ours");
    })
    .await;
}

#[tokio::test]
async fn a_blob_in_the_place_of_another_is_not_taken_for_it() {
    let world = World::new().await;
    let contents = [bytes(1, LENGTH), bytes(2, LENGTH)];
    let digests = contents
        .clone()
        .map(|content| world.upstream.put_blob("team/app", content));
    for digest in &digests {
        world.mirror.get(&target(digest)).await.expect(200);
        world.mirror.wait_until_stored(digest).await;
    }
    // Same size, and its times are those of a verified blob.
    fs::rename(
        world.mirror.path_of(&digests[0]),
        world.mirror.path_of(&digests[1]),
    )
    .expect("both are ours");
    for (digest, content) in digests.iter().zip(&contents) {
        assert_eq!(
            world.mirror.get(&target(digest)).await.expect(200),
            *content
        );
    }
}

/// Writes a file with a name of its own, and no times.
fn drop_in(world: &World, digest: &str, content: &Bytes) {
    let path = world.mirror.path_of(digest);
    fs::create_dir_all(path.parent().expect("a directory")).expect("it is ours");
    fs::write(path, content).expect("it is ours");
}

#[tokio::test]
async fn a_copy_without_its_times_is_verified_and_served() {
    let world = World::new().await;
    let content = bytes(1, LENGTH);
    let digest = sha256(&content);
    drop_in(&world, &digest, &content);
    world.upstream.stop().await;
    for _ in 0..2 {
        assert_eq!(
            world.mirror.get(&target(&digest)).await.expect(200),
            content
        );
    }
    let hit = world.mirror.get(&target(&digest)).await;
    assert_eq!(hit.header("Cache-Status"), Some("entrepot; hit"));
}

#[tokio::test]
async fn what_a_stranger_drops_in_is_never_served_under_a_wrong_name() {
    let world = World::new().await;
    let content = bytes(1, LENGTH);
    let digest = sha256(&content);
    drop_in(&world, &digest, &bytes(2, LENGTH));
    let shard = world.mirror.path_of(&digest).with_file_name("readme.txt");
    fs::write(&shard, b"a stranger's").expect("it is ours");
    world.upstream.stop().await;
    let answer = world.mirror.get(&target(&digest)).await;
    assert_ne!(answer.status, 200);
    assert_eq!(answer.ending, Ending::Complete);
    assert!(!world.mirror.has(&digest), "it is gone");
    assert!(shard.exists(), "it is not ours");
}

#[tokio::test]
async fn our_group_may_delete_files_where_it_is_told_so() {
    for (line, mode) in [("no", 0o750), ("yes", 0o770)] {
        let world = World::with(|setup| setup.group_access(line)).await;
        let digest = world.upstream.put_blob("team/app", bytes(1, LENGTH));
        world.mirror.get(&target(&digest)).await.expect(200);
        world.mirror.wait_until_stored(&digest).await;
        let path = world.mirror.path_of(&digest);
        let directories = path.ancestors().skip(1).take(4);
        for directory in directories {
            let found = fs::metadata(directory)
                .expect("it is there")
                .permissions()
                .mode();
            assert_eq!(found & 0o777, mode, "{}", directory.display());
        }
    }
}
