//! Clocks, which jump, and many tags at one time.

use futures_util::future::join_all;

use super::{AFTER_TTL, BEFORE_TTL, TAG, asked, warm};
use crate::harness::content::Image;
use crate::harness::world::World;

#[tokio::test]
async fn a_clock_that_is_set_back_freezes_no_tag() {
    let world = warm("").await;
    world.mirror.clock.advance(-365 * 24 * 60 * 60);
    let moved = Image::new(2);
    world.upstream.put_image("team/app", "v1", &moved);
    let answer = world.mirror.get(TAG).await;
    assert_eq!(answer.expect(200), moved.manifest.bytes);
}

/// F34.
#[tokio::test]
async fn a_clock_that_jumps_neither_freezes_a_tag_nor_starts_a_stampede() {
    const HOUR: i64 = 60 * 60;
    const YEAR: i64 = 365 * 24 * HOUR;
    for jump in [HOUR, -HOUR, YEAR, -YEAR] {
        let world = World::new().await;
        let targets: Vec<_> = (0..8)
            .map(|n| format!("/v2/team/app/manifests/t{n}"))
            .collect();
        for n in 0..8 {
            world
                .upstream
                .put_image("team/app", &format!("t{n}"), &Image::new(n));
        }
        let all = async || {
            let each = targets.iter().flat_map(|target| [target; 8]);
            for answer in join_all(each.map(|target| world.mirror.get(target))).await {
                assert_eq!(answer.header("Warning"), None);
                answer.expect(200);
            }
        };
        all().await;
        // There and back.
        for jump in [jump, -jump] {
            world.mirror.clock.advance(jump);
            world.upstream.forget();
            all().await;
            all().await;
            let (heads, gets) = asked(&world);
            assert!(heads <= 8 && gets == 0, "{jump}: {heads} {gets}");
        }
        // Everything is as it was.
        let moved = Image::new(100);
        world.upstream.put_image("team/app", "t0", &moved);
        world.mirror.clock.advance(AFTER_TTL);
        let answer = world.mirror.get(&targets[0]).await;
        assert_eq!(answer.expect(200), moved.manifest.bytes, "{jump}");
    }
}

#[tokio::test]
async fn tags_pulled_together_are_not_all_asked_for_together_again() {
    let world = World::new().await;
    let targets: Vec<_> = (0..60)
        .map(|n| format!("/v2/team/app/manifests/t{n}"))
        .collect();
    let image = Image::new(1);
    for n in 0..60 {
        world
            .upstream
            .put_image("team/app", &format!("t{n}"), &image);
    }
    let all = async || {
        world.upstream.forget();
        for answer in join_all(targets.iter().map(|target| world.mirror.get(target))).await {
            answer.expect(200);
        }
        asked(&world).0
    };
    all().await;
    world.mirror.clock.advance(BEFORE_TTL - 1);
    assert_eq!(all().await, 0, "none before nine tenths of its time");
    world.mirror.clock.advance((AFTER_TTL - BEFORE_TTL) / 2);
    let by_half_time = all().await;
    assert!((1..60).contains(&by_half_time), "{by_half_time}");
    world.mirror.clock.advance((AFTER_TTL - BEFORE_TTL) / 2 + 1);
    let the_rest = all().await;
    assert_eq!(by_half_time + the_rest, 60, "none after its time");
}
