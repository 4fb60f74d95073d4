//! A blob comes in pieces: what is lost is asked for again, what is wanted is asked for first, and further connections
//! are made only where they help.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::harness::client::{Ending, Request};
use crate::harness::content::{KIB, MIB, Manifest, OCI_IMAGE, bytes, sha256};
use crate::harness::gate::Gate;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Answer, Body, End, Seen, Upstream};
use crate::harness::world::{REGISTRY, World};

/// How much of a blob the mirror keeps back until the digest is known, in bytes.
const WITHHELD: usize = 64 * KIB;

fn target(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

/// The bytes of a blob from `from` on, `n` of them; the rest is not waited for.
async fn chunk(mirror: &Mirror, target: &str, from: usize, n: usize) -> Bytes {
    let request = Request::get(target).header("Range", format!("bytes={from}-"));
    let mut pull = request.open(mirror.address).await;
    assert_eq!(pull.status, 206);
    pull.read(n).await
}

/// The whole blob is served and is right; upstream sent no more than `percent` of it.
async fn costs(world: &World, target: &str, content: &Bytes, percent: u64) {
    let answer = world.mirror.get(target).await;
    assert_eq!((answer.status, answer.ending), (200, Ending::Complete));
    assert!(answer.body == *content);
    let sent = world.upstream.body_bytes("*");
    let bound = content.len() as u64 * percent / 100;
    assert!(sent <= bound, "{sent} of {}", content.len());
}

/// About one body, in percent. What is on its way when a connection has met the work of another is lost: for sources as
/// slow as these, one step of theirs.
const ABOUT_ONE: u64 = 101;

/// A store that gives each connection some 12 MiB a second.
fn slow(content: &Bytes) -> Body {
    Body::new(content.clone()).pace(64 * KIB, Duration::from_millis(5))
}

// === Resuming ===

/// Upstream ends the connection there, and the next one in the middle of the rest. It does so once the mirror has all
/// that was sent: what a reset throws away is not the mirror's doing.
async fn cut_twice(end: End, first: usize) {
    let world = World::new().await;
    let content = bytes(1, 8 * MIB);
    let second = usize::midpoint(first, content.len());
    let gates = [Gate::closed(), Gate::closed()];
    let body = Body::new(content.clone())
        .stall_at(first, &gates[0])
        .stall_at(second, &gates[1])
        .cut_at(first, end, 1)
        .cut_at(second, end, 1);
    let digest = world.upstream.put_blob("team/app", body);
    let target = target(&digest);
    let mut pull = Request::get(&target).open(world.mirror.address).await;
    assert_eq!(pull.status, 200);
    let mut read = Vec::new();
    for (cut, gate) in [first, second].into_iter().zip(&gates) {
        gate.reached().await;
        let come = cut.min(content.len() - WITHHELD);
        read.extend_from_slice(&pull.read(come - read.len()).await);
        gate.open();
    }
    read.extend_from_slice(&pull.finish().await.expect(200));
    assert!(read == content, "{end:?} at {first}");
    assert_eq!(world.upstream.requests("GET", &target).len(), 3);
    world.mirror.wait_until_stored(&digest).await;
    costs(&world, &target, &content, ABOUT_ONE).await;
}

#[tokio::test]
async fn a_blob_that_is_cut_twice_is_one_exact_answer() {
    let one_percent = 8 * MIB / 100;
    for first in [one_percent, 50 * one_percent, 99 * one_percent] {
        tokio::join!(cut_twice(End::Fin, first), cut_twice(End::Rst, first));
    }
}

#[tokio::test]
async fn the_whole_blob_in_place_of_its_rest_is_skipped_into() {
    let world = World::new().await;
    let content = bytes(1, 4 * MIB);
    let body = Body::new(content.clone()).without_ranges();
    let body = body.cut_at(MIB, End::Fin, 1);
    let digest = world.upstream.put_blob("team/app", body);
    let target = target(&digest);
    let pulls = (0..3).map(|_| world.mirror.get(&target));
    for answer in join_all(pulls).await {
        assert_eq!(answer.expect(200), content);
    }
    assert_eq!(world.upstream.requests("GET", &target).len(), 2);
    // The MiB before the cut comes twice, as it must, and no more than that.
    costs(&world, &target, &content, 125).await;
}

/// The body stops at 1 MiB, and who asks for the rest is given `rest` of a blob of `total` bytes, under `tag`.
async fn resumed_with(content: &Bytes, rest: Bytes, total: usize, tag: &str) -> (World, String) {
    let world = World::new().await;
    let body = Body::new(content.clone()).cut_at(MIB, End::Fin, 1);
    let digest = world.upstream.put_blob("team/app", body);
    let tag = tag.to_owned();
    world.upstream.rule(move |request: &Seen| {
        request.header("Range")?;
        let range = format!("bytes {MIB}-{}/{total}", MIB + rest.len() - 1);
        let answer = Answer::status(206).header("Content-Range", &range);
        Some(answer.header("ETag", &tag).body(rest.clone()))
    });
    (world, target(&digest))
}

#[tokio::test]
async fn a_blob_that_has_another_length_in_its_second_half_is_refused() {
    let content = bytes(1, 2 * MIB);
    let longer = bytes(1, 2 * MIB + 1);
    for second in [content.slice(..2 * MIB - 1), longer] {
        let rest = second.slice(MIB..);
        let (world, target) = resumed_with(&content, rest, second.len(), "\"a\"").await;
        let answer = world.mirror.get(&target).await;
        assert_eq!((answer.status, answer.ending), (200, Ending::Short));
        assert!(answer.body.len() <= MIB, "nothing of the other blob");
        assert!(!world.mirror.has(&sha256(&content)));
        world.upstream.behave();
        assert_eq!(world.mirror.get(&target).await.expect(200), content);
    }
}

#[tokio::test]
async fn a_validator_that_changes_never_makes_wrong_bytes_whole() {
    let (content, other) = (bytes(1, 2 * MIB), bytes(2, 2 * MIB));
    let (world, target) = resumed_with(&content, other.slice(MIB..), 2 * MIB, "\"b\"").await;
    let answer = world.mirror.get(&target).await;
    assert_eq!((answer.status, answer.ending), (200, Ending::Short));
    assert!(!world.mirror.has(&sha256(&content)));
    // The bytes are what counts: hosts of one store do not always agree on a tag.
    let (world, target) = resumed_with(&content, content.slice(MIB..), 2 * MIB, "\"b\"").await;
    let answer = world.mirror.get(&target).await;
    assert!(answer.ending == Ending::Short || answer.body == content);
}

#[tokio::test]
async fn a_flipped_byte_anywhere_is_found_and_not_fetched_for_ever() {
    let content = bytes(1, 4 * MIB);
    let places = [KIB / 2, content.len() / 2, content.len() - KIB / 2];
    join_all(places.map(|offset| flipped(&content, offset))).await;
}

/// With one wrong byte, no client is given the whole, nor is any part of a wrong blob kept; and the operator is told.
async fn flipped(content: &Bytes, offset: usize) {
    let world = World::new().await;
    let digest = sha256(content);
    let body = Body::new(content.clone()).wrong_byte_at(offset);
    world.upstream.put_blob_as("team/app", &digest, body);
    let target = target(&digest);
    let whole = world.mirror.get(&target);
    let tail = chunk(&world.mirror, &target, 3 * MIB, 100);
    let (answer, _) = tokio::join!(whole, tail);
    assert_eq!((answer.status, answer.ending), (200, Ending::Short));
    assert!(answer.body.len() <= content.len() - WITHHELD);
    assert!(!world.mirror.has(&digest));
    let sent = world.upstream.body_bytes("*");
    assert!(sent <= 3 * content.len() as u64, "{sent}");
    let metrics = world.mirror.metrics().await;
    let counted = |line: &str| line.starts_with("entrepot_digest_mismatch_total{");
    assert!(metrics.lines().any(counted), "{metrics}");
}

// === Any place first ===

#[tokio::test]
async fn a_far_range_of_a_slow_blob_does_not_wait_for_the_front() {
    let world = World::new().await;
    let content = bytes(1, 64 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(MIB, &gate);
    let digest = world.upstream.put_blob("team/app", body);
    let target = target(&digest);
    let front = Request::get(&target).open(world.mirror.address).await;
    gate.reached().await;
    let far = 40 * MIB;
    let given = chunk(&world.mirror, &target, far, MIB).await;
    assert_eq!(given, content.slice(far..far + MIB));
    let asked = world.upstream.requests("GET", &target);
    let ranges: Vec<_> = asked
        .iter()
        .map(|request| request.header("Range"))
        .collect();
    let to_it = |range: &str| range.starts_with("bytes=41943040-");
    let n = ranges.iter().flatten().filter(|range| to_it(range)).count();
    assert_eq!(n, 1, "{ranges:?}");
    gate.open();
    assert_eq!(front.finish().await.expect(200), content);
}

#[tokio::test]
async fn a_far_range_of_a_source_without_ranges_comes_with_the_front() {
    let world = World::new().await;
    let content = bytes(1, 24 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).without_ranges();
    let digest = world
        .upstream
        .put_blob("team/app", body.stall_at(MIB, &gate));
    let target = target(&digest);
    let front = Request::get(&target).open(world.mirror.address).await;
    gate.reached().await;
    let far = 20 * MIB;
    let open = async {
        world.upstream.wait_until(2, "GET", &target).await;
        gate.open();
    };
    let (given, ()) = tokio::join!(chunk(&world.mirror, &target, far, MIB), open);
    assert_eq!(given, content.slice(far..far + MIB));
    assert_eq!(front.finish().await.expect(200), content);
    let asked = world.upstream.requests("GET", &target).len();
    assert_eq!(asked, 2, "it is not tried again");
}

#[tokio::test]
async fn parallel_ranges_that_are_dropped_after_a_chunk_cost_one_body() {
    let world = World::new().await;
    let content = bytes(1, 32 * MIB);
    let digest = world.upstream.put_blob("team/app", slow(&content));
    let target = target(&digest);
    let part = content.len() / 8;
    let parts = (0..8).map(|n| chunk(&world.mirror, &target, n * part, part));
    let parts = join_all(parts).await;
    assert!(parts.concat() == content);
    costs(&world, &target, &content, ABOUT_ONE).await;
    assert!(world.upstream.sent_at_once() <= 4);
}

// === More connections ===

/// Pulls a manifest that names the blob, as clients do first. So the mirror knows how large it is, and asks for it in
/// parts from the start.
async fn announce(world: &World, digest: &str, size: usize) {
    let body = format!(
        r#"{{"mediaType":"{OCI_IMAGE}","layers":[{{"digest":"{digest}","size":{size}}}]}}"#
    );
    let manifest = Manifest::new(OCI_IMAGE, body);
    world
        .upstream
        .put_manifest("team/app", "announced", &manifest);
    let manifest = world.mirror.get("/v2/team/app/manifests/announced").await;
    manifest.expect(200);
}

#[tokio::test]
async fn a_blob_that_is_limited_per_connection_gets_more_of_them() {
    let world = World::new().await;
    let content = bytes(1, 40 * MIB);
    let digest = world.upstream.put_blob("team/app", slow(&content));
    announce(&world, &digest, content.len()).await;
    costs(&world, &target(&digest), &content, ABOUT_ONE).await;
    let connections = world.upstream.sent_at_once();
    assert!((2..=4).contains(&connections), "{connections}");
}

#[tokio::test]
async fn a_blob_gets_no_more_connections_than_the_operator_says() {
    let worlds = [1, 2].map(|per_blob| async move {
        let upstream = Upstream::start().await;
        let limits = format!("limits: {{ connections_per_blob: {per_blob} }}");
        let setup = Setup::new().upstream_with(REGISTRY, &upstream, &limits);
        let mirror = setup.start().await;
        let world = World { upstream, mirror };
        let content = bytes(1, 34 * MIB);
        let digest = world.upstream.put_blob("team/app", slow(&content));
        announce(&world, &digest, content.len()).await;
        costs(&world, &target(&digest), &content, ABOUT_ONE).await;
        assert_eq!(world.upstream.sent_at_once(), per_blob);
    });
    join_all(worlds).await;
}

#[tokio::test]
async fn a_fast_blob_gets_one_connection() {
    let world = World::new().await;
    let content = bytes(1, 40 * MIB);
    let digest = world.upstream.put_blob("team/app", content.clone());
    let target = target(&digest);
    costs(&world, &target, &content, 100).await;
    assert_eq!(world.upstream.requests("GET", &target).len(), 1);
}

#[tokio::test]
async fn a_fill_does_without_the_connections_that_are_refused() {
    let worlds = [429, 503].map(|status| async move {
        let world = World::new().await;
        let content = bytes(1, 34 * MIB);
        let digest = world.upstream.put_blob("team/app", slow(&content));
        announce(&world, &digest, content.len()).await;
        let refusal = Answer::error(status, "TOOMANYREQUESTS");
        world.upstream.one_at_a_time(refusal);
        costs(&world, &target(&digest), &content, ABOUT_ONE).await;
    });
    join_all(worlds).await;
}

/// From now on, whoever asks for a part is answered so: what is being sent goes on.
fn no_more_requests(upstream: &Upstream, refusal: Answer) {
    upstream.rule(move |request| request.header("Range").map(|_| refusal.clone()));
}

#[tokio::test]
async fn a_fill_whose_further_requests_are_all_refused_keeps_the_connection_it_has() {
    let worlds = [429, 503].map(|status| async move {
        let world = World::new().await;
        let content = bytes(1, 34 * MIB);
        let digest = world.upstream.put_blob("team/app", slow(&content));
        let refusal = Answer::error(status, "TOOMANYREQUESTS");
        no_more_requests(&world.upstream, refusal);
        costs(&world, &target(&digest), &content, 101).await;
    });
    join_all(worlds).await;
}

#[tokio::test]
async fn a_far_reader_does_not_make_the_mirror_ask_again_and_again() {
    let world = World::new().await;
    // Too small for a further connection to be wanted for the sake of speed.
    let content = bytes(1, 30 * MIB);
    let digest = world.upstream.put_blob("team/app", slow(&content));
    let refusal = Answer::error(429, "TOOMANYREQUESTS").header("Retry-After", "60");
    no_more_requests(&world.upstream, refusal);
    let target = target(&digest);
    let far = 29 * MIB;
    let front = costs(&world, &target, &content, 101);
    let (given, ()) = tokio::join!(chunk(&world.mirror, &target, far, KIB), front);
    assert_eq!(given, content.slice(far..far + KIB));
    let asked = world.upstream.requests("GET", &target).len();
    assert!(asked <= 6, "{asked} requests");
}
