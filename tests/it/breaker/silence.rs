//! An upstream that takes questions and says nothing: who waits for it, and for how long.

use std::time::Duration;

use super::pace::Pace;
use super::{AFTER_TTL, is_left_alone};
use crate::harness::client::Answer as Answered;
use crate::harness::clock;
use crate::harness::content::{Image, Manifest, OCI_INDEX};
use crate::harness::gate::Gate;
use crate::harness::upstream::Answer;
use crate::harness::world::World;

const TAGS: u8 = 8;

fn tag(n: u8) -> String {
    format!("/v2/team/app/manifests/v{n}")
}

/// A world in which all tags were pulled and are not fresh any more, and whose upstream is silent until the gate opens.
async fn silent() -> (World, Gate, Pace) {
    let (world, pace) = Pace::world().await;
    for n in 0..TAGS {
        world
            .upstream
            .put_image("team/app", &format!("v{n}"), &Image::new(n.into()));
        world.mirror.get(&tag(n)).await.expect(200);
    }
    world.mirror.clock.advance(AFTER_TTL);
    let gate = Gate::closed();
    world
        .upstream
        .answer("/v2/*", Answer::status(503).after(&gate));
    world.upstream.forget();
    (world, gate, pace)
}

/// Takes and gives the time of a stale answer.
async fn stale(pace: &mut Pace, world: &World, target: &str) -> Duration {
    let is_stale = |answer: Answered| {
        assert!(answer.header("Warning").is_some(), "{answer:?}");
        answer.expect(200);
    };
    pace.of(world, &[target.to_owned()], is_stale).await
}

#[tokio::test]
async fn one_caller_waits_for_an_upstream_that_is_silent_and_nobody_after_that() {
    let (world, _gate, mut pace) = silent().await;
    let first = stale(&mut pace, &world, &tag(0)).await;
    pace.assert_soon("the first");
    assert!(
        first >= Duration::from_millis(700),
        "it was given a chance: {first:?}"
    );
    // No time-out has struck yet, and no breaker is open.
    assert!(!is_left_alone(&world).await);
    pace.forget();
    for n in 1..TAGS {
        stale(&mut pace, &world, &tag(n)).await;
        stale(&mut pace, &world, &tag(0)).await;
    }
    pace.assert_at_once("the others");
    // Each was asked about all the same, behind: one question a tag.
    while world.upstream.log().len() < usize::from(TAGS) {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.upstream.log().len(), usize::from(TAGS));
}

#[tokio::test]
async fn who_has_nothing_else_waits_for_a_silent_upstream_all_the_same() {
    let (world, gate, mut pace) = silent().await;
    stale(&mut pace, &world, &tag(0)).await;
    world.upstream.behave();
    world.upstream.put_image("team/app", "new", &Image::new(99));
    world
        .mirror
        .get("/v2/team/app/manifests/new")
        .await
        .expect(200);
    gate.open();
}

#[tokio::test]
async fn an_upstream_that_is_heard_of_again_is_waited_for_again() {
    let (world, gate, mut pace) = silent().await;
    stale(&mut pace, &world, &tag(0)).await;
    pace.forget();
    stale(&mut pace, &world, &tag(1)).await;
    pace.assert_at_once("the second");
    // One that answers somebody is not silent, however long others have waited.
    world.upstream.behave();
    world.upstream.put_image("team/app", "new", &Image::new(99));
    world
        .mirror
        .get("/v2/team/app/manifests/new")
        .await
        .expect(200);
    let answer = world.mirror.get(&tag(2)).await;
    assert_eq!(answer.header("Warning"), None, "{answer:?}");
    answer.expect(200);
    gate.open();
}

/// The upstream has timed out, and is left alone.
async fn left_alone(pace: &mut Pace, world: &World) {
    stale(pace, world, &tag(0)).await;
    clock::pass(16).await;
    // What has struck is noticed.
    while !is_left_alone(world).await {
        stale(pace, world, &tag(0)).await;
    }
}

#[tokio::test]
async fn whoever_tries_right_after_the_pause_does_not_wait_for_it_with_a_copy_in_hand() {
    let (world, gate, mut pace) = silent().await;
    left_alone(&mut pace, &world).await;
    pace.forget();
    for n in 0..5 {
        let asked = world.upstream.log().len();
        while world.upstream.log().len() == asked {
            // Once the pause is over this one tries, and is served meanwhile.
            clock::pass(2).await;
            stale(&mut pace, &world, &tag(n % TAGS)).await;
            // The same again joins what it tries, and another is refused.
            stale(&mut pace, &world, &tag(n % TAGS)).await;
            stale(&mut pace, &world, &tag(7)).await;
        }
        clock::pass(16).await;
        assert!(is_left_alone(&world).await);
    }
    pace.assert_at_once("all");
    pace.assert_nobody_waited("who tries");
    gate.open();
}

#[tokio::test]
async fn whoever_tries_long_after_the_pause_gives_it_a_chance_and_sees_that_it_is_back() {
    let (world, gate, mut pace) = silent().await;
    left_alone(&mut pace, &world).await;
    // Nobody has asked for a minute, and nobody knows: one waits, and no other.
    clock::pass(62).await;
    pace.forget();
    let first = stale(&mut pace, &world, &tag(1)).await;
    assert!(first >= Duration::from_millis(700), "{first:?}");
    pace.assert_soon("who tries");
    pace.forget();
    for n in 0..TAGS {
        stale(&mut pace, &world, &tag(n)).await;
    }
    pace.assert_at_once("the others");
    // Its time-out strikes, and is noticed while something else is answered.
    clock::pass(16).await;
    assert!(is_left_alone(&world).await);

    // It is back, and tags have moved meanwhile: what is old is not given to anybody any more.
    world.upstream.behave();
    gate.open();
    for n in 0..TAGS {
        let moved = Image::new(100 + u64::from(n));
        world
            .upstream
            .put_image("team/app", &format!("v{n}"), &moved);
    }
    clock::pass(62).await;
    for n in 0..TAGS {
        let answer = world.mirror.get(&tag(n)).await;
        assert_eq!(answer.header("Warning"), None, "{answer:?}");
        let moved = Image::new(100 + u64::from(n)).manifest;
        assert_eq!(answer.expect(200), moved.bytes);
    }
    assert!(!is_left_alone(&world).await);
}

#[tokio::test]
async fn lists_do_not_wait_for_a_silent_upstream_either() {
    let (world, mut pace) = Pace::world().await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    let index = Manifest::index(OCI_INDEX, &[&image.manifest]);
    world.upstream.put_manifest("team/app", "all", &index);
    let lists = [
        "/v2/team/app/tags/list".to_owned(),
        format!("/v2/team/app/referrers/{}", index.digest()),
    ];
    world
        .mirror
        .get("/v2/team/app/manifests/v1")
        .await
        .expect(200);
    for list in &lists {
        world.mirror.get(list).await.expect(200);
    }
    let gate = Gate::closed();
    world
        .upstream
        .answer("/v2/*", Answer::status(503).after(&gate));
    world.mirror.clock.advance(AFTER_TTL);
    // That a tag is not confirmed in time is enough.
    stale(&mut pace, &world, "/v2/team/app/manifests/v1").await;
    pace.assert_soon("the tag");
    pace.forget();
    for n in 0..6 {
        stale(&mut pace, &world, &lists[n % 2]).await;
    }
    pace.assert_at_once("lists");
}
