//! Whatever goes wrong with the bucket, upstream and the own disk are there.

use super::{replica, world};
use crate::harness::bucket::{Fault, blob_key};
use crate::harness::content::{MIB, bytes};
use crate::harness::world::Way;

const NAME: &str = "team/app";

fn target(rest: &str) -> String {
    Way::Namespace.target(rest)
}

#[tokio::test]
async fn a_bucket_in_trouble_fails_no_pull_and_is_soon_left_alone() {
    for fault in [Fault::Status(503), Fault::Status(403), Fault::Silence] {
        let (upstream, bucket, setup) = world().await;
        bucket.rule(move |_, _| Some(fault));
        let mirror = replica(&setup).await;
        for n in 0..20 {
            let content = bytes(n, 100_000);
            let digest = upstream.put_blob(NAME, content.clone());
            let path = target(&format!("{NAME}/blobs/{digest}"));
            let answer = mirror.get(&path).await;
            let status = answer.header("Cache-Status").unwrap_or_default().to_owned();
            assert_eq!(answer.expect(200), content, "{fault:?}");
            assert_eq!(
                status, "entrepot; fwd=miss; stored; detail=shared-failed",
                "{fault:?}"
            );
        }
        assert!(
            bucket.requests() < 40,
            "{fault:?}: {} requests",
            bucket.requests()
        );
        let metrics = mirror.metrics().await;
        assert!(metrics.contains("\nentrepot_shared_up 0\n"), "{metrics}");
        assert_eq!(mirror.get("/readyz").await.status, 200);
    }
}

#[tokio::test]
async fn what_could_not_be_uploaded_is_after_a_restart() {
    let (upstream, mut bucket, setup) = world().await;
    bucket.stop().await;
    let content = bytes(1, 100_000);
    let digest = upstream.put_blob(NAME, content.clone());
    let path = target(&format!("{NAME}/blobs/{digest}"));
    // It starts without the bucket, too.
    let mut mirror = replica(&setup).await;
    assert_eq!(mirror.get(&path).await.expect(200), content);
    mirror.wait_until_stored(&digest).await;
    mirror.stop().await;
    bucket.resume().await;
    let again = mirror.start_again().await;
    bucket.wait_for("blobs", 1).await;
    again.wait_until_uploaded().await;
    assert_eq!(bucket.object(&blob_key(&digest)), Some(content));
    assert_eq!(upstream.body_bytes("*"), 100_000);
}

#[tokio::test]
async fn a_bucket_that_breaks_off_in_the_middle_is_followed_by_upstream() {
    let (upstream, bucket, setup) = world().await;
    let content = bytes(1, 3 * MIB);
    let digest = upstream.put_blob(NAME, content.clone());
    bucket.put(&blob_key(&digest), content.clone());
    bucket.rule(|method, _| (method == "GET").then_some(Fault::Cut));
    let mirror = replica(&setup).await;
    let path = target(&format!("{NAME}/blobs/{digest}"));
    assert_eq!(mirror.get(&path).await.expect(200), content);
    assert!(upstream.body_bytes("*") <= content.len() as u64);
}

#[tokio::test]
async fn wrong_bytes_in_the_bucket_are_never_served_whole_and_give_way_to_the_right_ones() {
    let (upstream, bucket, setup) = world().await;
    let content = bytes(1, 50_000);
    let digest = upstream.put_blob(NAME, content.clone());
    let mut wrong = content.to_vec();
    wrong[49_999] ^= 1;
    bucket.put(&blob_key(&digest), wrong);
    let mirror = replica(&setup).await;
    let path = target(&format!("{NAME}/blobs/{digest}"));
    assert_eq!(mirror.get(&path).await.expect(200), content);
    mirror.wait_until_stored(&digest).await;
    mirror.wait_until_uploaded().await;
    assert!(bucket.object(&blob_key(&digest)) == Some(content));
    let metrics = mirror.metrics().await;
    assert!(metrics.contains(r#"entrepot_digest_mismatch_total{upstream="shared"} 1"#));
}

#[tokio::test]
async fn f38_an_upload_whose_end_fails_is_made_again() {
    for fault in [Fault::ErrorIn200, Fault::Status(500), Fault::LostReply] {
        let (upstream, bucket, setup) = world().await;
        let content = bytes(1, 9 * MIB);
        let digest = upstream.put_blob(NAME, content.clone());
        let failed = std::sync::atomic::AtomicU32::new(0);
        bucket.rule(move |method, _| {
            // The first POST begins it, the second ends it, and so does the client's own repetition.
            let is_end = method == "POST"
                && (1..3).contains(&failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
            is_end.then_some(fault)
        });
        let mirror = replica(&setup).await;
        let path = target(&format!("{NAME}/blobs/{digest}"));
        assert_eq!(mirror.get(&path).await.expect(200), content);
        bucket.wait_for("blobs", 1).await;
        mirror.wait_until_uploaded().await;
        assert_eq!(
            bucket.object(&blob_key(&digest)).as_ref(),
            Some(&content),
            "{fault:?}"
        );
    }
}
