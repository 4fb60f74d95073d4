//! Rules for some tags.

use futures_util::future::join_all;

use super::{AFTER_TTL, TAG, asked, expect_stale, is_stale, warm};
use crate::harness::client::Request;
use crate::harness::content::Image;
use crate::harness::gate::Gate;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Seen, Upstream};
use crate::harness::world::{REGISTRY, World};

/// A world whose registry has these rules for tags.
async fn ruled(line: &str, rules: &str) -> World {
    let upstream = Upstream::start().await;
    let setup =
        Setup::new()
            .line(line)
            .upstream_with(REGISTRY, &upstream, &format!("tags: [{rules}]"));
    let mirror = setup.start().await;
    World { upstream, mirror }
}

#[tokio::test]
async fn an_immutable_tag_is_asked_for_once_and_never_again() {
    let mut world = ruled("", r"{ match: '^v\d+$', immutable: true }").await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    world.upstream.put_image("team/app", "main", &image);
    let main = "/v2/team/app/manifests/main";
    for target in [TAG, main] {
        world.mirror.get(target).await.expect(200);
    }
    world.upstream.put_image("team/app", "v1", &Image::new(2));
    world.upstream.put_image("team/app", "main", &Image::new(2));
    world.upstream.forget();
    for _ in 0..3 {
        world.mirror.clock.advance(10 * 365 * 24 * 60 * 60);
        let answer = world.mirror.get(TAG).await;
        assert_eq!(answer.header("Cache-Status"), Some("entrepot; hit"));
        assert_eq!(answer.expect(200), image.manifest.bytes);
    }
    assert_eq!(asked(&world), (0, 0));
    let other = world.mirror.get(main).await;
    assert_eq!(other.expect(200), Image::new(2).manifest.bytes);
    // Nor after a restart, nor without an upstream.
    world.mirror.stop().await;
    world.upstream.stop().await;
    let mirror = world.mirror.start_again().await;
    mirror.clock.advance(10 * 365 * 24 * 60 * 60);
    let answer = mirror.get(TAG).await;
    assert_eq!(answer.header("Warning"), None);
    assert_eq!(answer.expect(200), image.manifest.bytes);
}

#[tokio::test]
async fn a_rule_is_for_the_repositories_and_tags_that_it_names() {
    let rules = "{ repositories: ['team/*', '!team/lab'], match: ^v, ttl: 1m }, { ttl: 1h }";
    let world = ruled("", rules).await;
    let quick = ["team/app/manifests/v1", "team/base/manifests/v2"];
    let slow = [
        "team/lab/manifests/v1",
        "team/app/manifests/main",
        "team/app/base/manifests/v1",
        "other/manifests/v1",
    ];
    let image = Image::new(1);
    for rest in quick.iter().chain(&slow) {
        let (name, tag) = rest.split_once("/manifests/").expect("a tag");
        world.upstream.put_image(name, tag, &image);
    }
    let all = async || {
        world.upstream.forget();
        for rest in quick.iter().chain(&slow) {
            world.mirror.get(&format!("/v2/{rest}")).await.expect(200);
        }
        asked(&world)
    };
    assert_eq!(all().await, (0, 6));
    world.mirror.clock.advance(60);
    assert_eq!(all().await, (2, 0));
    world.mirror.clock.advance(60 * 60);
    assert_eq!(all().await, (6, 0));
}

#[tokio::test]
async fn a_rule_that_gives_an_ignored_tag_a_ttl_wins() {
    let world = ruled("manifests: { ignore: v }", "{ match: ^v1$, ttl: 5m }").await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    world.upstream.put_image("team/app", "v2", &Image::new(1));
    let ask = async |tag| {
        let target = format!("/v2/team/app/manifests/{tag}");
        world.upstream.forget();
        for _ in 0..3 {
            world.mirror.get(&target).await.expect(200);
        }
        world.upstream.log().len()
    };
    assert_eq!(ask("v1").await, 1);
    assert_eq!(ask("v2").await, 3, "the others are ignored as before");
}

