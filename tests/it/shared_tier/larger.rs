//! Blobs that are larger than everything a replica may keep: the bucket has them all the same, and comes first.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::replica;
use crate::access::members::{Content, HERE, Kind, Members};
use crate::harness::bucket::{Bucket, Fault, blob_key};
use crate::harness::client::{Ending, Request};
use crate::harness::content::{Image, MIB, bytes, sha256};
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Body, Declared, Upstream};
use crate::harness::world::{REGISTRY, Way};

const NAME: &str = "team/app";

fn target(rest: &str) -> String {
    Way::Namespace.target(rest)
}

fn blob(digest: &str) -> String {
    target(&format!("{NAME}/blobs/{digest}"))
}

/// A registry and a replica that may keep 1 MiB; both the registry and the bucket have a blob of 2 MiB.
async fn world() -> (Upstream, Bucket, Mirror, Bytes, String) {
    let (upstream, bucket) = (Upstream::start().await, Bucket::start().await);
    let content = bytes(1, 2 * MIB);
    let digest = upstream.put_blob(NAME, content.clone());
    bucket.put(&blob_key(&digest), content.clone());
    let setup = Setup::new().upstream(REGISTRY, &upstream).max_size(MIB);
    let mirror = replica(&setup.shared(&bucket)).await;
    (upstream, bucket, mirror, content, digest)
}

/// The bucket breaks off in the middle of a blob, and then gives nothing of it.
fn give_half(bucket: &Bucket) {
    // Asked by a fill, which finds no room, and again by the one who passes it through; whoever resumes gets nothing.
    let left = AtomicUsize::new(2);
    bucket.rule(move |method, key| {
        let is_question = method == "GET" && key.contains("/blobs/");
        is_question.then(|| {
            let order = Ordering::SeqCst;
            let is_one = left.fetch_update(order, order, |left| left.checked_sub(1));
            is_one.map_or(Fault::Status(500), |_| Fault::Cut)
        })
    });
}

#[tokio::test]
async fn a_blob_larger_than_the_budget_comes_from_the_bucket() {
    let (upstream, _bucket, mirror, content, digest) = world().await;
    let image = Image::new(1).with_layer(content.clone());
    upstream.put_image(NAME, "v1", &image);
    let path = blob(&digest);
    // Without and with a manifest that says how large it is.
    for _ in 0..2 {
        let answer = mirror.get(&path).await;
        let status = answer.header("Cache-Status").map(str::to_owned);
        assert_eq!(answer.expect(200), content);
        assert_eq!(status.as_deref(), Some("entrepot; hit; detail=shared"));
        let range = Request::get(&path).header("Range", "bytes=1000000-1999999");
        let part = mirror.send(range).await.expect(206);
        assert_eq!(part, content.slice(1_000_000..2_000_000));
        let manifest = target(&format!("{NAME}/manifests/v1"));
        mirror.get(&manifest).await.expect(200);
    }
    assert_eq!(upstream.body_bytes("/v2/team/app/blobs/*"), 0);
    assert!(!mirror.has(&digest));
}

#[tokio::test]
async fn what_the_bucket_does_not_give_of_it_comes_from_upstream() {
    let (upstream, bucket, mirror, content, digest) = world().await;
    give_half(&bucket);
    let path = blob(&digest);
    assert_eq!(mirror.get(&path).await.expect(200), content);
    let sent = upstream.body_bytes("/v2/team/app/blobs/*");
    assert!(sent > 0 && sent < content.len() as u64, "{sent}");
    // It is there no more, and then it does not answer at all.
    for fault in [Fault::Status(404), Fault::Silence] {
        bucket.rule(move |_, _| Some(fault));
        let answer = mirror.get(&path).await;
        let status = answer.header("Cache-Status").map(str::to_owned);
        assert_eq!(answer.expect(200), content);
        assert_eq!(
            status.as_deref(),
            Some("entrepot; fwd=bypass; detail=no-room")
        );
    }
}

