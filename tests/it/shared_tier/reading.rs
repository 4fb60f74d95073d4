//! What one replica has fetched another has, too: with an empty disk, and with the upstream gone.

use super::{replica, world};
use crate::harness::bucket::blob_key;
use crate::harness::client::Request;
use crate::harness::content::{Image, MIB, bytes, sha256};
use crate::harness::mirror::Mirror;
use crate::harness::world::Way;

const NAME: &str = "team/app";

fn target(rest: &str) -> String {
    Way::Namespace.target(rest)
}

fn detail(answer: &crate::harness::client::Answer) -> &str {
    answer.header("Cache-Status").unwrap_or_default()
}

async fn pull(mirror: &Mirror, image: &Image) {
    mirror.pull(target, NAME, "v1", image).await;
}

#[tokio::test]
async fn a_replica_with_an_empty_disk_serves_everything_while_upstream_is_down() {
    let (upstream, bucket, setup) = world().await;
    let image = Image::new(1);
    upstream.put_image(NAME, "v1", &image);
    let first = replica(&setup).await;
    pull(&first, &image).await;
    first
        .get(&target(&format!("{NAME}/tags/list")))
        .await
        .expect(200);
    bucket.wait_for("blobs", image.blobs.len()).await;
    bucket.wait_for("documents", 1).await;
    bucket.wait_for("manifests", 1).await;
    bucket.wait_for("tags", 1).await;
    bucket.wait_for("lists", 1).await;
    first.wait_until_uploaded().await;
    upstream.stop().await;

    let second = replica(&setup).await;
    for blob in &image.blobs {
        let path = target(&format!("{NAME}/blobs/{}", sha256(blob)));
        let head = second.head(&path).await;
        assert_eq!(
            head.header("Content-Length"),
            Some(&*blob.len().to_string())
        );
        assert_eq!(detail(&head), "entrepot; hit; detail=shared");
        let answer = second.get(&path).await;
        assert_eq!(detail(&answer), "entrepot; hit; detail=shared");
        assert_eq!(answer.expect(200), *blob);
        second.wait_until_stored(&sha256(blob)).await;
        let again = second.get(&path).await;
        assert_eq!(detail(&again), "entrepot; hit", "it is here now");
    }
    pull(&second, &image).await;
    second
        .get(&target(&format!("{NAME}/tags/list")))
        .await
        .expect(200);
    let manifest = image.manifest.digest();
    let as_blob = second
        .get(&target(&format!("{NAME}/blobs/{manifest}")))
        .await;
    assert_eq!(as_blob.status, 404, "a manifest is no blob: {as_blob:?}");
    // Nothing that came from there goes there again.
    second.wait_until_uploaded().await;
    assert!(
        second
            .metrics()
            .await
            .contains("\nentrepot_shared_sent_bytes_total 0\n")
    );
}

#[tokio::test]
async fn a_large_blob_goes_in_parts_and_is_read_by_range() {
    let (upstream, bucket, setup) = world().await;
    let content = bytes(7, 9 * MIB + 5);
    let digest = upstream.put_blob(NAME, content.clone());
    let path = target(&format!("{NAME}/blobs/{digest}"));
    let first = replica(&setup).await;
    assert_eq!(first.get(&path).await.expect(200), content);
    bucket.wait_for("blobs", 1).await;
    first.wait_until_uploaded().await;
    assert_eq!(bucket.object(&blob_key(&digest)).as_ref(), Some(&content));
    assert_eq!(bucket.unfinished(), 0);
    upstream.stop().await;

    let second = replica(&setup).await;
    let end = content.len() - 1;
    let range = Request::get(&path).header("Range", format!("bytes={}-{end}", 8 * MIB));
    let part = second.send(range).await;
    assert_eq!(part.expect(206), content.slice(8 * MIB..));
    assert_eq!(second.get(&path).await.expect(200), content);
}

#[tokio::test]
async fn f40_two_replicas_that_miss_at_once_cost_one_upstream_body_each_and_make_one_object() {
    let (upstream, bucket, setup) = world().await;
    let content = bytes(3, 9 * MIB);
    let digest = upstream.put_blob(NAME, content.clone());
    let path = target(&format!("{NAME}/blobs/{digest}"));
    let (first, second) = (replica(&setup).await, replica(&setup).await);
    let pulls = tokio::join!(
        first.get(&path),
        second.get(&path),
        first.get(&path),
        second.get(&path)
    );
    for answer in [pulls.0, pulls.1, pulls.2, pulls.3] {
        assert_eq!(answer.expect(200), content);
    }
    bucket.wait_for("blobs", 1).await;
    first.wait_until_uploaded().await;
    second.wait_until_uploaded().await;
    assert_eq!(bucket.object(&blob_key(&digest)).as_ref(), Some(&content));
    assert_eq!(bucket.unfinished(), 0);
    let sent = upstream.body_bytes("*");
    assert!(sent <= 2 * content.len() as u64 * 101 / 100, "{sent}");
    // Whoever comes later costs none.
    let third = replica(&setup).await;
    assert_eq!(third.get(&path).await.expect(200), content);
    assert_eq!(upstream.body_bytes("*"), sent);
}