#[tokio::test]
async fn a_rule_is_for_its_own_registry() {
    let (one, other) = (Upstream::start().await, Upstream::start().await);
    let rules = "aliases: [alias.example], tags: [{ immutable: true }]";
    let setup = Setup::new()
        .upstream_with("one.example", &one, rules)
        .upstream("other.example", &other);
    let mirror = setup.start().await;
    for upstream in [&one, &other] {
        upstream.put_image("team/app", "v1", &Image::new(1));
    }
    let ask = async |namespace| {
        let target = format!("{TAG}?ns={namespace}");
        mirror.get(&target).await.expect(200);
    };
    for namespace in ["one.example", "other.example"] {
        ask(namespace).await;
    }
    mirror.clock.advance(AFTER_TTL);
    for namespace in ["one.example", "alias.example", "other.example"] {
        ask(namespace).await;
    }
    assert_eq!(one.log().len(), 1);
    assert_eq!(other.log().len(), 2);
}

/// A world in which a tag may be served while it is asked for, and a HEAD that waits at a gate.
async fn asked_behind() -> (World, Gate) {
    let world = warm("manifests: { stale_while_revalidate: 10m }").await;
    let gate = Gate::closed();
    let waiting = gate.clone();
    let moved = Image::new(2);
    world.upstream.put_image("team/app", "v1", &moved);
    world.upstream.rule(move |request: &Seen| {
        let answer = Answer::ok(&moved.manifest.media_type, moved.manifest.bytes.clone())
            .header("Docker-Content-Digest", &moved.manifest.digest());
        (request.method == "HEAD").then(|| answer.after(&waiting))
    });
    world.mirror.clock.advance(AFTER_TTL);
    (world, gate)
}

#[tokio::test]
async fn a_tag_is_served_at_once_while_it_is_asked_for_behind() {
    let (world, gate) = asked_behind().await;
    // Nobody waits for the gate, and one question is enough for all.
    for answer in join_all((0..50).map(|_| world.mirror.get(TAG))).await {
        expect_stale(&answer);
        assert_eq!(answer.expect(200), Image::new(1).manifest.bytes);
    }
    gate.reached().await;
    is_stale(&world).await;
    assert_eq!(asked(&world), (1, 0));
    gate.open();
    world.upstream.wait_until(1, "GET", TAG).await;
    let moved = Image::new(2).manifest;
    let fresh = async || {
        let answer = world.mirror.send(Request::get(TAG)).await;
        let is_old = answer.header("Warning").is_some();
        (!is_old).then(|| answer.expect(200))
    };
    // The GET is under way; whoever comes meanwhile is not kept waiting either.
    let found = loop {
        if let Some(found) = fresh().await {
            break found;
        }
    };
    assert_eq!(found, moved.bytes);
    assert_eq!(asked(&world), (1, 1));
}

#[tokio::test]
async fn a_tag_is_waited_for_once_that_time_is_over() {
    let (world, gate) = asked_behind().await;
    gate.open();
    world.mirror.clock.advance(10 * 60);
    let answer = world.mirror.get(TAG).await;
    assert_eq!(answer.header("Warning"), None);
    assert_eq!(answer.expect(200), Image::new(2).manifest.bytes);
}

#[tokio::test]
async fn what_is_asked_behind_an_answer_is_waited_for_at_the_end() {
    let (mut world, gate) = asked_behind().await;
    world.mirror.get(TAG).await.expect(200);
    gate.reached().await;
    world.mirror.begin_to_stop();
    gate.open();
    world.mirror.ended().await;
    world.upstream.stop().await;
    let mirror = world.mirror.start_again().await;
    let answer = mirror.get(TAG).await;
    assert_eq!(answer.expect(200), Image::new(2).manifest.bytes);
}

#[tokio::test]
async fn a_tag_that_was_taken_back_behind_an_answer_is_gone_for_the_next() {
    let world = warm("manifests: { stale_while_revalidate: 10m }").await;
    world.upstream.remove_tag("team/app", "v1");
    world.mirror.clock.advance(AFTER_TTL);
    let status = async || world.mirror.get(TAG).await.status;
    assert_eq!(status().await, 200);
    world.upstream.wait_until(1, "HEAD", TAG).await;
    while status().await == 200 {}
    world
        .mirror
        .get(TAG)
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
}
