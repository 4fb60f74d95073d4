//! C-54: what one client may have of what all share.

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::harness::client::{Connection, Request};
use crate::harness::content::{Image, MIB, bytes, sha256};
use crate::harness::gate::Gate;
use crate::harness::mirror::Mirror;
use crate::harness::upstream::{Answer, Body};
use crate::harness::world::World;

/// Another client than the one that all tests are.
const OTHER: &str = "127.0.0.2";

const HELD_UP: &str = "/v2/team/app/manifests/held-*";

fn held_up(n: usize) -> String {
    format!("/v2/team/app/manifests/held-{n}")
}

async fn status_for_other(mirror: &Mirror, target: &str) -> u16 {
    let connection = Connection::open_from(OTHER, mirror.address).await;
    let pull = connection.ask(&Request::get(target)).await;
    pull.expect("an answer").status
}

/// A world where a client may have four things under way, and an upstream that holds up some tags.
async fn world(gate: &Gate) -> World {
    let world = World::with_line("clients: { requests: 4 }").await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    world
        .upstream
        .answer(HELD_UP, Answer::error(404, "MANIFEST_UNKNOWN").after(gate));
    world
}

#[tokio::test]
async fn c54_one_client_with_too_many_misses_is_told_to_come_back_and_no_other() {
    let gate = Gate::closed();
    let world = world(&gate).await;
    let targets: Vec<_> = (0..4).map(held_up).collect();
    let misses = join_all(targets.iter().map(|target| world.mirror.get(target)));
    let meanwhile = async {
        gate.reached_by(4).await;
        for n in 4..20 {
            let answer = world.mirror.get(&held_up(n)).await;
            assert_eq!(answer.header("Retry-After"), Some("5"), "{answer:?}");
            let said = answer.expect_error(429, "TOOMANYREQUESTS");
            assert!(said.contains("clients.requests"), "{said}");
        }
        let refused = "\nentrepot_client_refusals_total 16\n";
        assert!(world.mirror.metrics().await.contains(refused));
        // Nobody asked upstream for those, and another client is served.
        assert_eq!(world.upstream.log().len(), 4);
        assert_eq!(
            status_for_other(&world.mirror, "/v2/team/app/manifests/v1").await,
            200
        );
        gate.open();
    };
    for answer in tokio::join!(misses, meanwhile).0 {
        answer.expect_error(404, "MANIFEST_UNKNOWN");
    }
    world
        .mirror
        .get("/v2/team/app/manifests/v1")
        .await
        .expect(200);
}

#[tokio::test]
async fn c54_a_crowd_that_wants_the_same_counts_once() {
    let gate = Gate::closed();
    let world = world(&gate).await;
    let target = held_up(0);
    let crowd = join_all((0..50).map(|_| world.mirror.get(&target)));
    let meanwhile = async {
        gate.reached().await;
        world
            .mirror
            .get("/v2/team/app/manifests/v1")
            .await
            .expect(200);
        gate.open();
    };
    for answer in tokio::join!(crowd, meanwhile).0 {
        answer.expect_error(404, "MANIFEST_UNKNOWN");
    }
}

#[tokio::test]
async fn c54_a_client_that_asks_and_leaves_is_counted_for_what_goes_on_without_it() {
    let gate = Gate::closed();
    let world = World::with_line("clients: { requests: 4 }").await;
    let blobs: Vec<_> = (0..8_u8)
        .map(|n| {
            let content = vec![n; 100_000];
            let digest = sha256(&content);
            let body = Body::new(content).stall_at(50_000, &gate);
            assert_eq!(world.upstream.put_blob("team/app", body), digest);
            digest
        })
        .collect();
    let target = |n: usize| format!("/v2/team/app/blobs/{}", blobs[n]);
    for n in 0..4 {
        let pull = Request::get(&target(n)).open(world.mirror.address).await;
        assert_eq!(pull.status, 200);
        // It leaves; the blob goes on coming in.
        drop(pull);
    }
    gate.reached_by(4).await;
    for n in 4..8 {
        let answer = world.mirror.get(&target(n)).await;
        answer.expect_error(429, "TOOMANYREQUESTS");
    }
    assert_eq!(world.upstream.requests("GET", "*").len(), 4);
    gate.open();
    for digest in &blobs[..4] {
        world.mirror.wait_until_stored(digest).await;
    }
    // All of it is given back.
    let all = async {
        for n in 0..8 {
            while world.mirror.get(&target(n)).await.status != 200 {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(std::time::Duration::from_secs(20), all)
        .await
        .expect("nothing is kept");
}

#[tokio::test]
async fn c54_what_is_cached_costs_a_client_nothing_of_its_share() {
    let world = World::with_line("clients: { requests: 1 }").await;
    let blobs: Vec<_> = (0..3_u8).map(|n| bytes(n.into(), 4 * MIB)).collect();
    let target = |blob: &Bytes| format!("/v2/team/app/blobs/{}", sha256(blob));
    for blob in &blobs {
        world.upstream.put_blob("team/app", blob.clone());
        // The one before is still on its way to disk.
        while world.mirror.get(&target(blob)).await.status == 429 {
            tokio::task::yield_now().await;
        }
        world.mirror.wait_until_stored(&sha256(blob)).await;
    }
    // Stored bodies that are being read are none of the things under way.
    let mut reading = Vec::new();
    for blob in &blobs {
        let mut pull = Request::get(&target(blob)).open(world.mirror.address).await;
        while pull.status == 429 {
            pull = Request::get(&target(blob)).open(world.mirror.address).await;
        }
        assert_eq!(pull.status, 200);
        reading.push(pull);
    }
    for (pull, blob) in reading.into_iter().zip(&blobs) {
        assert_eq!(pull.finish().await.expect(200), *blob);
    }
}

#[tokio::test]
async fn c54_one_client_with_too_many_connections_is_told_so_and_no_other() {
    let world = World::with_line("clients: { connections: 20 }").await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    let mut open = Vec::new();
    for _ in 0..20 {
        let (answer, connection) = {
            let connection = Connection::open(world.mirror.address).await;
            let pull = connection
                .ask(&Request::get("/v2/"))
                .await
                .expect("an answer");
            pull.finish_and_keep().await
        };
        answer.expect(200);
        open.push(connection);
    }
    for _ in 0..5 {
        let answer = world.mirror.get("/v2/team/app/manifests/v1").await;
        assert_eq!(answer.header("Retry-After"), Some("5"), "{answer:?}");
        assert_eq!(answer.header("Connection"), Some("close"), "{answer:?}");
        let said = answer.expect_error(429, "TOOMANYREQUESTS");
        assert!(said.contains("clients.connections"), "{said}");
    }
    assert_eq!(world.upstream.connections(), 0);
    assert_eq!(
        status_for_other(&world.mirror, "/v2/team/app/manifests/v1").await,
        200
    );
    open.clear();
    while world.mirror.get("/v2/team/app/manifests/v1").await.status != 200 {
        tokio::task::yield_now().await;
    }
}
