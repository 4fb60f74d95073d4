//! F27, F28: how it ends, and what one request that goes wrong does to the others.

use futures_util::future::join_all;

use crate::harness::client::{Connection, Ending, Request};
use crate::harness::clock;
use crate::harness::content::{MIB, bytes};
use crate::harness::gate::Gate;
use crate::harness::upstream::Body;
use crate::harness::world::World;

#[tokio::test]
async fn f28_what_is_under_way_is_completed() {
    let mut world = World::new().await;
    let content = bytes(1, 2 * MIB);
    let gate = Gate::closed();
    let digests: Vec<_> = (0..10)
        .map(|n| {
            let body = Body::new(bytes(n, 2 * MIB)).stall_at(MIB, &gate);
            world.upstream.put_blob("team/app", body)
        })
        .collect();
    // Ten fills with ten streams each.
    let mut pulls = Vec::new();
    for digest in &digests {
        for _ in 0..10 {
            let target = format!("/v2/team/app/blobs/{digest}");
            pulls.push(Request::get(&target).open(world.mirror.address).await);
        }
    }
    gate.reached_by(digests.len()).await;
    world.mirror.begin_to_stop();
    // Whoever comes now is refused, and whoever is idle is let go.
    while tokio::net::TcpStream::connect(world.mirror.address)
        .await
        .is_ok()
    {
        tokio::task::yield_now().await;
    }
    gate.open();
    let answers = join_all(pulls.into_iter().map(crate::harness::client::Pull::finish)).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.header("Content-Length"), Some("2097152"));
        let expected = bytes(n as u64 / 10, content.len());
        assert_eq!(answer.expect(200), expected, "{n}");
    }
    world.mirror.ended().await;
    // What clients were given is on disk.
    assert!(digests.iter().all(|digest| world.mirror.has(digest)));
}

#[tokio::test]
async fn f28_idle_connections_are_closed() {
    let mut world = World::new().await;
    let mut connection = Connection::open(world.mirror.address).await;
    connection.write(&Request::get("/v2/").to_bytes()).await;
    let pull = connection.pull("GET").await.expect("an answer");
    let (answer, connection) = pull.finish_and_keep().await;
    answer.expect(200);
    let silent = Connection::open(world.mirror.address).await;
    world.mirror.get("/v2/").await.expect(200);
    world.mirror.stop().await;
    assert!(connection.read_to_end().await.is_empty());
    assert!(silent.read_to_end().await.is_empty());
}

#[tokio::test]
async fn f28_what_takes_too_long_is_broken_off_as_clients_resume_from() {
    let mut world = World::new().await;
    let gate = Gate::closed();
    let body = Body::new(bytes(1, 2 * MIB)).stall_at(MIB, &gate);
    let digest = world.upstream.put_blob("team/app", body);
    let target = format!("/v2/team/app/blobs/{digest}");
    let pull = Request::get(&target).open(world.mirror.address).await;
    gate.reached().await;
    world.mirror.begin_to_stop();
    while tokio::net::TcpStream::connect(world.mirror.address)
        .await
        .is_ok()
    {
        tokio::task::yield_now().await;
    }
    clock::pass(26).await;
    let answer = pull.finish().await;
    assert_eq!(answer.ending, Ending::Short);
    world.mirror.ended().await;
    assert!(!world.mirror.has(&digest));
}

#[tokio::test]
async fn f28_a_mirror_without_work_ends_at_once() {
    let mut world = World::new().await;
    world.mirror.stop().await;
}

#[tokio::test]
async fn f16_clients_that_leave_leave_nothing_behind() {
    let world = World::new().await;
    let content = bytes(1, 4 * MIB);
    let digest = world.upstream.put_blob("team/app", content.clone());
    let target = format!("/v2/team/app/blobs/{digest}");
    world.mirror.get(&target).await.expect(200);
    world.mirror.wait_until_stored(&digest).await;
    for read in [0, 1, 1000, MIB] {
        for _ in 0..8 {
            let mut pull = Request::get(&target).open(world.mirror.address).await;
            pull.read(read).await;
        }
    }
    // The one that asks is the last.
    while !world
        .mirror
        .metrics()
        .await
        .contains("\nentrepot_connections 1\n")
    {}
    let metrics = world.mirror.metrics().await;
    assert!(
        metrics.contains("\nentrepot_inflight_fills 0\n"),
        "{metrics}"
    );
}
