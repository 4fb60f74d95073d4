//! C-55: pulls of large images that nobody needs fill no disk, and push out nothing that is used.

use std::fs;
use std::path::Path;

use futures_util::future::join_all;

use crate::harness::content::{KIB, MIB, bytes};
use crate::harness::upstream::{Body, Declared};
use crate::harness::world::World;

/// What the cache may take.
const BUDGET: usize = 8 * MIB;

fn target(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

/// What the files below a directory take, in bytes.
fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[tokio::test]
async fn c55_a_flood_of_large_blobs_stays_within_the_budget_and_leaves_what_is_used() {
    let world = World::with(|setup| setup.max_size(BUDGET)).await;
    let mirror = &world.mirror;
    let used = world.upstream.put_blob("team/app", bytes(0, 500 * KIB));
    for _ in 0..3 {
        mirror.get(&target(&used)).await.expect(200);
        mirror.wait_until_stored(&used).await;
        mirror.clock.advance(61);
    }
    for round in 1..7 {
        let flood = (0..4).map(|n| {
            let content = bytes(round * 10 + n, MIB);
            let digest = world.upstream.put_blob("team/app", content.clone());
            async move {
                let answer = mirror.get(&target(&digest)).await;
                assert_eq!(answer.expect(200), content, "it is served all the same");
            }
        });
        join_all(flood).await;
        while !mirror
            .metrics()
            .await
            .contains("\nentrepot_inflight_fills 0\n")
        {
            tokio::task::yield_now().await;
        }
        let below = |name: &str| bytes_below(&mirror.directory.path().join("v1").join(name));
        assert!(below("blobs") <= BUDGET as u64, "{}", below("blobs"));
        assert_eq!(below("ingest"), 0);
        mirror.clock.advance(61);
    }
    assert!(mirror.has(&used), "it was used again and again");
}

#[tokio::test]
async fn c55_a_blob_that_is_said_to_be_larger_than_any_layer_takes_no_room() {
    let world = World::with(|setup| setup.max_size(BUDGET)).await;
    let body = Body::new(bytes(1, 100 * KIB)).declare(Declared::Bytes(1 << 50));
    let digest = world.upstream.put_blob("team/app", body);
    let _ = world.mirror.get(&target(&digest)).await;
    let below = bytes_below(&world.mirror.directory.path().join("v1/ingest"));
    assert_eq!(below, 0);
    // Whoever is next has all of it.
    let content = bytes(2, 2 * MIB);
    let next = world.upstream.put_blob("team/app", content.clone());
    assert_eq!(world.mirror.get(&target(&next)).await.expect(200), content);
    world.mirror.wait_until_stored(&next).await;
}
