//! As many fills as there may be, and no more: whoever comes then waits in line, is told when to come back, and small
//! blobs get through.

use futures_util::future::join_all;

use crate::harness::client::Request;
use crate::harness::clock;
use crate::harness::content::{KIB, bytes};
use crate::harness::gate::Gate;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Body, Declared, Upstream};

/// Connections of one upstream, and large blobs on their way in at once.
const CONNECTIONS: usize = 32;
const LARGE_FILLS: usize = 192;

fn target(n: usize, digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}?ns=r{n}.example")
}

/// A blob of which nobody knows how large it is, and which does not come further than half.
fn endless(seed: u64, gate: &Gate) -> Body {
    let body = Body::new(bytes(seed, 2 * KIB)).declare(Declared::Chunked);
    body.stall_at(KIB, gate)
}

async fn wait_for(mirror: &Mirror, line: &str) {
    while !mirror.metrics().await.contains(&format!("\n{line}\n")) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn large_blobs_wait_for_a_place_and_small_ones_get_through() {
    let gate = Gate::closed();
    let mut upstreams = Vec::new();
    // All of them are asked for by one client here.
    let mut setup = Setup::new().line("clients: { requests: 1000 }");
    for n in 0..=LARGE_FILLS / CONNECTIONS {
        let upstream = Upstream::start().await;
        setup = setup.upstream(&format!("r{n}.example"), &upstream);
        upstreams.push(upstream);
    }
    let mirror = setup.start().await;
    let (free, busy) = upstreams.split_last().expect("there are some");
    // Every other upstream has all it may under way.
    let mut leaving = Vec::new();
    for (n, upstream) in busy.iter().enumerate() {
        for seed in 0..CONNECTIONS {
            let body = endless((n * CONNECTIONS + seed) as u64, &gate);
            let target = target(n, &upstream.put_blob("team/app", body));
            let address = mirror.address;
            leaving.push(async move { Request::get(&target).open(address).await });
        }
    }
    let all_come = gate.reached_by(LARGE_FILLS);
    let mut waiting = Box::pin(join_all(leaving));
    tokio::select! {
        () = all_come => {}
        _ = &mut waiting => unreachable!("they do not come to their end"),
    }
    // Their callers leave, they go on.
    drop(waiting);
    let free_at = busy.len();
    let large = target(free_at, &free.put_blob("team/app", endless(1000, &gate)));
    let content = bytes(1001, 300 * KIB);
    let small = target(free_at, &free.put_blob("team/app", content.clone()));
    let in_line = mirror.get(&large);
    let meanwhile = async {
        wait_for(&mirror, "entrepot_fill_waiters 1").await;
        free.wait_until(1, "GET", "*").await;
        assert_eq!(mirror.get(&small).await.expect(200), content);
        clock::pass(11).await;
    };
    let (refused, ()) = tokio::join!(in_line, meanwhile);
    assert_eq!(refused.header("Retry-After"), Some("5"));
    refused.expect_error(503, "UNAVAILABLE");

    // Who leaves the line frees the place in it, and the connection that was held meanwhile.
    let mut leaver = Box::pin(Request::get(&large).open(mirror.address));
    tokio::select! {
        _ = &mut leaver => unreachable!("there is no place"),
        () = free.wait_until(3, "GET", "*") => {}
    }
    let fills = format!("entrepot_inflight_fills {}", LARGE_FILLS + 1);
    wait_for(&mirror, &fills).await;
    drop(leaver);
    wait_for(&mirror, &format!("entrepot_inflight_fills {LARGE_FILLS}")).await;

    gate.open();
    wait_for(&mirror, "entrepot_inflight_fills 0").await;
    mirror.get(&large).await.expect(200);
}
