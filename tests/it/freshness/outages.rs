//! What is served while upstream is in trouble.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{AFTER_STALE, AFTER_TTL, TAG, asked, expect_stale, is_stale, warm};
use crate::harness::clock;
use crate::harness::content::{Image, MIB};
use crate::harness::gate::Gate;
use crate::harness::upstream::{Answer, Guard, Seen};

#[tokio::test]
async fn a_stale_tag_is_served_when_upstream_is_down() {
    let world = warm("").await;
    world.upstream.stop().await;
    world.mirror.get(TAG).await.expect(200);
    world.mirror.clock.advance(AFTER_TTL);
    is_stale(&world).await;
    world.mirror.clock.advance(24 * 60 * 60);
    is_stale(&world).await;
    // There is an end to it.
    world.mirror.clock.advance(AFTER_STALE);
    world.mirror.get(TAG).await.expect_error(502, "UNAVAILABLE");
    // And it is back soon after upstream is.
    world.upstream.resume().await;
    clock::pass(60).await;
    let answer = world.mirror.get(TAG).await;
    assert_eq!(answer.header("Warning"), None);
    answer.expect(200);
}

#[tokio::test]
async fn a_stale_tag_is_served_when_upstream_is_in_trouble() {
    for status in [408, 429, 500, 502, 503, 504] {
        let world = warm("").await;
        world.upstream.answer("/v2/*", Answer::status(status));
        world.mirror.clock.advance(AFTER_TTL);
        is_stale(&world).await;
        world.upstream.behave();
    }
}

#[tokio::test]
async fn a_stale_tag_is_served_when_upstream_sends_something_else() {
    let world = warm("").await;
    let page = Answer::ok("text/html", "<html>Maintenance</html>");
    world.upstream.answer("/v2/*", page);
    world.mirror.clock.advance(AFTER_TTL);
    is_stale(&world).await;
}

#[tokio::test]
async fn a_stale_tag_is_served_when_upstream_is_slow_and_the_check_goes_on() {
    let world = warm("").await;
    let moved = Image::new(2);
    world.upstream.put_image("team/app", "v1", &moved);
    let gate = Gate::closed();
    let waiting = gate.clone();
    let held = moved.manifest.clone();
    world.upstream.rule(move |request: &Seen| {
        let answer = Answer::ok(&held.media_type, held.bytes.clone())
            .header("Docker-Content-Digest", &held.digest());
        (request.method == "HEAD").then(|| answer.after(&waiting))
    });
    world.mirror.clock.advance(AFTER_TTL);
    let slow = async {
        gate.reached().await;
        clock::pass(1).await;
    };
    let (stale, ()) = tokio::join!(world.mirror.get(TAG), slow);
    expect_stale(&stale);
    assert_eq!(stale.expect(200), Image::new(1).manifest.bytes);
    // The check was not given up: what it brings is there for the next.
    gate.open();
    world.upstream.wait_until(1, "GET", TAG).await;
    let next = world.mirror.get(TAG).await;
    assert_eq!(next.expect(200), moved.manifest.bytes);
    assert_eq!(asked(&world), (1, 1));
}

#[tokio::test]
async fn a_check_that_needs_a_get_is_not_waited_for_either() {
    let world = warm("").await;
    let moved = Image::new(2).manifest;
    let gate = Gate::closed();
    // Who does not tell digests has not said yet that the tag moved.
    let bare = Answer::ok(&moved.media_type, moved.bytes.clone());
    world.upstream.answer_to("HEAD", TAG, bare.clone());
    world.upstream.answer_to("GET", TAG, bare.after(&gate));
    world.mirror.clock.advance(AFTER_TTL);
    let slow = async {
        gate.reached().await;
        clock::pass(1).await;
    };
    let (stale, ()) = tokio::join!(world.mirror.get(TAG), slow);
    expect_stale(&stale);
    gate.open();
    assert_eq!(stale.expect(200), Image::new(1).manifest.bytes);
    let next = world.mirror.get(TAG).await;
    assert_eq!(next.expect(200), moved.bytes);
}

#[tokio::test]
async fn upstream_is_waited_for_where_there_is_nothing_stale_to_serve() {
    let world = warm("manifests: { stale_if_error: 0s }").await;
    let moved = Image::new(2);
    world.upstream.put_image("team/app", "v1", &moved);
    let gate = Gate::closed();
    let waiting = gate.clone();
    let digest = moved.manifest.digest();
    world.upstream.rule(move |request: &Seen| {
        let answer = Answer::status(200).header("Docker-Content-Digest", &digest);
        (request.method == "HEAD").then(|| answer.after(&waiting))
    });
    world.mirror.clock.advance(AFTER_TTL);
    let slow = async {
        gate.reached().await;
        clock::pass(5).await;
        gate.open();
    };
    let (answer, ()) = tokio::join!(world.mirror.get(TAG), slow);
    assert_eq!(answer.expect(200), moved.manifest.bytes);
}

