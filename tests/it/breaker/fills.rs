//! Blobs that are on their way when upstream is left alone.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::is_left_alone;
use crate::harness::content::{MIB, bytes, sha256};
use crate::harness::gate::Gate;
use crate::harness::upstream::{Answer, Body, End, Seen};
use crate::harness::world::{REGISTRY, World};

#[tokio::test]
async fn a_blob_that_is_cut_waits_for_an_upstream_that_is_left_alone() {
    for status in [429, 503] {
        let world = World::new().await;
        let content = bytes(1, 2 * MIB);
        let body = Body::new(content.clone()).cut_at(MIB, End::Fin, 1);
        let digest = world.upstream.put_blob("team/app", body);
        let target = format!("/v2/team/app/blobs/{digest}");
        let refused = AtomicUsize::new(0);
        world.upstream.rule(move |request: &Seen| {
            request.header("Range")?;
            let refusal = Answer::status(status).header("Retry-After", "1");
            (refused.fetch_add(1, Ordering::Relaxed) == 0).then_some(refusal)
        });
        // Others who fail meanwhile, so that there are enough failures in a row.
        world.upstream.rule(move |request: &Seen| {
            let (_, _, reference) = request.parts()?;
            reference.starts_with("bad").then(|| Answer::status(status))
        });
        let bad: Vec<_> = (0..5)
            .map(|n| format!("/v2/team/app/manifests/bad{n}"))
            .collect();
        let pull = world.mirror.get(&target);
        let others = async {
            world.upstream.wait_until(1, "GET", &target).await;
            join_all(bad.iter().map(|target| world.mirror.get(target))).await;
        };
        let (pulled, ()) = tokio::join!(pull, others);
        assert_eq!(pulled.expect(200), content, "{status}");
        let asked = world.upstream.requests("GET", &target).len();
        assert_eq!(asked, 3, "cut, refused and resumed");
        assert!(!is_left_alone(&world).await);
    }
}

#[tokio::test]
async fn many_blobs_that_wait_for_the_same_upstream_all_come() {
    let world = World::new().await;
    let contents: Vec<_> = (0..8).map(|n| bytes(n, MIB)).collect();
    let cut = |content: &bytes::Bytes| Body::new(content.clone()).cut_at(MIB / 2, End::Fin, 1);
    let targets: Vec<_> = contents
        .iter()
        .map(|content| {
            let digest = world.upstream.put_blob("team/app", cut(content));
            format!("/v2/team/app/blobs/{digest}")
        })
        .collect();
    let refused = AtomicUsize::new(0);
    world.upstream.rule(move |request: &Seen| {
        request.header("Range")?;
        let refusal = Answer::error(429, "X").header("Retry-After", "1");
        (refused.fetch_add(1, Ordering::Relaxed) == 0).then_some(refusal)
    });
    let pulls = join_all(targets.iter().map(|target| world.mirror.get(target)));
    for (answer, content) in pulls.await.into_iter().zip(contents) {
        assert_eq!(answer.expect(200), content);
    }
}

#[tokio::test]
async fn a_blob_goes_on_that_is_on_its_way_when_its_registry_is_left_alone() {
    let store = crate::harness::upstream::Upstream::start_on("127.0.0.2").await;
    let world = World::new().await;
    let content = bytes(1, 2 * MIB);
    let digest = sha256(&content);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(MIB, &gate);
    store.put_file(&format!("/files/{digest}"), body);
    world.upstream.put_blob("team/app", content.clone());
    world
        .upstream
        .redirect_blobs(307, &store.url("/files"), "?sig=1");
    let target = format!("/v2/team/app/blobs/{digest}");
    let limited = async {
        gate.reached().await;
        let limited = Answer::error(429, "X").header("Retry-After", "600");
        world.upstream.answer("/v2/*", limited);
        let missing = world.mirror.get("/v2/team/app/manifests/v1").await;
        missing.expect_error(429, "TOOMANYREQUESTS");
        gate.open();
    };
    let (answer, ()) = tokio::join!(world.mirror.get(&target), limited);
    assert_eq!(answer.expect(200), content);
    assert!(is_left_alone(&world).await);
    assert_eq!(world.upstream.requests("GET", &target).len(), 1);
}

#[test]
fn limits_that_make_no_sense_are_all_reported() {
    let urls = ["http://127.0.0.1:1".to_owned()];
    for (connections, per_blob) in [("0", "0"), ("-1", "33"), ("513", "many"), ("1.5", "1e1")] {
        let limits =
            format!("limits: {{ connections: {connections}, connections_per_blob: {per_blob} }}");
        let setup = crate::harness::mirror::Setup::new();
        let problems = setup.endpoints(REGISTRY, &urls, &limits).check();
        let problems = problems.expect_err("neither is a number of connections");
        assert!(
            problems.contains("must be a number from 1 to 512"),
            "{problems}"
        );
        assert!(
            problems.contains("must be a number from 1 to 32"),
            "{problems}"
        );
    }
}

#[tokio::test]
async fn as_many_blobs_are_on_their_way_as_the_operator_says() {
    let upstream = crate::harness::upstream::Upstream::start().await;
    let setup = crate::harness::mirror::Setup::new();
    let limits = "limits: { connections: 2, connections_per_blob: 1 }";
    let mirror = setup
        .upstream_with(REGISTRY, &upstream, limits)
        .start()
        .await;
    let gate = Gate::closed();
    let targets: Vec<_> = (0..6)
        .map(|n| {
            let body = Body::new(bytes(n, MIB)).stall_at(MIB / 2, &gate);
            let digest = upstream.put_blob("team/app", body);
            format!("/v2/team/app/blobs/{digest}")
        })
        .collect();
    let pulls = join_all(targets.iter().map(|target| mirror.get(target)));
    let open = async {
        gate.reached_by(2).await;
        gate.open();
    };
    for answer in tokio::join!(pulls, open).0 {
        answer.expect(200);
    }
    assert_eq!(upstream.sent_at_once(), 2);
}
