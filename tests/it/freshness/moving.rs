//! What it costs to learn whether a tag moved.

use futures_util::future::join_all;

use super::{AFTER_TTL, BEFORE_TTL, TAG, asked, is_stale, warm};
use crate::harness::client::Request;
use crate::harness::clock;
use crate::harness::content::Image;
use crate::harness::gate::Gate;
use crate::harness::upstream::Answer;
use crate::harness::world::World;

#[tokio::test]
async fn a_fresh_tag_is_not_asked_for() {
    let world = warm("").await;
    for _ in 0..10 {
        world.mirror.clock.advance(BEFORE_TTL / 10);
        let answer = world.mirror.get(TAG).await;
        assert_eq!(answer.header("Cache-Status"), Some("entrepot; hit"));
        answer.expect(200);
    }
    assert_eq!(asked(&world), (0, 0));
}

#[tokio::test]
async fn a_tag_that_did_not_move_costs_a_head() {
    let world = warm("").await;
    for n in 1..=3 {
        world.mirror.clock.advance(AFTER_TTL);
        for _ in 0..3 {
            let answer = world.mirror.get(TAG).await;
            assert_eq!(answer.expect(200), Image::new(1).manifest.bytes);
            world.mirror.head(TAG).await.expect(200);
        }
        assert_eq!(asked(&world), (n, 0));
    }
}

#[tokio::test]
async fn a_tag_that_moved_costs_a_head_and_a_get() {
    let world = warm("").await;
    let moved = Image::new(2);
    world.upstream.put_image("team/app", "v1", &moved);
    // A2.16: until then it is the old one, for HEAD and GET alike.
    world.mirror.clock.advance(60);
    let old = world.mirror.get(TAG).await;
    assert_eq!(old.expect(200), Image::new(1).manifest.bytes);

    world.mirror.clock.advance(AFTER_TTL);
    let head = world.mirror.head(TAG).await;
    assert_eq!(
        head.header("Docker-Content-Digest"),
        Some(&*moved.manifest.digest())
    );
    let get = world.mirror.get(TAG).await;
    assert_eq!(
        get.header("Docker-Content-Digest"),
        Some(&*moved.manifest.digest())
    );
    assert_eq!(get.expect(200), moved.manifest.bytes);
    assert_eq!(asked(&world), (1, 1));
    // The old one is still there by its digest.
    let old = format!("/v2/team/app/manifests/{}", Image::new(1).manifest.digest());
    world.mirror.get(&old).await.expect(200);
    assert_eq!(asked(&world), (1, 1));
}

#[tokio::test]
async fn a_tag_that_moves_back_costs_no_get() {
    let world = warm("").await;
    for seed in [2, 1, 2, 1] {
        world
            .upstream
            .put_image("team/app", "v1", &Image::new(seed));
        world.mirror.clock.advance(AFTER_TTL);
        let answer = world.mirror.get(TAG).await;
        assert_eq!(answer.expect(200), Image::new(seed).manifest.bytes);
    }
    assert_eq!(asked(&world), (4, 1), "one for the second image");
}

#[tokio::test]
async fn clients_of_a_tag_that_is_not_fresh_cost_one_head() {
    let world = warm("").await;
    world.mirror.clock.advance(AFTER_TTL);
    let answers = join_all((0..50).map(|_| world.mirror.get(TAG))).await;
    for answer in answers {
        assert_eq!(answer.expect(200), Image::new(1).manifest.bytes);
    }
    assert_eq!(asked(&world), (1, 0));
}

#[tokio::test]
async fn clients_of_a_tag_that_moved_cost_one_get() {
    let world = warm("").await;
    let moved = Image::new(2);
    world.upstream.put_image("team/app", "v1", &moved);
    world.mirror.clock.advance(AFTER_TTL);
    let answers = join_all((0..50).map(|_| world.mirror.get(TAG))).await;
    for answer in answers {
        assert_eq!(answer.expect(200), moved.manifest.bytes);
    }
    assert_eq!(asked(&world), (1, 1));
}

#[tokio::test]
async fn an_upstream_that_does_not_tell_digests_is_asked_by_get() {
    let world = warm("").await;
    let manifest = Image::new(1).manifest;
    let bare = Answer::ok(&manifest.media_type, manifest.bytes.clone());
    world.upstream.answer(TAG, bare);
    world.mirror.clock.advance(AFTER_TTL);
    assert_eq!(world.mirror.get(TAG).await.expect(200), manifest.bytes);
    assert_eq!(asked(&world).1, 1);
}

