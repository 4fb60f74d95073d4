//! What an upstream may do in the middle of a blob. No client ever gets a whole body that is wrong, nothing wrong is
//! stored, and the error of one blob is nobody else's.

use futures_util::future::join_all;

use crate::harness::client::{Ending, Request};
use crate::harness::clock;
use crate::harness::content::{KIB, MIB, bytes, sha256};
use crate::harness::gate::Gate;
use crate::harness::upstream::{Answer, Body, Declared, End, Seen};
use crate::harness::world::World;

fn target(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

/// Four clients ask for the blob of `digest`, which `body` is said to be. None of them gets a whole one, nothing is
/// stored, and another blob works.
async fn nobody_gets_it(digest: &str, body: Body) -> World {
    let world = World::new().await;
    world.upstream.put_blob_as("team/app", digest, body);
    let target = target(digest);
    let answers = join_all((0..4).map(|_| world.mirror.get(&target))).await;
    for answer in answers {
        match (answer.status, answer.ending) {
            (200, Ending::Short) => {}
            (502, Ending::Complete) => drop(answer.expect_error(502, "UNAVAILABLE")),
            other => panic!("{other:?}"),
        }
    }
    // It is asked for once more behind those who were given wrong bytes.
    let idle = "\nentrepot_inflight_fills 0\n";
    while !world.mirror.metrics().await.contains(idle) {
        tokio::task::yield_now().await;
    }
    assert!(!world.mirror.has(digest));
    let fine = bytes(77, 3000);
    let digest = world.upstream.put_blob("team/app", fine.clone());
    let target = self::target(&digest);
    assert_eq!(world.mirror.get(&target).await.expect(200), fine);
    world
}

#[tokio::test]
async fn a_wrong_byte_anywhere_is_never_part_of_a_whole_blob() {
    let content = bytes(1, MIB);
    for offset in [0, content.len() / 2, content.len() - 1] {
        let body = Body::new(content.clone()).wrong_byte_at(offset);
        let world = nobody_gets_it(&sha256(&content), body).await;
        let sent = world.upstream.body_bytes("*");
        let bound = 4 * content.len() as u64;
        assert!(sent < bound, "it is not tried for ever: {sent}");
    }
}

#[tokio::test]
async fn a_small_wrong_blob_is_never_whole() {
    for length in [1, 100, 64 * KIB] {
        let content = bytes(1, length);
        let body = Body::new(content.clone()).wrong_byte_at(0);
        nobody_gets_it(&sha256(&content), body).await;
    }
}

#[tokio::test]
async fn a_blob_of_another_length_is_never_whole() {
    let content = bytes(1, 300 * KIB);
    let digest = sha256(&content);
    // A byte is missing at the end, or there is one too many, and the head knows.
    let shorter = content.slice(..content.len() - 1);
    nobody_gets_it(&digest, Body::new(shorter)).await;
    let longer = [&content[..], b"x"].concat();
    nobody_gets_it(&digest, Body::new(longer)).await;
    nobody_gets_it(&digest, Body::new("")).await;
}

#[tokio::test]
async fn a_head_that_lies_about_the_length_is_found_out() {
    let content = bytes(1, 300 * KIB);
    let length = content.len() as u64;
    for declared in [length - 1, length + 1, 2 * length] {
        let body = Body::new(content.clone()).declare(Declared::Bytes(declared));
        nobody_gets_it(&sha256(&content), body).await;
    }
}

#[tokio::test]
async fn the_right_blob_later_is_served() {
    let content = bytes(1, 300 * KIB);
    let digest = sha256(&content);
    let wrong = Body::new(content.clone()).wrong_byte_at(5);
    let world = nobody_gets_it(&digest, wrong).await;
    world.upstream.put_blob("team/app", content.clone());
    let answer = world.mirror.get(&target(&digest)).await;
    assert_eq!(answer.expect(200), content);
    world.mirror.wait_until_stored(&digest).await;
}

#[tokio::test]
async fn a_body_that_is_cut_is_resumed() {
    let content = bytes(1, 2 * MIB);
    for end in [End::Fin, End::Rst] {
        for at in [1, MIB, content.len() - 1] {
            let world = World::new().await;
            let body = Body::new(content.clone()).cut_at(at, end, 1);
            let digest = world.upstream.put_blob("team/app", body);
            let target = target(&digest);
            let answers = join_all((0..2).map(|_| world.mirror.get(&target))).await;
            for answer in answers {
                assert_eq!(answer.expect(200), content, "{end:?} at {at}");
            }
            // What a reset throws away before the mirror has read it is not the mirror's doing.
            let sent = world.upstream.body_bytes("*");
            let bound = content.len() as u64 * 101 / 100;
            assert!(end == End::Rst || sent <= bound, "{at}: {sent}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_cut_again_and_again_is_resumed() {
    let world = World::new().await;
    let content = bytes(1, 2 * MIB);
    let digest = sha256(&content);
    let path = target(&digest);
    world.upstream.put_blob("team/app", content.clone());
    // Each answer brings a bit more than half of what is left.
    let body = content.clone();
    world.upstream.rule(move |request: &Seen| {
        let from = request.header("Range").map_or(0, |range| {
            let digits = range.trim_start_matches("bytes=").split('-').next();
            digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
        });
        let left = body.len() - from;
        let whole = left < 200 * KIB || request.method != "GET";
        (!whole).then(|| part(&body, from, from + left / 2 + 1))
    });
    assert_eq!(world.mirror.get(&path).await.expect(200), content);
}

/// An answer that promises everything from `from` on and stops at `stop`.
fn part(body: &bytes::Bytes, from: usize, stop: usize) -> Answer {
    let rest = body.slice(from..);
    let status = if from == 0 { 200 } else { 206 };
    let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
    Answer::status(status)
        .header("Content-Range", &range)
        .body(Body::new(rest).cut_at(stop - from, End::Fin, 1))
}

#[tokio::test]
async fn an_upstream_that_ignores_the_range_of_a_resumption_splices_nothing() {
    let world = World::new().await;
    let content = bytes(1, 2 * MIB);
    let body = Body::new(content.clone()).without_ranges();
    let digest = world
        .upstream
        .put_blob("team/app", body.cut_at(MIB, End::Fin, 1));
    let target = target(&digest);
    assert_eq!(world.mirror.get(&target).await.expect(200), content);
}

#[tokio::test]
async fn an_upstream_that_resumes_at_another_offset_splices_nothing() {
    let content = bytes(1, 2 * MIB);
    for named in [
        "bytes 0-1048575/2097152",
        "bytes 5-2097151/2097152",
        "bytes 1048576-2097151/9",
    ] {
        let world = World::new().await;
        let body = Body::new(content.clone()).cut_at(MIB, End::Fin, 1);
        let digest = world.upstream.put_blob("team/app", body);
        let (range_said, rest) = (named.to_owned(), content.slice(MIB..));
        world.upstream.rule(move |request: &Seen| {
            let range = request.header("Range")?;
            let resumed = range.starts_with("bytes=1048576-");
            let answer = Answer::status(206).header("Content-Range", &range_said);
            resumed.then(|| answer.body(rest.clone()))
        });
        let answer = world.mirror.get(&target(&digest)).await;
        let exact = answer.ending == Ending::Complete && answer.body == content;
        assert!(exact || answer.ending == Ending::Short, "{named}");
        assert!(exact || !world.mirror.has(&digest), "{named}");
    }
}

#[tokio::test]
async fn content_that_changes_between_two_halves_is_never_whole() {
    let (content, other) = (bytes(1, 2 * MIB), bytes(2, 2 * MIB));
    let world = World::new().await;
    let body = Body::new(content.clone()).cut_at(MIB, End::Fin, 1);
    let digest = world.upstream.put_blob("team/app", body);
    world.upstream.rule(move |request: &Seen| {
        let resumed = request.header("Range")?.starts_with("bytes=1048576-");
        let range = "bytes 1048576-2097151/2097152";
        let answer = Answer::status(206).header("Content-Range", range);
        resumed.then(|| answer.body(other.slice(MIB..)))
    });
    let answer = world.mirror.get(&target(&digest)).await;
    assert_eq!((answer.status, answer.ending), (200, Ending::Short));
    assert!(!world.mirror.has(&digest));
}

#[tokio::test]
async fn an_error_reaches_every_waiter_and_the_next_caller_starts_anew() {
    let world = World::new().await;
    let content = bytes(1, 2 * MIB);
    let digest = sha256(&content);
    let hopeless = Body::new(content.clone()).without_ranges();
    let gate = Gate::closed();
    let hopeless = hopeless
        .stall_at(MIB, &gate)
        .cut_at(MIB + 1, End::Fin, 1000);
    world.upstream.put_blob_as("team/app", &digest, hopeless);
    let target = target(&digest);
    let waiters = join_all((0..4).map(|_| world.mirror.get(&target)));
    let open = async {
        gate.reached().await;
        gate.open();
    };
    for answer in tokio::join!(waiters, open).0 {
        assert_eq!((answer.status, answer.ending), (200, Ending::Short));
    }
    world.upstream.put_blob("team/app", content.clone());
    assert_eq!(world.mirror.get(&target).await.expect(200), content);
}

#[tokio::test]
async fn an_upstream_that_is_gone_before_the_first_byte_is_a_502_for_all() {
    let world = World::new().await;
    let content = bytes(1, MIB);
    let digest = sha256(&content);
    let target = target(&digest);
    let gate = Gate::closed();
    let answer = Answer::status(500).after(&gate);
    world.upstream.answer(&target, answer);
    let waiters = join_all((0..4).map(|_| world.mirror.get(&target)));
    let open = async {
        gate.reached().await;
        gate.open();
    };
    for answer in tokio::join!(waiters, open).0 {
        answer.expect_error(502, "UNAVAILABLE");
    }
    world.upstream.behave();
    world.upstream.put_blob("team/app", content.clone());
    assert_eq!(world.mirror.get(&target).await.expect(200), content);
}

#[tokio::test]
async fn a_body_that_stalls_is_resumed() {
    let world = World::new().await;
    let content = bytes(1, 2 * MIB);
    let gate = Gate::closed();
    let path = target(&sha256(&content));
    let stalled = Body::new(content.clone()).stall_at(MIB, &gate);
    world.upstream.put_blob("team/app", stalled);
    let mut pull = Request::get(&path).open(world.mirror.address).await;
    gate.reached().await;
    // Everything that was sent has come through, so nothing moves any more.
    let first = pull.read(MIB - 64 * KIB).await;
    world.upstream.put_blob("team/app", content.clone());
    clock::pass(31).await;
    let rest = pull.finish().await.expect(200);
    assert_eq!([first, rest].concat(), content);
    let sent = world.upstream.body_bytes("*");
    assert!(sent <= content.len() as u64 * 101 / 100, "{sent}");
}

#[tokio::test]
async fn a_fault_in_one_blob_fails_no_other() {
    let world = World::new().await;
    let gate = Gate::closed();
    let (stuck, fine) = (bytes(1, MIB), bytes(2, MIB));
    let stuck = Body::new(stuck).stall_at(1000, &gate);
    let stuck = world.upstream.put_blob("team/app", stuck);
    let digest = world.upstream.put_blob("team/app", fine.clone());
    let pull = Request::get(&target(&stuck))
        .open(world.mirror.address)
        .await;
    gate.reached().await;
    for _ in 0..8 {
        let answer = world.mirror.get(&target(&digest)).await;
        assert_eq!(answer.expect(200), fine);
    }
    drop(pull);
}

/// Were a mirror taken out for it, one outage would take out all of them.
#[tokio::test]
async fn an_outage_of_upstream_leaves_the_mirror_ready_and_alive() {
    let world = World::new().await;
    let content = bytes(1, 3000);
    let digest = world.upstream.put_blob("team/app", content.clone());
    assert_eq!(
        world.mirror.get(&target(&digest)).await.expect(200),
        content
    );
    world.mirror.wait_until_stored(&digest).await;
    world.upstream.stop().await;
    // As often as opens a breaker, and more.
    for seed in 10..30 {
        let missing = target(&sha256(&bytes(seed, 10)));
        let answer = world.mirror.get(&missing).await;
        answer.expect_error(502, "UNAVAILABLE");
        for probe in ["/readyz", "/livez"] {
            assert_eq!(world.mirror.get(probe).await.status, 200, "{probe}");
        }
    }
    assert_eq!(
        world.mirror.get(&target(&digest)).await.expect(200),
        content
    );
}
