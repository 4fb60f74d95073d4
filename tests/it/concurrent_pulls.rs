//! Many clients, one cold blob: one body from upstream, whatever any of the clients does.

use std::net::SocketAddr;

use futures_util::future::join_all;

use crate::harness::client::{Connection, Ending, Request};
use crate::harness::clock;
use crate::harness::content::{KIB, MIB, bytes};
use crate::harness::gate::Gate;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Body, Upstream};
use crate::harness::world::World;

/// Checks that upstream sent the content no more often than once, but for a hundredth.
fn check_cost(upstream: &Upstream, length: usize) {
    let sent = upstream.body_bytes("*");
    assert!(
        sent * 100 <= length as u64 * 101,
        "{sent} bytes were sent for {length}"
    );
}

fn target(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

#[tokio::test]
async fn sixteen_clients_cost_one_body() {
    let world = World::new().await;
    let content = bytes(1, 2 * MIB);
    let body = Body::new(content.clone()).drip(32 * KIB);
    let target = target(&world.upstream.put_blob("team/app", body));
    let answers = join_all((0..16).map(|_| world.mirror.get(&target))).await;
    for answer in answers {
        assert_eq!(answer.expect(200), content);
    }
    check_cost(&world.upstream, content.len());
    assert_eq!(world.upstream.requests("GET", "*").len(), 1);
}

#[tokio::test]
async fn the_ways_in_share_one_body() {
    let world = World::new().await;
    let content = bytes(1, 4 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(MIB, &gate);
    let digest = world.upstream.put_blob("team/app", body);
    let targets =
        crate::harness::world::Way::ALL.map(|way| way.target(&format!("team/app/blobs/{digest}")));
    let pulls = join_all(targets.iter().map(|target| world.mirror.get(target)));
    let open = async {
        gate.reached().await;
        gate.open();
    };
    for answer in tokio::join!(pulls, open).0 {
        assert_eq!(answer.expect(200), content);
    }
    check_cost(&world.upstream, content.len());
}

#[tokio::test]
async fn two_registries_that_hold_the_same_blob_cost_one_body() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let content = bytes(1, 4 * MIB);
    let digest = first.put_blob("team/app", content.clone());
    second.put_blob("team/app", content.clone());
    let setup = Setup::new().upstream("first.example", &first);
    let mirror = setup.upstream("second.example", &second).start().await;
    let path = target(&digest);
    let targets = ["first", "second"].map(|name| format!("{path}?ns={name}.example"));
    let answers = join_all(targets.iter().map(|target| mirror.get(target))).await;
    for answer in answers {
        assert_eq!(answer.expect(200), content);
    }
    let sent = first.body_bytes("*") + second.body_bytes("*");
    assert!(sent * 100 <= content.len() as u64 * 101, "{sent}");
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_the_fill() {
    let content = bytes(1, 2 * MIB);
    // After the head, at a hundredth, at a tenth, and just before the end.
    for read in [
        0,
        content.len() / 100,
        content.len() / 10,
        content.len() - 200 * KIB,
    ] {
        let world = World::new().await;
        let gate = Gate::closed();
        let stalled_at = content.len() - 100 * KIB;
        let body = Body::new(content.clone()).stall_at(stalled_at, &gate);
        let digest = world.upstream.put_blob("team/app", body);
        let target = target(&digest);

        let mut leaver = Request::get(&target).open(world.mirror.address).await;
        leaver.read(read).await;
        drop(leaver);
        gate.reached().await;
        let others = join_all((0..2).map(|_| world.mirror.get(&target)));
        let open = async { gate.open() };
        for answer in tokio::join!(others, open).0 {
            assert_eq!(answer.expect(200), content);
        }
        assert_eq!(world.upstream.requests("GET", "*").len(), 1);
        check_cost(&world.upstream, content.len());
    }
}

#[tokio::test]
async fn a_fill_that_everybody_has_left_is_there_for_the_next() {
    let world = World::new().await;
    let content = bytes(1, 2 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(MIB, &gate);
    let target = target(&world.upstream.put_blob("team/app", body));
    let mut leaver = Request::get(&target).open(world.mirror.address).await;
    leaver.read(1000).await;
    gate.reached().await;
    drop(leaver);
    gate.open();
    assert_eq!(world.mirror.get(&target).await.expect(200), content);
    assert_eq!(world.upstream.requests("GET", "*").len(), 1);
}

#[tokio::test]
async fn a_client_that_reads_a_byte_at_a_time_slows_nobody() {
    let world = World::new().await;
    // More than the sockets between the mirror and the slow client hold.
    let content = bytes(1, 8 * MIB);
    let target = target(&world.upstream.put_blob("team/app", content.clone()));
    let slow = slow_reader(world.mirror.address, &target).await;
    let mut slow = slow.expect("an answer");
    for _ in 0..3 {
        slow.read(1).await;
    }
    let others = join_all((0..2).map(|_| world.mirror.get(&target))).await;
    for answer in others {
        assert_eq!(answer.expect(200), content);
    }
    check_cost(&world.upstream, content.len());
    // And it gets its own, in the end.
    assert_eq!(slow.finish().await.expect(200), content.slice(3..));
    assert_eq!(world.upstream.requests("GET", "*").len(), 1);
}

#[tokio::test]
async fn a_client_that_stops_reading_is_let_go() {
    let world = World::new().await;
    let content = bytes(1, 8 * MIB);
    let target = target(&world.upstream.put_blob("team/app", content.clone()));
    let slow = slow_reader(world.mirror.address, &target).await;
    let mut slow = slow.expect("an answer");
    slow.read(1).await;
    // By the time another has all of it, nothing more goes to the slow one.
    let other = world.mirror.get(&target).await;
    assert_eq!(other.expect(200), content);
    clock::pass(61).await;
    let answer = slow.finish().await;
    assert_ne!(answer.ending, Ending::Complete);
    assert_eq!(world.mirror.get(&target).await.expect(200), content);
}

async fn slow_reader(address: SocketAddr, target: &str) -> Option<crate::harness::client::Pull> {
    let mut connection = Connection::open_narrow(address).await;
    connection.write(&Request::get(target).to_bytes()).await;
    connection.pull("GET").await
}

/// As containerd does with `concurrent_layer_fetch_buffer`: open-ended ranges, each dropped after its part.
#[tokio::test]
async fn open_ended_ranges_that_are_dropped_cost_one_body() {
    let world = World::new().await;
    let content = bytes(1, 4 * MIB);
    let body = Body::new(content.clone()).drip(64 * KIB);
    let digest = world.upstream.put_blob("team/app", body);
    let target = target(&digest);
    let chunk = 512 * KIB;
    let parts = (0..content.len() / chunk).map(|n| {
        let (target, address) = (&target, world.mirror.address);
        async move {
            let range = format!("bytes={}-", n * chunk);
            let request = Request::get(target).header("Range", range);
            let mut pull = request.open(address).await;
            assert_eq!(pull.status, 206);
            pull.read(chunk).await
        }
    });
    let parts = join_all(parts).await;
    assert_eq!(parts.concat(), content);
    assert_eq!(world.mirror.get(&target).await.expect(200), content);
    check_cost(&world.upstream, content.len());
}

#[tokio::test]
async fn heads_beside_a_fill_cost_nothing() {
    let world = World::new().await;
    let content = bytes(1, 2 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(MIB, &gate);
    let target = target(&world.upstream.put_blob("team/app", body));
    let mut pull = Request::get(&target).open(world.mirror.address).await;
    pull.read(1000).await;
    for _ in 0..3 {
        let head = world.mirror.head(&target).await;
        assert_eq!(
            head.header("Content-Length"),
            Some(&*content.len().to_string())
        );
        head.expect(200);
    }
    gate.open();
    assert_eq!(pull.finish().await.expect(200), content.slice(1000..));
    check_cost(&world.upstream, content.len());
}

#[tokio::test]
async fn clients_of_a_cold_tag_cost_one_manifest() {
    let world = World::new().await;
    let image = crate::harness::content::Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    let gets = join_all((0..16).map(|_| world.mirror.get("/v2/team/app/manifests/v1")));
    for answer in gets.await {
        assert_eq!(answer.expect(200), image.manifest.bytes);
    }
    assert_eq!(world.upstream.requests("GET", "*").len(), 1);
    assert!(
        world.upstream.log().len() <= 2,
        "{:?}",
        world.upstream.log()
    );
}

/// Small ones, on several threads, that come and go while others are still looking whether they are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_of_many_small_blobs_cost_one_body_each() {
    let world = World::new().await;
    let digests: Vec<_> = (0..50)
        .map(|seed| world.upstream.put_blob("team/app", bytes(seed, 100)))
        .collect();
    for digest in &digests {
        let target = target(digest);
        let answers = join_all((0..16).map(|_| world.mirror.get(&target))).await;
        for answer in answers {
            answer.expect(200);
        }
    }
    let gets = world.upstream.requests("GET", "*").len();
    assert_eq!(gets, digests.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_of_many_tags_cost_one_manifest_each() {
    let world = World::new().await;
    let image = crate::harness::content::Image::new(1);
    for n in 0..50 {
        world
            .upstream
            .put_image("team/app", &format!("v{n}"), &image);
        let target = format!("/v2/team/app/manifests/v{n}");
        let answers = join_all((0..16).map(|_| world.mirror.get(&target))).await;
        for answer in answers {
            answer.expect(200);
        }
    }
    assert_eq!(world.upstream.requests("GET", "*").len(), 50);
    assert!(world.upstream.log().len() <= 100);
}

#[tokio::test]
async fn a_stored_blob_is_not_asked_for_again() {
    let world = World::new().await;
    let content = bytes(1, MIB);
    let digest = world.upstream.put_blob("team/app", content.clone());
    let target = target(&digest);
    assert_eq!(world.mirror.get(&target).await.expect(200), content);
    world.mirror.wait_until_stored(&digest).await;
    world.upstream.stop().await;
    let answers = join_all((0..16).map(|_| world.mirror.get(&target))).await;
    for answer in answers {
        assert_eq!(answer.ending, Ending::Complete);
        assert_eq!(answer.expect(200), content);
    }
}
