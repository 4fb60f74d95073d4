//! Requests that come again byte by byte, within a moment: what was decided about the first holds for the others, as
//! long as nothing has changed.

use std::fs;

use crate::harness::client::{Answer, Connection, Request};
use crate::harness::content::{Image, MIB, bytes, sha256};
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::world::{REGISTRY, World};

const TAG: &str = "/v2/team/app/manifests/v1";

/// How often something is asked for until it is surely known, and answered past hyper.
const OFTEN: usize = 4;

/// The answer to the last of many GETs of `target` on one connection.
async fn often(mirror: &Mirror, target: &str) -> Answer {
    let mut connection = Connection::open(mirror.address).await;
    let mut last = None;
    for _ in 0..OFTEN {
        let pull = connection.ask(&Request::get(target)).await;
        let (answer, kept) = pull.expect("an answer").finish_and_keep().await;
        connection = kept;
        last = Some(answer);
    }
    last.expect("at least one")
}

/// A world whose mirror has `team/app:v1` and a blob, and whose upstream is asked no more.
async fn warm() -> (World, String, String) {
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    let digest = world.upstream.put_blob("team/app", bytes(1, MIB));
    let blob = format!("/v2/team/app/blobs/{digest}");
    world.mirror.get(TAG).await.expect(200);
    world.mirror.get(&blob).await.expect(200);
    world.mirror.wait_until_stored(&digest).await;
    world.upstream.forget();
    (world, digest, blob)
}

#[tokio::test]
async fn the_answer_is_the_same_however_often_it_is_given() {
    let (world, digest, blob) = warm().await;
    for (target, expected) in [(TAG, Image::new(1).manifest.digest()), (&*blob, digest)] {
        let first = world.mirror.get(target).await;
        let last = often(&world.mirror, target).await;
        assert_eq!(sha256(&last.body), expected);
        let fields = |answer: &Answer| {
            let mut fields = answer.headers.clone();
            fields.retain(|(name, _)| !["date", "age"].contains(&&*name.to_lowercase()));
            fields.sort();
            fields
        };
        assert_eq!(fields(&last), fields(&first), "{target}");
        assert!(last.header("Date").is_some());
        assert_eq!(last.header("Age").is_some(), target == TAG);
    }
    assert_eq!(world.upstream.log().len(), 0);
    let metrics = world.mirror.metrics().await;
    let hits = |kind: &str, n: usize| {
        let labels = format!("upstream=\"{REGISTRY}\",kind=\"{kind}\",result=\"hit\"");
        let line = format!("entrepot_requests_total{{{labels}}} {n}\n");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    };
    // Each of them is counted.
    hits("tag", 1 + OFTEN);
    hits("blob", 1 + OFTEN);
}

#[tokio::test]
async fn a_tag_ages_and_is_asked_for_when_it_is_not_fresh_any_more() {
    let (world, ..) = warm().await;
    let age = |answer: &Answer| answer.header("Age").expect("an age").parse::<u64>();
    for (advance, expected) in [(0, 0), (100, 100), (600, 700)] {
        world.mirror.clock.advance(advance);
        let found = age(&often(&world.mirror, TAG).await).expect("a number");
        assert!((expected..expected + 60).contains(&found), "{found}");
    }
    assert_eq!(world.upstream.log().len(), 0);
    let moved = Image::new(2);
    world.upstream.put_image("team/app", "v1", &moved);
    world.mirror.clock.advance(15 * 60);
    let answer = world.mirror.get(TAG).await;
    assert_eq!(answer.expect(200), moved.manifest.bytes);
    let answer = often(&world.mirror, TAG).await;
    assert_eq!(answer.expect(200), moved.manifest.bytes);
    // Set back, the clock says nothing about what was before.
    world.mirror.clock.advance(-3600);
    let answer = world.mirror.get(TAG).await;
    assert_eq!(answer.expect(200), moved.manifest.bytes);
}

#[tokio::test]
async fn a_blob_that_others_delete_write_to_or_replace_is_noticed_at_once() {
    for n in 0..3 {
        let (world, digest, blob) = warm().await;
        let file = world.mirror.path_of(&digest);
        often(&world.mirror, &blob).await.expect(200);
        match n {
            0 => fs::remove_file(&file).expect("it is there"),
            1 => fs::write(&file, bytes(2, MIB)).expect("it is there"),
            _ => {
                let other = file.with_extension("other");
                fs::write(&other, bytes(2, MIB)).expect("there is room");
                fs::rename(&other, &file).expect("it is there");
            }
        }
        let answer = world.mirror.get(&blob).await;
        assert_eq!(sha256(&answer.expect(200)), digest, "{n}");
        assert_eq!(world.upstream.log().len(), 1, "{n}: it was fetched again");
    }
}

#[tokio::test]
async fn the_same_words_mean_another_registry_on_another_port() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let (one, other) = (Image::new(1), Image::new(2));
    first.put_image("team/app", "v1", &one);
    second.put_image("team/app", "v1", &other);
    let mirror = Setup::new()
        .upstream(REGISTRY, &first)
        .upstream("second.example", &second)
        .listen("{ address: \"127.0.0.1:0\", upstream: second.example }")
        .start()
        .await;
    for _ in 0..OFTEN {
        for (listener, image) in [(0, &one), (1, &other), (1, &other), (0, &one)] {
            let answer = Request::get(TAG).send(mirror.addresses[listener]).await;
            assert_eq!(answer.expect(200), image.manifest.bytes, "{listener}");
        }
    }
}

#[tokio::test]
async fn another_configuration_counts_at_once() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    first.put_image("team/app", "v1", &Image::new(1));
    second.put_image("team/app", "v1", &Image::new(2));
    let mut mirror = Setup::new()
        .upstream(REGISTRY, &first)
        .upstream("second.example", &second)
        .start()
        .await;
    let answer = often(&mirror, TAG).await;
    assert_eq!(answer.expect(200), Image::new(1).manifest.bytes);
    mirror.reconfigure(|setup| setup.default_upstream("second.example"));
    let answer = mirror.get(TAG).await;
    assert_eq!(answer.expect(200), Image::new(2).manifest.bytes);
    mirror.reconfigure(|setup| setup.default_upstream(REGISTRY));
    let answer = often(&mirror, TAG).await;
    assert_eq!(answer.expect(200), Image::new(1).manifest.bytes);
}
