//! What an upstream says is left of its quota.

use super::{TAG, metric};
use crate::harness::clock;
use crate::harness::content::Image;
use crate::harness::upstream::{Answer, Seen};
use crate::harness::world::{REGISTRY, World};

/// Lets the tag be answered with these headers on HEAD and GET.
fn say(world: &World, image: &Image, headers: &[(&str, &str)]) {
    let (image, digest) = (image.clone(), image.manifest.digest());
    let answer = Answer::ok(&image.manifest.media_type, image.manifest.bytes.clone())
        .header("Docker-Content-Digest", &digest);
    let answer = headers
        .iter()
        .fold(answer, |answer, (name, value)| answer.header(name, value));
    world.upstream.rule(move |request: &Seen| {
        let (_, kind, _) = request.parts()?;
        (kind == "manifests").then(|| answer.clone())
    });
}

#[tokio::test]
async fn tags_are_checked_less_often_while_little_is_left() {
    let image = Image::new(1);
    let hub = |left: &'static str| {
        [
            ("RateLimit-Limit", "100;w=21600"),
            ("RateLimit-Remaining", left),
        ]
    };
    for (left, heads) in [("50;w=21600", 1), ("9;w=21600", 0), ("0;w=21600", 0)] {
        let world = World::new().await;
        say(&world, &image, &hub(left));
        world.mirror.get(TAG).await.expect(200);
        let remaining = metric(&world, "upstream_quota_remaining", REGISTRY).await;
        let said = left
            .split(';')
            .next()
            .and_then(|number| number.parse().ok());
        assert_eq!(remaining, said);
        world.upstream.forget();
        // Just past its time: it is checked only where there is enough left.
        world.mirror.clock.advance(15 * 60 + 1);
        let answer = world.mirror.get(TAG).await;
        assert_eq!(answer.header("Warning").is_some(), heads == 0, "{left}");
        answer.expect(200);
        assert_eq!(world.upstream.requests("HEAD", "*").len(), heads, "{left}");
        // Four times as old, it is checked in any case.
        world.upstream.forget();
        world.mirror.clock.advance(60 * 60);
        let answer = world.mirror.get(TAG).await;
        assert_eq!(answer.header("Warning"), None);
        assert_eq!(world.upstream.requests("HEAD", "*").len(), 1, "{left}");
    }
}

#[tokio::test]
async fn what_was_said_of_the_quota_is_not_believed_for_ever() {
    let world = World::new().await;
    let image = Image::new(1);
    say(&world, &image, &[("RateLimit-Remaining", "0;w=21600")]);
    world.mirror.get(TAG).await.expect(200);
    world.upstream.forget();
    world.mirror.clock.advance(15 * 60 + 1);
    clock::pass(5 * 60 + 1).await;
    world.mirror.get(TAG).await.expect(200);
    assert_eq!(world.upstream.requests("HEAD", "*").len(), 1);
}

#[tokio::test]
async fn a_tag_that_is_to_be_checked_every_time_is_checked_every_time() {
    let world = World::with_line("manifests: { ignore: \"^v1$\" }").await;
    let image = Image::new(1);
    say(&world, &image, &[("RateLimit-Remaining", "0;w=21600")]);
    for _ in 0..3 {
        let answer = world.mirror.get(TAG).await;
        assert_eq!(answer.header("Warning"), None);
        answer.expect(200);
    }
    assert_eq!(world.upstream.log().len(), 3);
}

#[tokio::test]
async fn a_quota_that_makes_no_sense_harms_nobody() {
    let image = Image::new(1);
    for value in [
        "",
        "-1",
        "many",
        "1e9",
        "99999999999999999999999999999",
        ";;;,,,===",
        "limit=, remaining=, reset=",
        "\"default\";r=-1;t=99999999999999999999",
    ] {
        for name in [
            "RateLimit-Remaining",
            "RateLimit",
            "RateLimit-Reset",
            "RateLimit-Limit",
        ] {
            let world = World::new().await;
            say(&world, &image, &[(name, value)]);
            world.mirror.get(TAG).await.expect(200);
            world.upstream.forget();
            world.mirror.clock.advance(15 * 60 + 1);
            world.mirror.get(TAG).await.expect(200);
            assert_eq!(
                world.upstream.requests("HEAD", "*").len(),
                1,
                "{name}: {value}"
            );
        }
    }
}
