//! What is answered on the spot, without waiting for anything, and what is not.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use entrepot::http::{Answer, Caller, Service as _};

use crate::harness::content::{Image, MIB, bytes};
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::world::World;

const TAG: &str = "/v2/team/app/manifests/v1";

/// The status of the answer that the mirror has at hand; `None` where it would have to wait.
fn at_hand(mirror: &Mirror, method: &str, target: &str, headers: &[(&str, &str)]) -> Option<u16> {
    let mut request = hyper::Request::builder().method(method).uri(target);
    for (name, value) in [("host", "mirror")].iter().chain(headers) {
        request = request.header(*name, *value);
    }
    let caller = Caller {
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        listener: 0,
        is_encrypted: false,
        client: None,
    };
    let request = Arc::new(request.body(()).expect("a request"));
    let caller = Arc::new(caller);
    if let Some(response) = mirror.registry.at_hand(&request, &caller) {
        return Some(response.status().as_u16());
    }
    match mirror.registry.call(request, caller) {
        Answer::Here(response) => Some(response.status().as_u16()),
        Answer::Later(_) => None,
    }
}

#[tokio::test]
async fn what_was_asked_for_before_is_at_hand() {
    let world = World::new().await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    // No manifest names it.
    let digest = world.upstream.put_blob("team/app", bytes(1, 5 * MIB));
    let manifest = format!("/v2/team/app/manifests/{}", image.manifest.digest());
    let blob = format!("/v2/team/app/blobs/{digest}");
    let mirror = &world.mirror;
    for target in [&*blob, TAG, &*manifest] {
        if target != manifest {
            assert_eq!(at_hand(mirror, "GET", target, &[]), None, "{target}");
        }
        mirror.get(target).await.expect(200);
        if target == blob {
            mirror.wait_until_stored(&digest).await;
            // Who finds it on disk keeps it open.
            mirror.get(target).await.expect(200);
        }
        for method in ["GET", "HEAD"] {
            assert_eq!(at_hand(mirror, method, target, &[]), Some(200), "{target}");
        }
        let known = [("if-none-match", "*")];
        assert_eq!(
            at_hand(mirror, "GET", target, &known),
            Some(304),
            "{target}"
        );
    }
    let part = [("range", "bytes=1-2")];
    assert_eq!(at_hand(mirror, "GET", &blob, &part), Some(206));
    let beyond = [("range", "bytes=9999999-")];
    assert_eq!(at_hand(mirror, "GET", &blob, &beyond), Some(416));
    let other = [("accept", "application/vnd.example+json")];
    assert_eq!(at_hand(mirror, "GET", TAG, &other), Some(404));
}

#[tokio::test]
async fn who_has_to_ask_upstream_waits() {
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    let mirror = &world.mirror;
    mirror.get(TAG).await.expect(200);
    assert_eq!(at_hand(mirror, "GET", TAG, &[]), Some(200));
    mirror.clock.advance(16 * 60);
    assert_eq!(at_hand(mirror, "GET", TAG, &[]), None, "it is not fresh");
    for target in ["/v2/team/app/manifests/v2", "/v2/team/app/tags/list"] {
        assert_eq!(at_hand(mirror, "GET", target, &[]), None, "{target}");
    }
}

#[tokio::test]
async fn who_has_to_show_a_right_waits() {
    let upstream = Upstream::start().await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    let mirror = Setup::new()
        .upstream_with("registry.example", &upstream, "access: verify")
        .start()
        .await;
    mirror.get(TAG).await.expect(200);
    assert_eq!(at_hand(&mirror, "GET", TAG, &[]), None);
}

#[tokio::test]
async fn what_is_wrong_is_told_at_once() {
    let world = World::new().await;
    for (method, target, status) in [
        ("GET", "/", 404),
        ("PUT", TAG, 405),
        ("GET", "/v2/team/app/blobs/sha256:x", 400),
    ] {
        let answer = at_hand(&world.mirror, method, target, &[]);
        assert_eq!(answer, Some(status), "{method} {target}");
    }
}

#[tokio::test]
async fn what_was_read_as_a_blob_may_be_a_manifest_all_the_same() {
    let world = World::new().await;
    let manifest = Image::new(1).manifest;
    let digest = world.upstream.put_blob("team/app", manifest.bytes.clone());
    let blob = format!("/v2/team/app/blobs/{digest}");
    world.mirror.get(&blob).await.expect(200);
    world.upstream.stop().await;
    let manifest = format!("/v2/team/app/manifests/{digest}");
    let answer = world.mirror.get(&manifest).await;
    assert_eq!(answer.status, 502, "an outage is no answer");
}
