//! What was fetched is uploaded, however small the disk and however slow the bucket.

use super::replica;
use crate::harness::bucket::{Bucket, blob_key};
use crate::harness::content::{Image, MIB, bytes};
use crate::harness::gate::Gate;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::world::{REGISTRY, Way};

const NAME: &str = "team/app";

/// What a replica may take on disk.
const BUDGET: usize = 4 * MIB;

/// A blob of which there is room for one.
const BLOB: usize = 3 * MIB;

/// As many uploads as there are at a time.
const UPLOADS: usize = 4;

fn target(rest: &str) -> String {
    Way::Namespace.target(rest)
}

/// A registry and a bucket that takes nothing before the gate is open.
async fn world() -> (Upstream, Bucket, Gate, Setup) {
    let (upstream, bucket, gate) = (
        Upstream::start().await,
        Bucket::start().await,
        Gate::closed(),
    );
    bucket.hold("PUT", &gate);
    let setup = Setup::new().upstream(REGISTRY, &upstream).max_size(BUDGET);
    let setup = setup.shared(&bucket);
    (upstream, bucket, gate, setup)
}

/// Has every upload wait at the gate with something else than a blob.
async fn occupy(upstream: &Upstream, mirror: &Mirror, gate: &Gate) {
    for tag in ["v1", "v2", "v3", "v4"] {
        upstream.put_image(NAME, tag, &Image::new(9));
        let path = target(&format!("{NAME}/manifests/{tag}"));
        mirror.get(&path).await.expect(200);
    }
    gate.reached_by(UPLOADS).await;
}

/// Pulls a blob, and lets enough time pass for it to go. Gives its digest.
async fn pull(upstream: &Upstream, mirror: &Mirror, seed: u64) -> String {
    let content = bytes(seed, BLOB);
    let digest = upstream.put_blob(NAME, content.clone());
    let path = target(&format!("{NAME}/blobs/{digest}"));
    assert_eq!(mirror.get(&path).await.expect(200), content);
    while !mirror
        .metrics()
        .await
        .contains("\nentrepot_inflight_fills 0\n")
    {
        tokio::task::yield_now().await;
    }
    mirror.clock.advance(61);
    digest
}

async fn dropped(mirror: &Mirror) -> Vec<String> {
    let metrics = mirror.metrics().await;
    let lines = metrics.lines();
    lines
        .filter(|line| line.starts_with("entrepot_shared_dropped_total"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn what_there_is_no_room_for_is_uploaded_before_it_goes() {
    let (upstream, bucket, gate, setup) = world().await;
    let mirror = replica(&setup).await;
    occupy(&upstream, &mirror, &gate).await;
    let first = pull(&upstream, &mirror, 1).await;
    let second = pull(&upstream, &mirror, 2).await;
    assert!(
        mirror.has(&first) && !mirror.has(&second),
        "what is there stays until it is uploaded"
    );
    gate.open();
    mirror.wait_until_uploaded().await;
    assert_eq!(dropped(&mirror).await, [] as [String; 0]);
    for (digest, seed) in [(&first, 1), (&second, 2)] {
        assert_eq!(bucket.object(&blob_key(digest)), Some(bytes(seed, BLOB)));
    }
    // Then it goes as ever.
    let third = pull(&upstream, &mirror, 3).await;
    assert!(mirror.has(&third) && !mirror.has(&first));
}

#[tokio::test]
async fn what_a_restart_finds_still_to_be_uploaded_stays_until_then() {
    let (upstream, bucket, gate, setup) = world().await;
    let mut mirror = replica(&setup).await;
    occupy(&upstream, &mirror, &gate).await;
    let first = pull(&upstream, &mirror, 1).await;
    mirror.stop().await;
    let arrived = 2 * UPLOADS;
    let mirror = mirror.start_again().await;
    gate.reached_by(arrived).await;
    mirror.clock.advance(3600);
    let second = pull(&upstream, &mirror, 2).await;
    gate.open();
    mirror.wait_until_uploaded().await;
    for digest in [&first, &second] {
        assert!(bucket.object(&blob_key(digest)).is_some());
    }
}

#[tokio::test]
async fn a_bucket_that_takes_less_than_comes_in_is_waited_for_once() {
    let (upstream, bucket, gate, setup) = world().await;
    let mirror = replica(&setup).await;
    occupy(&upstream, &mirror, &gate).await;
    let first = pull(&upstream, &mirror, 1).await;
    let second = pull(&upstream, &mirror, 2).await;
    // There is room neither on disk nor on the way: this one waits until uploads give way, and the others do not.
    for seed in 3..6 {
        let digest = pull(&upstream, &mirror, seed).await;
        assert!(mirror.has(&digest), "it is kept, as without a bucket");
    }
    gate.open();
    mirror.wait_until_uploaded().await;
    assert_eq!(bucket.object(&blob_key(&second)), None);
    assert_eq!(bucket.object(&blob_key(&first)), None);
    let dropped = dropped(&mirror).await;
    assert!(
        dropped.contains(&r#"entrepot_shared_dropped_total{reason="no_room"} 1"#.to_owned()),
        "it says so: {dropped:?}"
    );
}
