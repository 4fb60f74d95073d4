//! Tags that are asked for every time, and times that were chosen.

use futures_util::future::join_all;

use super::{TAG, asked, is_stale, warm};
use crate::harness::content::Image;
use crate::harness::upstream::Answer;
use crate::harness::world::World;

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
    world.mirror.clock.advance(54);
    world.mirror.get(TAG).await.expect(200);
    assert_eq!(asked(&world), (0, 0));
    world.mirror.clock.advance(7);
    world.mirror.get(TAG).await.expect(200);
    assert_eq!(asked(&world), (1, 0));
    world.upstream.stop().await;
    world.mirror.clock.advance(61 + 3600);
    world.mirror.get(TAG).await.expect_error(502, "UNAVAILABLE");
}

#[tokio::test]
async fn an_ignored_tag_that_moves_is_seen_at_once() {
    // However long others may be served while they are asked for.
    for line in [
        "manifests: { ignore: '^v1$' }",
        "manifests: { cache: no }",
        "manifests: { ttl: 0s, ignore: '' }",
        "manifests: { ignore: v1, stale_while_revalidate: 1h }",
    ] {
        let world = warm(line).await;
        for seed in 2..5 {
            let moved = Image::new(seed);
            world.upstream.put_image("team/app", "v1", &moved);
            let answer = world.mirror.get(TAG).await;
            assert_eq!(answer.header("Warning"), None, "{line}");
            assert_eq!(answer.expect(200), moved.manifest.bytes, "{line}");
        }
        assert_eq!(asked(&world), (3, 3), "{line}");
    }
}

#[tokio::test]
async fn an_ignored_tag_is_served_with_a_warning_when_upstream_is_down() {
    let world = warm("manifests: { ignore: v1 }").await;
    world.upstream.stop().await;
    is_stale(&world).await;
    world.upstream.resume().await;
    let answer = world.mirror.get(TAG).await;
    assert_eq!(answer.header("Warning"), None);
    answer.expect(200);
}

#[tokio::test]
async fn an_ignored_tag_is_not_served_when_upstream_is_down_and_stale_ones_are_not_wanted() {
    let world = warm("manifests: { ignore: v1, stale_if_error: 0s }").await;
    world.mirror.get(TAG).await.expect(200);
    world.upstream.answer("/v2/*", Answer::status(503));
    let answer = world.mirror.get(TAG).await;
    answer.expect_error(502, "UNAVAILABLE");
    world.upstream.stop().await;
    let answer = world.mirror.get(TAG).await;
    answer.expect_error(502, "UNAVAILABLE");
}

#[tokio::test]
async fn clients_of_an_ignored_tag_share_a_question() {
    let world = warm("manifests: { ignore: v1 }").await;
    let moved = Image::new(2);
    world.upstream.put_image("team/app", "v1", &moved);
    for answer in join_all((0..50).map(|_| world.mirror.get(TAG))).await {
        assert_eq!(answer.expect(200), moved.manifest.bytes);
    }
    let (heads, gets) = asked(&world);
    assert!(heads < 50, "{heads}");
    assert_eq!(gets, 1);
}
