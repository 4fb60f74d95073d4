//! What an answer tells a person with curl.

use crate::harness::client::Request;
use crate::harness::content::{Image, MIB, bytes};
use crate::harness::gate::Gate;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Body, Upstream};
use crate::harness::world::World;

const TAG: &str = "/v2/team/app/manifests/v1";

#[tokio::test]
async fn a_miss_and_a_hit_are_told_apart() {
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    let digest = world.upstream.put_blob("team/app", bytes(1, 5000));
    for target in [TAG, &*format!("/v2/team/app/blobs/{digest}")] {
        let miss = world.mirror.get(target).await;
        assert_eq!(
            miss.header("Cache-Status"),
            Some("entrepot; fwd=miss; stored"),
            "{target}"
        );
        let hit = world.mirror.get(target).await;
        assert_eq!(
            hit.header("Cache-Status"),
            Some("entrepot; hit"),
            "{target}"
        );
        let hit = world.mirror.head(target).await;
        assert_eq!(
            hit.header("Cache-Status"),
            Some("entrepot; hit"),
            "{target}"
        );
    }
}

#[tokio::test]
async fn whoever_joins_a_fill_is_told() {
    let world = World::new().await;
    let gate = Gate::closed();
    let body = Body::new(bytes(1, 2 * MIB)).stall_at(MIB, &gate);
    let digest = world.upstream.put_blob("team/app", body);
    let target = format!("/v2/team/app/blobs/{digest}");
    let first = Request::get(&target).open(world.mirror.address).await;
    gate.reached().await;
    let second = Request::get(&target).open(world.mirror.address).await;
    gate.open();
    let (first, second) = (first.finish().await, second.finish().await);
    assert_eq!(
        first.header("Cache-Status"),
        Some("entrepot; fwd=miss; stored")
    );
    let joined = Some("entrepot; fwd=miss; collapsed; stored");
    assert_eq!(second.header("Cache-Status"), joined);
}

#[tokio::test]
async fn a_revalidated_tag_is_no_miss() {
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    world.mirror.get(TAG).await.expect(200);
    world.mirror.clock.advance(16 * 60);
    let answer = world.mirror.get(TAG).await;
    let status = answer.header("Cache-Status").expect("a status");
    assert!(status.starts_with("entrepot; fwd=stale"), "{status}");
}

#[tokio::test]
async fn the_age_of_a_tag_is_told() {
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    let age = async || {
        let answer = world.mirror.get(TAG).await;
        let age = answer.header("Age").expect("an age");
        age.parse::<u64>().expect("seconds")
    };
    assert_eq!(age().await, 0);
    world.mirror.clock.advance(100);
    assert!((100..110).contains(&age().await));
    world.mirror.clock.advance(500);
    assert!((600..610).contains(&age().await));
    world.mirror.clock.advance(301);
    assert!(age().await < 10, "upstream has just confirmed it");
}

#[tokio::test]
async fn what_cannot_change_has_no_age() {
    let world = World::new().await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    let target = format!("/v2/team/app/manifests/{}", image.manifest.digest());
    for _ in 0..2 {
        let answer = world.mirror.get(&target).await;
        assert_eq!(answer.header("Age"), None);
        answer.expect(200);
    }
}

#[tokio::test]
async fn the_namespace_is_told_as_it_was_asked_for() {
    let hub = Upstream::start().await;
    hub.put_image("library/nginx", "v1", &Image::new(1));
    let setup = Setup::new().upstream("docker.io", &hub);
    let mirror = setup.default_upstream("docker.io").start().await;
    for (target, told) in [
        ("/v2/nginx/manifests/v1?ns=docker.io", "docker.io"),
        (
            "/v2/nginx/manifests/v1?ns=index.docker.io",
            "index.docker.io",
        ),
        ("/v2/nginx/manifests/v1", "docker.io"),
        ("/v2/docker.io/nginx/manifests/v1", "docker.io"),
    ] {
        let answer = mirror.get(target).await;
        assert_eq!(answer.header("OCI-Namespace"), Some(told), "{target}");
    }
}

#[tokio::test]
async fn the_pages_for_operators_are_there() {
    let world = World::new().await;
    for page in ["/livez", "/readyz", "/metrics"] {
        for method in ["GET", "HEAD"] {
            let answer = Request::new(method, page).send(world.mirror.address).await;
            assert_eq!(answer.status, 200, "{method} {page}");
        }
        let answer = Request::new("POST", page).send(world.mirror.address).await;
        assert_eq!(answer.status, 405, "{page}");
    }
    assert_eq!(world.upstream.connections(), 0);
}

#[tokio::test]
async fn a10_7_every_answer_is_counted() {
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    world.mirror.get(TAG).await.expect(200);
    world.mirror.get(TAG).await.expect(200);
    world
        .mirror
        .get("/v2/team/app/manifests/v2")
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
    let metrics = world.mirror.metrics().await;
    for result in ["hit", "miss", "error"] {
        let line = format!(
            r#"entrepot_requests_total{{upstream="registry.example",kind="tag",result="{result}"}} 1"#
        );
        assert!(metrics.contains(&line), "{result}: {metrics}");
    }
}

#[tokio::test]
async fn f45_an_upstream_that_is_down_makes_nobody_unready() {
    let world = World::new().await;
    world.upstream.stop().await;
    world.mirror.get(TAG).await.expect_error(502, "UNAVAILABLE");
    for page in ["/livez", "/readyz"] {
        Request::get(page)
            .send(world.mirror.address)
            .await
            .expect(200);
    }
}