#[tokio::test]
async fn wrong_bytes_of_it_never_come_whole_and_go_from_the_bucket() {
    let (upstream, bucket, mirror, content, digest) = world().await;
    let mut wrong = content.to_vec();
    wrong[2 * MIB - 1] ^= 1;
    bucket.put(&blob_key(&digest), wrong);
    let answer = mirror.get(&blob(&digest)).await;
    assert_eq!((answer.status, answer.ending), (200, Ending::Short));
    assert!(answer.body.len() < content.len());
    assert_eq!(bucket.object(&blob_key(&digest)), None);
    let metrics = mirror.metrics().await;
    assert!(metrics.contains(r#"entrepot_digest_mismatch_total{upstream="shared"} 1"#));
    assert_eq!(upstream.body_bytes("/v2/team/app/blobs/*"), 0);
    assert_eq!(mirror.get(&blob(&digest)).await.expect(200), content);
}

#[tokio::test]
async fn a_longer_body_of_upstream_never_makes_wrong_bytes_whole() {
    let (upstream, bucket, mirror, content, digest) = world().await;
    give_half(&bucket);
    // More than the blob has: were it believed, the end of the blob would not be the end that is held back.
    let wrong = bytes(2, 2 * MIB + 512 * 1024);
    let wrong = Body::new(wrong).declare(Declared::Chunked).without_ranges();
    upstream.put_blob_as(NAME, &digest, wrong);
    let answer = mirror.get(&blob(&digest)).await;
    assert_eq!((answer.status, answer.ending), (200, Ending::Short));
    // For what upstream sends, nothing goes from the bucket.
    assert_eq!(bucket.object(&blob_key(&digest)), Some(content));
}

#[tokio::test]
async fn wrong_bytes_of_upstream_cost_the_bucket_nothing() {
    let (upstream, bucket, mirror, content, digest) = world().await;
    give_half(&bucket);
    let wrong = Body::new(content.clone()).wrong_byte_at(2 * MIB - 1);
    upstream.put_blob_as(NAME, &digest, wrong);
    let answer = mirror.get(&blob(&digest)).await;
    assert_eq!((answer.status, answer.ending), (200, Ending::Short));
    assert_eq!(bucket.object(&blob_key(&digest)), Some(content));
}

#[tokio::test]
async fn wrong_bytes_that_cannot_be_removed_are_not_asked_for_again() {
    let (_upstream, bucket, mirror, content, digest) = world().await;
    let mut wrong = content.to_vec();
    wrong[2 * MIB - 1] ^= 1;
    bucket.put(&blob_key(&digest), wrong);
    bucket.rule(|method, _| (method == "DELETE").then_some(Fault::Status(403)));
    let answer = mirror.get(&blob(&digest)).await;
    assert_eq!((answer.status, answer.ending), (200, Ending::Short));
    assert_eq!(mirror.get(&blob(&digest)).await.expect(200), content);
}

#[tokio::test]
async fn a_private_blob_larger_than_the_budget_is_read_by_right_alone() {
    let (registry, bucket) = (Upstream::start().await, Bucket::start().await);
    let members = Members::default();
    members.admit("robot", HERE);
    members.stand(&registry);
    let content = Content::put(&registry);
    let open = Setup::new().upstream(REGISTRY, &registry).max_size(4096);
    let open = open.shared(&bucket);
    let setup = open
        .clone()
        .credentials("registry.example/team/app: { username: robot, password: pw-robot }\n");
    let digest = sha256(&content.layer);
    let key = blob_key(&digest).replace("v1/blobs", "v1/private");
    bucket.put(&key, content.layer.clone());
    let mirror = replica(&setup).await;
    let answer = mirror.send(content.request(Kind::Get, HERE)).await;
    assert_eq!(answer.expect(200), content.layer);
    assert_eq!(registry.body_bytes("/v2/team/app/blobs/*"), 0);
    let stranger = replica(&open).await;
    let answer = stranger.send(content.request(Kind::Get, HERE)).await;
    assert_eq!(answer.status, 401);
}
