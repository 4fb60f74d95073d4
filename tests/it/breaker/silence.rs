//! An upstream that takes questions and says nothing: who waits for it, and for how long.

use std::time::{Duration, Instant};

use super::{AFTER_TTL, is_left_alone};
use crate::harness::clock;
use crate::harness::content::{Image, Manifest, OCI_INDEX};
use crate::harness::gate::Gate;
use crate::harness::upstream::Answer;
use crate::harness::world::World;

const TAGS: u8 = 8;

/// How soon the first stale answer must be there, and all that follow.
const FIRST: Duration = Duration::from_secs(1);
const THEN: Duration = Duration::from_millis(20);

fn tag(n: u8) -> String {
    format!("/v2/team/app/manifests/v{n}")
}

/// A world in which all tags were pulled and are not fresh any more, and whose upstream is silent until the gate opens.
async fn silent() -> (World, Gate) {
    let world = World::new().await;
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
    (world, gate)
}

/// How long a stale answer takes.
async fn stale(world: &World, target: &str) -> Duration {
    let asked = Instant::now();
    let answer = world.mirror.get(target).await;
    let took = asked.elapsed();
    assert!(answer.header("Warning").is_some(), "{answer:?}");
    answer.expect(200);
    took
}

/// The median: somebody else may be busy on the machine of the test.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn one_caller_waits_for_an_upstream_that_is_silent_and_nobody_after_that() {
    let (world, _gate) = silent().await;
    let first = stale(&world, &tag(0)).await;
    assert!(first <= FIRST, "{first:?}");
    assert!(
        first >= Duration::from_millis(700),
        "it was given a chance: {first:?}"
    );
    // No time-out has struck yet, and no breaker is open.
    assert!(!is_left_alone(&world).await);
    let mut times = Vec::new();
    for n in 1..TAGS {
        times.push(stale(&world, &tag(n)).await);
        times.push(stale(&world, &tag(0)).await);
    }
    assert!(median(times.clone()) <= THEN, "{times:?}");
    // Each was asked about all the same, behind: one question a tag.
    while world.upstream.log().len() < usize::from(TAGS) {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.upstream.log().len(), usize::from(TAGS));
}

#[tokio::test]
async fn who_has_nothing_else_waits_for_a_silent_upstream_all_the_same() {
    let (world, gate) = silent().await;
    stale(&world, &tag(0)).await;
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
    let (world, gate) = silent().await;
    stale(&world, &tag(0)).await;
    assert!(stale(&world, &tag(1)).await <= FIRST / 2);
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

#[tokio::test]
async fn whoever_tries_for_all_after_a_time_out_does_not_wait_for_it_with_a_copy_in_hand() {
    let (world, gate) = silent().await;
    stale(&world, &tag(0)).await;
    clock::pass(20).await;
    // What has struck is noticed, and the upstream is left alone.
    while !is_left_alone(&world).await {
        stale(&world, &tag(0)).await;
    }
    let mut times = Vec::new();
    for n in 0..5 {
        // The pause is over: this one tries, and is served meanwhile.
        clock::pass(62).await;
        times.push(stale(&world, &tag(n % TAGS)).await);
        // The same again joins what it tries, and another is refused.
        times.push(stale(&world, &tag(n % TAGS)).await);
        times.push(stale(&world, &tag(7)).await);
    }
    assert!(median(times.clone()) <= THEN, "{times:?}");
    world.upstream.behave();
    gate.open();
    clock::pass(62).await;
    while world.mirror.get(&tag(0)).await.header("Warning").is_some() {
        tokio::task::yield_now().await;
    }
    assert!(!is_left_alone(&world).await);
}

#[tokio::test]
async fn lists_do_not_wait_for_a_silent_upstream_either() {
    let world = World::new().await;
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
    let tag = "/v2/team/app/manifests/v1";
    assert!(stale(&world, tag).await <= FIRST);
    let mut times = Vec::new();
    for n in 0..6 {
        times.push(stale(&world, &lists[n % 2]).await);
    }
    assert!(median(times.clone()) <= THEN, "{times:?}");
}
