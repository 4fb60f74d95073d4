//! Digests that are asked for without naming a registry, and under the wrong kind.

use crate::harness::content::{Image, Manifest, OCI_INDEX, sha256};
use crate::harness::mirror::Setup;
use crate::harness::upstream::Upstream;

#[tokio::test]
async fn a_digest_without_a_registry_is_found_where_it_came_from() {
    let (usual, other) = (Upstream::start().await, Upstream::start().await);
    let image = Image::new(1);
    other.put_image("team/app", "v1", &image);
    let setup = Setup::new().upstream("registry.example", &usual);
    let mut mirror = setup.upstream("other.example", &other).start().await;
    let target = "/v2/team/app/manifests/v1?ns=other.example";
    mirror.get(target).await.expect(200);
    for _ in 0..2 {
        for blob in &image.blobs {
            let target = format!("/v2/team/app/blobs/{}", sha256(blob));
            assert_eq!(mirror.get(&target).await.expect(200), *blob);
        }
        let target = format!("/v2/team/app/manifests/{}", image.manifest.digest());
        assert_eq!(mirror.get(&target).await.expect(200), image.manifest.bytes);
        assert_eq!(usual.log().len(), 0);
        // Another repository, and another digest, are the default registry's.
        let target = format!("/v2/team/b/blobs/{}", sha256(b"x"));
        mirror.get(&target).await.expect_error(404, "BLOB_UNKNOWN");
        let target = format!("/v2/team/app/blobs/{}", sha256(b"x"));
        mirror.get(&target).await.expect_error(404, "BLOB_UNKNOWN");
        assert!(!usual.log().is_empty());
        usual.forget();
        mirror.stop().await;
        mirror = mirror.start_again().await;
    }
    // Who names a registry means it.
    let target = format!("/v2/team/app/blobs/{}?ns=registry.example", sha256(b"y"));
    mirror.get(&target).await.expect_error(404, "BLOB_UNKNOWN");
    assert_eq!(usual.log().len(), 1);
}

#[tokio::test]
async fn a_name_that_the_default_registry_completes_is_found_as_it_was_written() {
    let (hub, other) = (Upstream::start().await, Upstream::start().await);
    let image = Image::new(1);
    other.put_image("pause", "3.9", &image);
    let setup = Setup::new()
        .upstream("docker.io", &hub)
        .default_upstream("docker.io");
    let mirror = setup.upstream("other.example", &other).start().await;
    mirror
        .get("/v2/pause/manifests/3.9?ns=other.example")
        .await
        .expect(200);
    let target = format!("/v2/pause/blobs/{}", sha256(&image.blobs[0]));
    assert_eq!(mirror.get(&target).await.expect(200), image.blobs[0]);
    assert_eq!(hub.log().len(), 0);
}

#[tokio::test]
async fn a_digest_of_the_other_kind_is_not_there_even_when_upstream_is_gone() {
    let registry = Upstream::start().await;
    let image = Image::new(1);
    let index = Manifest::index(OCI_INDEX, &[&image.manifest]);
    registry.put_image("team/app", "child", &image);
    registry.put_manifest("team/app", "v1", &index);
    let mirror = Setup::new()
        .upstream("registry.example", &registry)
        .start()
        .await;
    mirror.get("/v2/team/app/manifests/v1").await.expect(200);
    mirror.get("/v2/team/app/manifests/child").await.expect(200);
    mirror.wait_until_stored(&image.manifest.digest()).await;
    mirror.wait_until_stored(&index.digest()).await;
    let blob = |digest: &str| format!("/v2/team/app/blobs/{digest}");
    let manifest = |digest: &str| format!("/v2/team/app/manifests/{digest}");
    let layer = sha256(&image.blobs[1]);
    for _ in 0..2 {
        for digest in [index.digest(), image.manifest.digest()] {
            let answer = mirror.get(&blob(&digest)).await;
            answer.expect_error(404, "BLOB_UNKNOWN");
            assert_eq!(mirror.head(&blob(&digest)).await.status, 404);
        }
        let answer = mirror.get(&manifest(&layer)).await;
        answer.expect_error(404, "MANIFEST_UNKNOWN");
        registry.stop().await;
    }
    // What nobody knows to be something else is trouble.
    assert_eq!(mirror.get(&manifest(&sha256(b"x"))).await.status, 502);
}