#[tokio::test]
async fn an_upstream_that_knows_no_head_is_asked_by_get() {
    for status in [405, 501] {
        let world = warm("").await;
        world
            .upstream
            .answer_to("HEAD", "/v2/*", Answer::status(status));
        let moved = Image::new(2);
        world.upstream.put_image("team/app", "v1", &moved);
        world.mirror.clock.advance(AFTER_TTL);
        let answer = world.mirror.get(TAG).await;
        assert_eq!(answer.expect(200), moved.manifest.bytes, "{status}");
    }
}

#[tokio::test]
async fn a_condition_is_judged_after_the_check() {
    let world = warm("").await;
    let moved = Image::new(2);
    let condition = format!("\"{}\"", Image::new(1).manifest.digest());
    let ask = || Request::get(TAG).header("If-None-Match", &condition);
    world.mirror.clock.advance(AFTER_TTL);
    assert_eq!(world.mirror.send(ask()).await.status, 304);
    assert_eq!(asked(&world), (1, 0));
    world.upstream.put_image("team/app", "v1", &moved);
    world.mirror.clock.advance(AFTER_TTL);
    let answer = world.mirror.send(ask()).await;
    assert_eq!(answer.expect(200), moved.manifest.bytes);
}

/// Lets the tag move, with a GET that waits at the gate.
fn moves_slowly(world: &World, moved: &Image) -> Gate {
    world.upstream.put_image("team/app", "v1", moved);
    let gate = Gate::closed();
    let answer = Answer::ok(&moved.manifest.media_type, moved.manifest.bytes.clone());
    let answer = answer
        .header("Docker-Content-Digest", &moved.manifest.digest())
        .after(&gate);
    world.upstream.answer_to("GET", TAG, answer);
    gate
}

#[tokio::test]
async fn a_tag_that_is_known_to_have_moved_waits_for_what_it_moved_to() {
    let world = warm("").await;
    let moved = Image::new(2);
    let gate = moves_slowly(&world, &moved);
    world.mirror.clock.advance(AFTER_TTL);
    // The HEAD was answered at once, and the GET takes longer than anybody waits for a HEAD.
    let slow = async {
        gate.reached().await;
        clock::pass(5).await;
        gate.open();
    };
    let (answer, ()) = tokio::join!(world.mirror.get(TAG), slow);
    assert_eq!(answer.header("Warning"), None);
    assert_eq!(answer.expect(200), moved.manifest.bytes);
    assert_eq!(asked(&world), (1, 1));
}

#[tokio::test]
async fn clients_that_come_while_a_moved_tag_is_fetched_cost_nothing() {
    let world = warm("").await;
    let moved = Image::new(2);
    let gate = moves_slowly(&world, &moved);
    world.mirror.clock.advance(AFTER_TTL);
    let first = world.mirror.get(TAG);
    let others = async {
        gate.reached().await;
        let others = join_all((0..20).map(|_| world.mirror.get(TAG)));
        let open = async {
            clock::pass(5).await;
            gate.open();
        };
        tokio::join!(others, open).0
    };
    let (first, others) = tokio::join!(first, others);
    for answer in others.into_iter().chain([first]) {
        assert_eq!(answer.expect(200), moved.manifest.bytes);
    }
    assert_eq!(asked(&world), (1, 1));
}

#[tokio::test]
async fn a_tag_that_moved_is_stale_while_what_it_moved_to_cannot_be_fetched() {
    let world = warm("").await;
    let moved = Image::new(2);
    world.upstream.put_image("team/app", "v1", &moved);
    for status in [429, 500, 503] {
        world.upstream.answer_to("GET", TAG, Answer::status(status));
        world.mirror.clock.advance(AFTER_TTL);
        is_stale(&world).await;
        // The mirror leaves an upstream in trouble alone for a while.
        clock::pass(60).await;
    }
    world.upstream.behave();
    let answer = world.mirror.get(TAG).await;
    assert_eq!(answer.header("Warning"), None);
    assert_eq!(answer.expect(200), moved.manifest.bytes);
}

#[tokio::test]
async fn a_tag_that_moved_to_nothing_is_not_there() {
    let world = warm("").await;
    world.upstream.put_image("team/app", "v1", &Image::new(2));
    world
        .upstream
        .answer_to("GET", TAG, Answer::error(404, "MANIFEST_UNKNOWN"));
    world.mirror.clock.advance(AFTER_TTL);
    let answer = world.mirror.get(TAG).await;
    answer.expect_error(404, "MANIFEST_UNKNOWN");
}
