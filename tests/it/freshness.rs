//! For how long a tag is believed, and what becomes of it when upstream cannot say.

use futures_util::future::join_all;

use crate::harness::client::Request;
use crate::harness::clock;
use crate::harness::content::Image;
use crate::harness::gate::Gate;
use crate::harness::upstream::{Answer, Seen};
use crate::harness::world::World;

const TAG: &str = "/v2/team/app/manifests/v1";

/// Just more than the time for which a tag is believed, in seconds.
const AFTER_TTL: i64 = 15 * 60 + 1;

/// Just more than the time for which it may stand in after that, in seconds.
const AFTER_STALE: i64 = 7 * 24 * 60 * 60 + AFTER_TTL;

/// A world whose mirror has `team/app:v1`.
async fn warm(line: &str) -> World {
    let world = World::with_line(line).await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    world.mirror.get(TAG).await.expect(200);
    world.upstream.forget();
    world
}

/// How many HEADs and GETs there were.
fn asked(world: &World) -> (usize, usize) {
    let count = |method| world.upstream.requests(method, "*").len();
    (count("HEAD"), count("GET"))
}

#[tokio::test]
async fn a_fresh_tag_is_not_asked_for() {
    let world = warm("").await;
    for _ in 0..10 {
        world.mirror.clock.advance(89);
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
async fn an_ignored_tag_is_asked_for_every_time() {
    for (line, tag) in [
        ("", "latest"),
        ("", "not-the-latest-one"),
        ("manifests: { ignore: '^v\\d+$' }", "v1"),
        ("manifests: { cache: false }", "v1"),
    ] {
        let world = World::with_line(line).await;
        let image = Image::new(1);
        world.upstream.put_image("team/app", tag, &image);
        let target = format!("/v2/team/app/manifests/{tag}");
        for n in 0..3 {
            let answer = world.mirror.get(&target).await;
            assert_eq!(answer.expect(200), image.manifest.bytes);
            let (heads, gets) = asked(&world);
            assert_eq!((heads + gets, gets), (n + 1, 1), "{line} {tag}");
        }
        // The digest is believed for ever all the same.
        let digest = format!("/v2/team/app/manifests/{}", image.manifest.digest());
        world.mirror.get(&digest).await.expect(200);
        assert_eq!(asked(&world).1, 1);
    }
}

#[tokio::test]
async fn an_expression_of_ones_own_takes_the_place_of_the_usual_one() {
    let world = World::with_line("manifests: { ignore: '^dev$' }").await;
    world
        .upstream
        .put_image("team/app", "latest", &Image::new(1));
    for _ in 0..3 {
        world
            .mirror
            .get("/v2/team/app/manifests/latest")
            .await
            .expect(200);
    }
    assert_eq!(asked(&world), (0, 1));
}

#[tokio::test]
async fn a_ttl_of_ones_own_counts() {
    let world = warm("manifests: { ttl: 1m, stale_if_error: 1h }").await;
    world.mirror.clock.advance(59);
    world.mirror.get(TAG).await.expect(200);
    assert_eq!(asked(&world), (0, 0));
    world.mirror.clock.advance(2);
    world.mirror.get(TAG).await.expect(200);
    assert_eq!(asked(&world), (1, 0));
    world.upstream.stop().await;
    world.mirror.clock.advance(61 + 3600);
    world.mirror.get(TAG).await.expect_error(502, "UNAVAILABLE");
}

/// Asks for the stale tag and expects it, with a warning.
async fn is_stale(world: &World) {
    for method in ["GET", "HEAD"] {
        let answer = world.mirror.send(Request::new(method, TAG)).await;
        let warning = answer.header("Warning").expect("a warning");
        assert!(
            warning.starts_with("299 - \"") && warning.contains("stale"),
            "{warning}"
        );
        assert!(warning.len() <= 4096);
        let status = answer.header("Cache-Status").expect("a status");
        assert!(
            status.starts_with("entrepot; ") && status.contains("stale"),
            "{status}"
        );
        let body = answer.expect(200);
        assert!(method == "HEAD" || body == Image::new(1).manifest.bytes);
    }
}

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
    // And it is back when upstream is.
    world.upstream.resume().await;
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
    let status = stale.header("Cache-Status").expect("a status").to_owned();
    assert!(status.contains("stale"), "{status}");
    assert_eq!(stale.expect(200), Image::new(1).manifest.bytes);
    // The check was not given up: what it brings is there for the next.
    gate.open();
    world.upstream.wait_until(1, "GET", TAG).await;
    let next = world.mirror.get(TAG).await;
    assert_eq!(next.expect(200), moved.manifest.bytes);
    assert_eq!(asked(&world), (1, 1));
}

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
async fn clients_of_a_tag_that_is_not_fresh_cost_one_head() {
    let world = warm("").await;
    world.mirror.clock.advance(AFTER_TTL);
    let answers = join_all((0..16).map(|_| world.mirror.get(TAG))).await;
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
    let answers = join_all((0..16).map(|_| world.mirror.get(TAG))).await;
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

#[tokio::test]
async fn a_clock_that_is_set_back_freezes_no_tag() {
    let world = warm("").await;
    world.mirror.clock.advance(-365 * 24 * 60 * 60);
    let moved = Image::new(2);
    world.upstream.put_image("team/app", "v1", &moved);
    let answer = world.mirror.get(TAG).await;
    assert_eq!(answer.expect(200), moved.manifest.bytes);
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
