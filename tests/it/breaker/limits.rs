//! An upstream that limits the rate, and everything that it may say of that.

use futures_util::future::join_all;

use super::{TAG, is_left_alone};
use crate::harness::clock;
use crate::harness::content::{Image, sha256};
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Upstream};
use crate::harness::world::{REGISTRY, World};

/// Clients that all want something else, so that none of them waits for another's answer.
const CLIENTS: usize = 200;

fn targets() -> Vec<String> {
    let target = |n| match n % 3 {
        0 => format!("/v2/team/app/manifests/v{n}"),
        1 => format!("/v2/team/app/manifests/{}", sha256(&[n])),
        _ => format!("/v2/team/app/blobs/{}", sha256(&[n])),
    };
    (0..200_u8).map(target).collect()
}

#[tokio::test]
async fn two_hundred_clients_cost_one_request_a_window_and_endpoint() {
    let endpoints = [Upstream::start().await, Upstream::start().await];
    for endpoint in &endpoints {
        let limited = Answer::error(429, "TOOMANYREQUESTS").header("Retry-After", "60");
        endpoint.answer("/*", limited);
    }
    let urls: Vec<_> = endpoints.iter().map(|endpoint| endpoint.url("")).collect();
    let mirror = Setup::new().endpoints(REGISTRY, &urls, "").start().await;
    mirror.get(TAG).await.expect_error(429, "TOOMANYREQUESTS");
    let targets = targets();
    assert_eq!(targets.len(), CLIENTS);
    for window in 1..=3 {
        for endpoint in &endpoints {
            assert_eq!(endpoint.log().len(), window, "one asked, one tried");
        }
        let answers = join_all(targets.iter().map(|target| mirror.get(target))).await;
        for answer in answers {
            let after = answer.header("Retry-After").expect("a time");
            let after: u64 = after.parse().expect("seconds");
            assert!((1..=61).contains(&after), "{after}");
            answer.expect_error(429, "TOOMANYREQUESTS");
        }
        for endpoint in &endpoints {
            assert_eq!(endpoint.log().len(), window, "nobody asked");
        }
        clock::pass(62).await;
        let answers = join_all(targets.iter().map(|target| mirror.get(target))).await;
        for answer in answers {
            answer.expect_error(429, "TOOMANYREQUESTS");
        }
    }
}

#[tokio::test]
async fn everybody_is_served_once_the_window_is_over() {
    let world = World::new().await;
    for n in 0..20 {
        world
            .upstream
            .put_image("team/app", &format!("v{n}"), &Image::new(n));
    }
    let limited = Answer::error(429, "TOOMANYREQUESTS").header("Retry-After", "30");
    world.upstream.answer("/v2/*", limited);
    world
        .mirror
        .get(TAG)
        .await
        .expect_error(429, "TOOMANYREQUESTS");
    world.upstream.behave();
    clock::pass(28).await;
    world
        .mirror
        .get(TAG)
        .await
        .expect_error(429, "TOOMANYREQUESTS");
    clock::pass(4).await;
    // One is let through, and then everybody is.
    world.mirror.get(TAG).await.expect(200);
    let targets: Vec<_> = (0..20)
        .map(|n| format!("/v2/team/app/manifests/v{n}"))
        .collect();
    for answer in join_all(targets.iter().map(|target| world.mirror.get(target))).await {
        answer.expect(200);
    }
    assert!(!is_left_alone(&world).await);
}

/// Answers 429 with these headers once; gives how long clients are told to wait, in seconds.
async fn told(headers: &[(&str, &str)]) -> u64 {
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    let limited = headers
        .iter()
        .fold(Answer::status(429), |answer, (name, value)| {
            answer.header(name, value)
        });
    world.upstream.answer("/v2/*", limited);
    world
        .mirror
        .get(TAG)
        .await
        .expect_error(429, "TOOMANYREQUESTS");
    let answer = world.mirror.get(TAG).await;
    let after = answer.header("Retry-After").expect("a time");
    let seconds = after.parse().expect("seconds");
    answer.expect_error(429, "TOOMANYREQUESTS");
    assert_eq!(world.upstream.log().len(), 1);
    // Whatever it was, there is an end to it.
    world.upstream.behave();
    clock::pass(3602).await;
    world.mirror.get(TAG).await.expect(200);
    seconds
}

#[tokio::test]
async fn the_wait_is_what_upstream_asks_for_within_bounds() {
    let check = async |headers: &[(&str, &str)], least: u64| {
        let seconds = told(headers).await;
        assert!(
            (least..=least + 1).contains(&seconds),
            "{headers:?}: {seconds}"
        );
    };
    check(&[("Retry-After", "40")], 40).await;
    check(&[("Retry-After", "0")], 1).await;
    check(&[("Retry-After", "21600")], 3600).await;
    check(&[("RateLimit-Reset", "50")], 50).await;
    check(&[("RateLimit", "limit=100, remaining=0, reset=45")], 45).await;
    check(&[("RateLimit", r#""default";r=0;t=35"#)], 35).await;
    check(&[("Retry-After", "20"), ("RateLimit-Reset", "50")], 20).await;
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    check(&[("Retry-After", past)], 1).await;
    let far = "Fri, 31 Dec 9999 23:59:59 GMT";
    check(&[("Retry-After", far)], 3600).await;
}

#[tokio::test]
async fn a_wait_that_makes_no_sense_is_a_short_one() {
    let huge = "1000000000000000000000000000000";
    assert!((3599..=3601).contains(&told(&[("Retry-After", huge)]).await));
    for value in [
        "",
        "-1",
        "-1000000000000000000000000000000",
        "1.5",
        "1e300",
        "NaN",
        "soon",
        "1.16676ms",
        "880.092µs",
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "0x10",
        "１０",
    ] {
        let seconds = told(&[("Retry-After", value)]).await;
        assert!((1..=2).contains(&seconds), "{value:?}: {seconds}");
    }
}
