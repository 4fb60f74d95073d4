//! C-43: what others leave in the cache directory leads nowhere else, and nothing of theirs is changed or served.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::harness::content::{Image, KIB, bytes};
use crate::harness::mirror::Mirror;
use crate::harness::world::World;

/// A directory of somebody else, with a file of theirs in it.
struct Elsewhere {
    directory: tempfile::TempDir,
}

const THEIRS: &[u8] = b"this is not for anybody";

impl Elsewhere {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("theirs"), THEIRS).expect("written");
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join("theirs")
    }

    #[track_caller]
    fn expect_untouched(&self) {
        assert_eq!(fs::read(self.file()).expect("it is there"), THEIRS);
        let n = fs::read_dir(self.path()).expect("it is there").count();
        assert_eq!(n, 1, "nothing else was put there");
    }
}

async fn pull(world: &World, mirror: &Mirror, image: &Image) {
    world.upstream.put_image("team/app", "v1", image);
    let target = |rest: &str| format!("/v2/{rest}");
    mirror.pull(target, "team/app", "v1", image).await;
}

#[tokio::test]
async fn c43_a_directory_that_is_a_link_is_not_followed() {
    for directory in [
        "v1/ingest",
        "v1/blobs",
        "v1/blobs/sha256",
        "v1/manifests",
        "v1/tags",
        "v1/links",
        "v1/quarantine",
        "v1",
    ] {
        let (world, elsewhere) = (World::new().await, Elsewhere::new());
        let planted = world.mirror.directory.path().join(directory);
        // Some are made when they are needed.
        fs::create_dir_all(&planted).expect("it is ours");
        fs::remove_dir_all(&planted).expect("it is ours");
        symlink(elsewhere.path(), &planted).expect("it is ours");
        pull(&world, &world.mirror, &Image::new(1)).await;
        elsewhere.expect_untouched();
    }
}

#[tokio::test]
async fn c43_every_shard_may_be_a_link_elsewhere() {
    let (world, elsewhere) = (World::new().await, Elsewhere::new());
    for kind in ["blobs/sha256", "manifests", "tags", "links"] {
        let above = world.mirror.directory.path().join("v1").join(kind);
        fs::create_dir_all(&above).expect("it is ours");
        for shard in 0..=255 {
            let planted = above.join(format!("{shard:02x}"));
            let _ = fs::remove_dir_all(&planted);
            symlink(elsewhere.path(), planted).expect("it is ours");
        }
    }
    pull(&world, &world.mirror, &Image::new(1)).await;
    elsewhere.expect_untouched();
}

#[tokio::test]
async fn c43_a_blob_that_is_another_name_of_a_file_elsewhere_is_neither_served_nor_changed() {
    let (world, elsewhere) = (World::new().await, Elsewhere::new());
    let content = bytes(1, 100 * KIB);
    let digest = world.upstream.put_blob("team/app", content.clone());
    let target = format!("/v2/team/app/blobs/{digest}");
    for link in [fs::hard_link::<PathBuf, PathBuf>, |from, to| {
        symlink(from, to)
    }] {
        let path = world.mirror.path_of(&digest);
        fs::create_dir_all(path.parent().expect("a directory")).expect("it is ours");
        let _ = fs::remove_file(&path);
        link(elsewhere.file(), path).expect("the same file system");
        assert_eq!(world.mirror.get(&target).await.expect(200), content);
        world.mirror.wait_until_stored(&digest).await;
        elsewhere.expect_untouched();
    }
}

#[tokio::test]
async fn c43_what_is_made_is_for_nobody_else() {
    let world = World::new().await;
    pull(&world, &world.mirror, &Image::new(1)).await;
    let mut left = vec![world.mirror.directory.path().join("v1")];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        let mode = metadata.permissions().mode() & 0o777;
        assert_eq!(mode & 0o027, 0, "{}: {mode:o}", path.display());
        if metadata.is_dir() {
            let entries = fs::read_dir(path).expect("readable").flatten();
            left.extend(entries.map(|entry| entry.path()));
        }
    }
}
