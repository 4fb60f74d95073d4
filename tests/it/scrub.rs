//! F30: what the disk has changed by itself is found by reading it once more, taken away, and fetched again.

use std::fs::{self, FileTimes, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::harness::content::{bytes, sha256};
use crate::harness::mirror::Mirror;
use crate::harness::world::World;

const LENGTH: usize = 300_000;

fn target(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

/// Flips a bit as a disk does: nothing else shows it.
fn flip_a_bit(path: &Path) {
    let before = fs::metadata(path).expect("it is stored");
    let times = FileTimes::new()
        .set_accessed(before.accessed().expect("a time"))
        .set_modified(before.modified().expect("a time"));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("it is ours");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1000).expect("it is a file");
    file.write_all_at(&[byte[0] ^ 1], 1000).expect("it is ours");
    file.set_times(times).expect("it is ours");
}

async fn wait_for_line(mirror: &Mirror, line: &str) {
    while !mirror.metrics().await.lines().any(|found| found == line) {
        tokio::task::yield_now().await;
    }
}

/// The first byte of a digest: the part of the cache in which it is.
fn part_of(digest: &str) -> u8 {
    let hex = digest.strip_prefix("sha256:").expect("a digest");
    u8::from_str_radix(&hex[..2], 16).expect("hex")
}

/// The mirror of `world` again, on the same directory, where the part of `digest` is the next to be read.
async fn start_again_before(world: &mut World, digest: &str) {
    world.mirror.stop().await;
    let position = world.mirror.directory.path().join(POSITION);
    let part = part_of(digest).wrapping_sub(1);
    fs::write(position, format!(r#"{{"part":{part},"begun":0}}"#)).expect("ours");
    world.mirror = world.mirror.start_again().await;
}

const POSITION: &str = "v1/scrub.json";

/// A look through the cache that takes so long that one part is read while a test runs: the one that is overdue.
const EVERY: &str = "7d";

#[tokio::test]
async fn a_bit_that_flipped_is_found_and_the_blob_is_fetched_again() {
    let mut world = World::with(|setup| setup.scrub_every(EVERY)).await;
    let content = bytes(1, LENGTH);
    let digest = world.upstream.put_blob("team/app", content.clone());
    world.mirror.get(&target(&digest)).await.expect(200);
    world.mirror.wait_until_stored(&digest).await;
    flip_a_bit(&world.mirror.path_of(&digest));
    start_again_before(&mut world, &digest).await;
    wait_for_line(&world.mirror, "entrepot_scrub_mismatches_total 1").await;
    assert!(!world.mirror.has(&digest));
    let quarantined: Vec<_> = fs::read_dir(world.mirror.directory.path().join("v1/quarantine"))
        .expect("it is there")
        .map(|entry| entry.expect("listed").path())
        .collect();
    assert_eq!(quarantined.len(), 1, "{quarantined:?}");
    let kept = fs::read(&quarantined[0]).expect("readable");
    assert_ne!(sha256(&kept), digest, "it is what was wrong");

    let requests = || world.upstream.requests("GET", &target(&digest)).len();
    assert_eq!(requests(), 1);
    let again = world.mirror.get(&target(&digest)).await;
    assert_eq!(again.expect(200), content);
    assert_eq!(requests(), 2);
}

#[tokio::test]
async fn whoever_reads_what_is_taken_away_reads_on() {
    let world = World::new().await;
    let content = bytes(1, LENGTH);
    let digest = world.upstream.put_blob("team/app", content.clone());
    world.mirror.get(&target(&digest)).await.expect(200);
    world.mirror.wait_until_stored(&digest).await;
    let local = entrepot::storage::Local::open(world.mirror.directory.path()).expect("ours");
    let blob = local
        .blob(&digest.parse().expect("a digest"))
        .expect("readable")
        .expect("there");
    flip_a_bit(&world.mirror.path_of(&digest));
    let scrubbed = entrepot::cache::scrub(&local, None, |_, _| {}).await;
    assert_eq!((scrubbed.right, scrubbed.wrong), (0, 1));
    let mut read = vec![0; LENGTH];
    blob.file.read_exact_at(&mut read, 0).expect("still there");
}

#[tokio::test]
async fn the_bytes_it_reads_are_counted_and_it_goes_on_where_it_was() {
    let mut world = World::with(|setup| setup.scrub_every(EVERY)).await;
    let digest = world.upstream.put_blob("team/app", bytes(1, LENGTH));
    world.mirror.get(&target(&digest)).await.expect(200);
    world.mirror.wait_until_stored(&digest).await;
    start_again_before(&mut world, &digest).await;
    let read = format!("entrepot_scrubbed_bytes_total {LENGTH}");
    wait_for_line(&world.mirror, &read).await;
    let position = fs::read_to_string(world.mirror.directory.path().join(POSITION));
    let part = format!(r#"{{"part":{},"#, part_of(&digest));
    assert!(position.expect("it is kept").starts_with(&part));
    world.upstream.stop().await;
    world.mirror.get(&target(&digest)).await.expect(200);
}