/// F12, and the profiles hub-429-pull and hub-429-abuse of registries.md.
#[tokio::test]
async fn a_rate_limit_costs_a_known_tag_nothing_and_is_passed_on_for_an_unknown_one() {
    let json = Answer::error(429, "TOOMANYREQUESTS");
    let text = Answer::status(429)
        .header("Content-Type", "text/plain")
        .body("Too Many Requests");
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (limited, retry_after) in [
        (json, None),
        (text.clone(), None),
        (text.clone().header("Retry-After", "7"), Some(7)),
        (text.header("Retry-After", past), None),
    ] {
        let world = warm("").await;
        world.upstream.answer("/v2/*", limited);
        world.mirror.clock.advance(AFTER_TTL);
        is_stale(&world).await;
        let unknown = world.mirror.get("/v2/team/other/manifests/v1").await;
        let told = unknown.header("Retry-After").expect("a time").to_owned();
        if let Some(retry_after) = retry_after {
            // The mirror does not come back at the very second, so it tells one more, rounded up.
            let told: u64 = told.parse().expect("seconds");
            assert!((retry_after..=retry_after + 1).contains(&told), "{told} s");
        }
        unknown.expect_error(429, "TOOMANYREQUESTS");
    }
}

/// F13.
#[tokio::test]
async fn a_registry_that_fails_now_and_then_fails_no_pull_of_a_known_tag() {
    let world = warm("manifests: { ignore: v1 }").await;
    let turn = AtomicUsize::new(0);
    world.upstream.rule(move |_: &Seen| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let status = [500, 502, 503][turn % 3];
        turn.is_multiple_of(4).then(|| Answer::status(status))
    });
    for _ in 0..40 {
        let answer = world.mirror.get(TAG).await;
        assert_eq!(answer.expect(200), Image::new(1).manifest.bytes);
    }
}

/// F14, as far as it is about tags.
#[tokio::test]
async fn a_stale_tag_is_served_when_the_token_service_is_in_trouble() {
    let huge = Answer::ok("application/json", vec![b' '; 10 * MIB]);
    let troubles = [
        Answer::status(500),
        Answer::status(503),
        Answer::status(429),
        Answer::ok("application/json", "{ \"token\": "),
        Answer::ok("application/json", "{}"),
        huge,
    ];
    for trouble in troubles {
        let world = warm("").await;
        let upstream = &world.upstream;
        let guard = Guard::bearer(&upstream.url("/token"), "registry.example");
        let guard = guard.issuing(move |_, _| trouble.clone());
        guard.stand(upstream, upstream, "/token");
        world.mirror.clock.advance(AFTER_TTL);
        is_stale(&world).await;
    }
}

/// F14: a refusal is no trouble.
#[tokio::test]
async fn a_token_service_that_says_no_is_believed() {
    for status in [401, 403] {
        let world = warm("").await;
        let upstream = &world.upstream;
        let guard = Guard::bearer(&upstream.url("/token"), "registry.example");
        let guard = guard.issuing(move |_, _| Answer::error(status, "DENIED"));
        guard.stand(upstream, upstream, "/token");
        world.mirror.clock.advance(AFTER_TTL);
        world
            .mirror
            .get(TAG)
            .await
            .expect_error(401, "UNAUTHORIZED");
    }
}

/// C-51: what an old mirror says is bounded in time and said to be old, and a digest is a digest.
#[tokio::test]
async fn staleness_is_bounded_and_no_matter_of_digests() {
    let world = warm("manifests: { ttl: 1m, stale_if_error: 1h }").await;
    world.upstream.stop().await;
    world.mirror.clock.advance(3600);
    is_stale(&world).await;
    assert!(world.mirror.metrics().await.contains(r#"result="stale""#));
    world.mirror.clock.advance(61);
    world.mirror.get(TAG).await.expect_error(502, "UNAVAILABLE");
    let digest = format!("/v2/team/app/manifests/{}", Image::new(1).manifest.digest());
    let answer = world.mirror.get(&digest).await;
    assert_eq!(answer.header("Warning"), None);
    answer.expect(200);
}

/// C-53: only what is verified is ever linked.
#[tokio::test]
async fn what_is_no_manifest_never_becomes_a_tag() {
    let right = Image::new(1).manifest;
    let other = Image::new(2).manifest;
    let claimed = |answer: Answer| answer.header("Docker-Content-Digest", &other.digest());
    let half = other.bytes.slice(..other.bytes.len() / 2);
    for wrong in [
        Answer::ok("text/html", "<html>Log in</html>"),
        claimed(Answer::ok(&other.media_type, half)),
        claimed(Answer::ok(&other.media_type, right.bytes.clone())),
        claimed(Answer::ok("application/octet-stream", "\0\0")),
    ] {
        let mut world = warm("").await;
        world.upstream.answer(TAG, wrong);
        world.mirror.clock.advance(AFTER_TTL);
        is_stale(&world).await;
        world.upstream.stop().await;
        world.mirror.stop().await;
        let mirror = world.mirror.start_again().await;
        assert_eq!(mirror.get(TAG).await.expect(200), right.bytes);
    }
}
