//! Every registry speaks for itself: what one says of a digest is nothing to those who asked another.

use crate::harness::client::{Connection, Ending, Request};
use crate::harness::content::{
    DOCKER_IMAGE, Image, KIB, MIB, Manifest, OCI_IMAGE, OCI_INDEX, bytes,
};
use crate::harness::gate::Gate;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Body, Declared, Upstream};
use crate::harness::world::World;

/// An honest registry, a hostile one, and a mirror of both.
async fn honest_and_hostile() -> (Upstream, Upstream, Mirror) {
    let (honest, hostile) = (Upstream::start().await, Upstream::start().await);
    let setup = Setup::new().upstream("registry.example", &honest);
    let mirror = setup.upstream("hostile.example", &hostile).start().await;
    (honest, hostile, mirror)
}

#[tokio::test]
async fn another_registry_cannot_set_the_type_of_a_manifest() {
    let (honest, hostile, mirror) = honest_and_hostile().await;
    let bytes = r#"{"schemaVersion":2,"manifests":[]}"#;
    let digest = honest.put_manifest("team/app", "v1", &Manifest::new(OCI_INDEX, bytes));
    hostile.put_manifest("x/y", "v1", &Manifest::new(DOCKER_IMAGE, bytes));
    for round in 0..2 {
        for reference in ["v1", &digest] {
            let answer = mirror
                .get(&format!("/v2/team/app/manifests/{reference}"))
                .await;
            let found = answer.header("Content-Type");
            assert_eq!(found, Some(OCI_INDEX), "{reference}, round {round}");
        }
        let elsewhere = mirror.get("/v2/x/y/manifests/v1?ns=hostile.example").await;
        elsewhere.expect(200);
    }
}

#[tokio::test]
async fn another_registry_cannot_make_a_blob_unknown() {
    let (honest, hostile, mirror) = honest_and_hostile().await;
    let image = Image::new(1);
    honest.put_image("team/app", "v1", &image);
    let config = &image.blobs[0];
    let as_manifest = Manifest::new(OCI_IMAGE, config.clone());
    let digest = hostile.put_manifest("x/y", "v1", &as_manifest);
    let planted = format!("/v2/x/y/manifests/{digest}?ns=hostile.example");
    mirror.get(&planted).await.expect(200);
    let answer = mirror.get(&format!("/v2/team/app/blobs/{digest}")).await;
    assert_eq!(answer.expect(200), config);
}

#[tokio::test]
async fn another_registry_cannot_lie_about_the_size_of_a_blob() {
    let (honest, hostile, mirror) = honest_and_hostile().await;
    let content = bytes(1, MIB);
    let gate = Gate::closed();
    let digest = honest.put_blob("team/app", content.clone());
    let lie = Body::new(bytes(1, 2 * MIB)).stall_at(200 * KIB, &gate);
    hostile.put_blob_as("x/y", &digest, lie);
    let asked = format!("/v2/x/y/blobs/{digest}?ns=hostile.example");
    let mut under_way = Request::get(&asked).open(mirror.address).await;
    under_way.read(10).await;
    drop(under_way);
    let target = format!("/v2/team/app/blobs/{digest}");
    let head = mirror.head(&target).await;
    let size = content.len().to_string();
    assert_eq!(head.header("Content-Length"), Some(&*size));
    let answer = mirror.get(&target).await;
    assert_eq!(answer.ending, Ending::Complete);
    assert_eq!(answer.expect(200), content);
    gate.open();
}

#[tokio::test]
async fn a_size_that_cannot_be_is_upstreams_fault() {
    let world = World::new().await;
    let gate = Gate::closed();
    let body = Body::new(bytes(1, 200 * KIB)).declare(Declared::Bytes(1 << 62));
    let body = body.stall_at(200 * KIB - 1, &gate);
    let digest = world.upstream.put_blob("team/app", body);
    let answer = world
        .mirror
        .get(&format!("/v2/team/app/blobs/{digest}"))
        .await;
    answer.expect_error(502, "UNAVAILABLE");
}

#[tokio::test]
async fn a_refused_request_says_which_registry_was_meant() {
    let world = World::new().await;
    for target in [
        "/v2/a/blobs/sha256:bad?ns=registry.example",
        "/v2/A/manifests/v1?ns=registry.example",
    ] {
        let answer = world.mirror.get(target).await;
        let echoed = answer.header("OCI-Namespace");
        assert_eq!(echoed, Some("registry.example"), "{target}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_counted() {
    let world = World::new().await;
    let gate = Gate::closed();
    let body = Body::new(bytes(1, MIB)).after(&gate);
    let digest = world.upstream.put_blob("team/app", body);
    let request = Request::get(&format!("/v2/team/app/blobs/{digest}"));
    let mut connection = Connection::open(world.mirror.address).await;
    connection.write(&request.to_bytes()).await;
    gate.reached().await;
    drop(connection);
    while !world
        .mirror
        .metrics()
        .await
        .contains("entrepot_requests_total{")
    {
        tokio::task::yield_now().await;
    }
    gate.open();
}

#[tokio::test]
async fn past_a_broken_disk_a_pull_costs_no_more_than_two_requests() {
    let world = World::new().await;
    let ingest = world.mirror.directory.path().join("v1/ingest");
    std::fs::remove_dir_all(&ingest).expect("removed");
    std::fs::write(&ingest, b"").expect("a file stands in its place");
    let content = bytes(1, 8 * MIB);
    let digest = world.upstream.put_blob("team/app", content.clone());
    let target = format!("/v2/team/app/blobs/{digest}");
    let answer = world.mirror.get(&target).await;
    let status = Some("entrepot; fwd=bypass; detail=storage-failed");
    assert_eq!(answer.header("Cache-Status"), status);
    assert_eq!(answer.expect(200), content);
    assert!(world.upstream.requests("GET", "*").len() <= 2);
}
