//! What becomes of a tag that upstream says is not there, or not for us.

use futures_util::future::join_all;

use super::{AFTER_STALE, AFTER_TTL, TAG, asked, is_stale, warm};
use crate::harness::content::Image;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Upstream};
use crate::harness::world::World;

#[tokio::test]
async fn a_tag_that_upstream_takes_back_is_gone() {
    let answers = [
        (401, 403, "DENIED"),
        (403, 403, "DENIED"),
        (404, 404, "MANIFEST_UNKNOWN"),
    ];
    // Some times over, because the disk hears of it behind the answer.
    for (upstream, status, code) in answers.repeat(5) {
        let world = warm("").await;
        world.upstream.answer("/v2/*", Answer::status(upstream));
        world.mirror.clock.advance(AFTER_TTL);
        world.mirror.get(TAG).await.expect_error(status, code);
        // An outage after that does not bring it up again.
        world.upstream.stop().await;
        let answer = world.mirror.get(TAG).await;
        assert!(answer.status >= 400, "{upstream}: {answer:?}");
    }
}

#[tokio::test]
async fn what_was_missing_is_there_soon_after_it_is_pushed() {
    let world = World::new().await;
    world
        .mirror
        .get(TAG)
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    world.mirror.clock.advance(11);
    world.mirror.get(TAG).await.expect(200);
}

#[tokio::test]
async fn a_tag_that_was_removed_is_gone() {
    let world = warm("").await;
    world.upstream.remove_tag("team/app", "v1");
    world.mirror.get(TAG).await.expect(200);
    world.mirror.clock.advance(AFTER_TTL);
    world
        .mirror
        .get(TAG)
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
    // But not what it pointed to.
    let digest = format!("/v2/team/app/manifests/{}", Image::new(1).manifest.digest());
    world.mirror.get(&digest).await.expect(200);
}

#[tokio::test]
async fn a_404_is_remembered_for_two_seconds() {
    let world = World::new().await;
    let digest = format!("/v2/team/app/manifests/{}", Image::new(1).manifest.digest());
    for target in [TAG, &digest] {
        let ask = async |status| drop(world.mirror.get(target).await.expect(status));
        world.upstream.forget();
        for _ in 0..5 {
            ask(404).await;
            world.mirror.head(target).await.expect(404);
        }
        assert_eq!(world.upstream.log().len(), 1, "{target}");
        world.mirror.clock.advance(2);
        ask(404).await;
        assert_eq!(world.upstream.log().len(), 2, "{target}");
    }
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    world.mirror.clock.advance(2);
    for target in [TAG, &digest] {
        world.mirror.get(target).await.expect(200);
    }
}

#[tokio::test]
async fn a_404_is_about_one_thing_in_one_repository_of_one_registry() {
    let (one, other) = (Upstream::start().await, Upstream::start().await);
    let setup = Setup::new()
        .upstream("one.example", &one)
        .upstream("other.example", &other);
    let mirror = setup.start().await;
    other.put_image("team/app", "v1", &Image::new(1));
    one.put_image("team/app", "v2", &Image::new(2));
    one.put_image("team/base", "v1", &Image::new(3));
    let ask = async |namespace, rest| {
        let target = format!("/v2/{rest}?ns={namespace}");
        mirror.get(&target).await.status
    };
    assert_eq!(ask("one.example", "team/app/manifests/v1").await, 404);
    assert_eq!(ask("other.example", "team/app/manifests/v1").await, 200);
    assert_eq!(ask("one.example", "team/app/manifests/v2").await, 200);
    assert_eq!(ask("one.example", "team/base/manifests/v1").await, 200);
    assert_eq!(ask("one.example", "team/app/manifests/v1").await, 404);
    assert_eq!(one.requests("GET", "/v2/team/app/manifests/v1").len(), 1);
}

#[tokio::test]
async fn a_404_of_a_known_tag_is_remembered_too() {
    let world = warm("").await;
    world.upstream.remove_tag("team/app", "v1");
    world.mirror.clock.advance(AFTER_TTL);
    for _ in 0..5 {
        let answer = world.mirror.get(TAG).await;
        answer.expect_error(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(asked(&world), (1, 0));
}

#[tokio::test]
async fn a_refusal_is_never_remembered() {
    for status in [401, 403] {
        let world = World::new().await;
        world.upstream.put_image("team/app", "v1", &Image::new(1));
        world.upstream.answer("/v2/*", Answer::status(status));
        for n in 1..=3 {
            world.mirror.get(TAG).await.expect_error(403, "DENIED");
            assert!(world.upstream.log().len() >= n);
        }
        world.upstream.behave();
        world.mirror.get(TAG).await.expect(200);
    }
}

#[tokio::test]
async fn clients_of_what_is_missing_cost_one_question() {
    let world = World::new().await;
    for answer in join_all((0..50).map(|_| world.mirror.get(TAG))).await {
        answer.expect_error(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(asked(&world), (0, 1));
}

/// A2.18, and what a rule may say about it.
#[tokio::test]
async fn what_was_taken_back_is_served_where_a_rule_says_so() {
    for (line, upstream, expected) in [
        ("on_not_found: serve", 404, 200),
        ("on_not_found: serve", 401, 403),
        ("on_not_found: serve", 403, 403),
        ("on_unauthorized: serve", 404, 404),
        ("on_unauthorized: serve", 401, 200),
        ("on_unauthorized: serve", 403, 200),
        ("on_not_found: deny", 404, 404),
    ] {
        let world = warm(&format!("manifests: {{ {line} }}")).await;
        world.upstream.answer("/v2/*", Answer::status(upstream));
        world.mirror.clock.advance(AFTER_TTL);
        if expected != 200 {
            let answer = world.mirror.get(TAG).await;
            assert_eq!(answer.status, expected, "{line} {upstream}");
            continue;
        }
        is_stale(&world).await;
        // Again and again, but not for ever.
        world.mirror.clock.advance(24 * 60 * 60);
        is_stale(&world).await;
        world.mirror.clock.advance(AFTER_STALE);
        let status = if upstream == 404 { 404 } else { 403 };
        assert_eq!(world.mirror.get(TAG).await.status, status);
        // And it is back when upstream has it back.
        world.upstream.behave();
        world.mirror.clock.advance(2);
        let answer = world.mirror.get(TAG).await;
        assert_eq!(answer.header("Warning"), None);
        answer.expect(200);
    }
}

/// C-28, as far as it is about tags: what is taken away is gone here at the first look, and stays so.
#[tokio::test]
async fn access_that_was_taken_away_is_gone_after_a_restart_too() {
    for upstream in [401, 403, 404] {
        let mut world = warm("").await;
        world.upstream.answer("/v2/*", Answer::status(upstream));
        world.mirror.clock.advance(AFTER_TTL);
        assert!(world.mirror.get(TAG).await.status >= 400);
        world.mirror.stop().await;
        world.upstream.stop().await;
        let mirror = world.mirror.start_again().await;
        let answer = mirror.get(TAG).await;
        assert!(answer.status >= 400, "{upstream}: {answer:?}");
    }
}
