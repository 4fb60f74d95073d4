//! Several default registries: the first that has the repository.

use crate::harness::client::Request;
use crate::harness::content::{Image, sha256};
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Answer, Upstream};

const APP: &str = "/v2/team/app/manifests/v1";

/// Two registries that are searched in order.
struct World {
    first: Upstream,
    second: Upstream,
    mirror: Mirror,
    image: Image,
}

/// An image that the second registry has.
async fn world() -> World {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let image = Image::new(1);
    second.put_image("team/app", "v1", &image);
    let mirror = Setup::new()
        .upstream("first.example", &first)
        .upstream("second.example", &second)
        .searching("[first.example, second.example]")
        .start()
        .await;
    World {
        first,
        second,
        mirror,
        image,
    }
}

impl World {
    async fn pull(&self) {
        let target = |rest: &str| format!("/v2/{rest}");
        self.mirror
            .pull(target, "team/app", "v1", &self.image)
            .await;
    }

    fn asked_first(&self) -> usize {
        self.first.requests("GET", "/v2/*").len() + self.first.requests("HEAD", "/v2/*").len()
    }
}

#[tokio::test]
async fn the_first_that_has_the_repository_is_remembered_also_for_its_blobs() {
    let world = world().await;
    world.pull().await;
    assert_eq!(world.asked_first(), 1, "once, for the tag");
    let answer = world.mirror.get(APP).await;
    assert_eq!(answer.header("OCI-Namespace"), Some("second.example"));
    // What is remembered needs no other.
    world.first.stop().await;
    let other = Image::new(2);
    world.second.put_image("team/app", "v2", &other);
    let answer = world.mirror.get("/v2/team/app/manifests/v2").await;
    assert_eq!(answer.expect(200), other.manifest.bytes);
}

#[tokio::test]
async fn the_order_of_the_list_decides() {
    let world = world().await;
    let mine = Image::new(2);
    world.first.put_image("team/app", "v1", &mine);
    let answer = world.mirror.get(APP).await;
    assert_eq!(answer.expect(200), mine.manifest.bytes);
    assert_eq!(world.second.connections(), 0);
    // A tag that only another has is found there, and moves none of the others.
    let theirs = Image::new(3);
    world.second.put_image("team/app", "v3", &theirs);
    let answer = world.mirror.get("/v2/team/app/manifests/v3").await;
    assert_eq!(answer.expect(200), theirs.manifest.bytes);
    let more = Image::new(4);
    world.first.put_image("team/app", "v4", &more);
    world.second.put_image("team/app", "v4", &theirs);
    let answer = world.mirror.get("/v2/team/app/manifests/v4").await;
    assert_eq!(answer.expect(200), more.manifest.bytes);
}

#[tokio::test]
async fn a_refusal_means_that_it_is_not_here() {
    for refusal in [
        Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        Answer::status(401),
        Answer::status(403),
    ] {
        let world = world().await;
        world.first.answer("/v2/*", refusal);
        world.pull().await;
    }
}

#[tokio::test]
async fn a_registry_that_answers_401_for_what_it_lacks_is_passed_over_after_a_token() {
    let world = world().await;
    let realm = world.first.url("/token");
    let challenge = format!("Bearer realm=\"{realm}\",service=\"x\"");
    let refusal = Answer::status(401).header("WWW-Authenticate", &challenge);
    world.first.answer("/v2/*", refusal);
    let token = br#"{"token":"t"}"#.as_slice();
    let token = Answer::ok("application/json", token.to_vec());
    world.first.answer("/token*", token);
    world.pull().await;
    let seen = world.first.requests("GET", "/token*");
    assert!(!seen.is_empty(), "we tried to get in ourselves");
    assert_eq!(world.asked_first(), 2, "without and with a token");
}

#[tokio::test]
async fn no_challenge_is_relayed_while_searching() {
    let world = world().await;
    let refusal = Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    world.first.answer("/v2/*", refusal.clone());
    world.second.answer("/v2/*", refusal);
    let answer = world.mirror.get(APP).await;
    assert_eq!(answer.header("WWW-Authenticate"), None);
    answer.expect_error(404, "MANIFEST_UNKNOWN");
    let digest = sha256(b"nothing");
    let answer = world
        .mirror
        .get(&format!("/v2/team/app/blobs/{digest}"))
        .await;
    answer.expect_error(404, "BLOB_UNKNOWN");
    let answer = world.mirror.get("/v2/team/app/tags/list").await;
    answer.expect_error(404, "NAME_UNKNOWN");
}

/// A registry that somebody else put in front of another would otherwise see the tokens of that one (invariant 3).
#[tokio::test]
async fn a_token_is_shown_to_nobody_while_searching() {
    let world = world().await;
    for upstream in [&world.first, &world.second] {
        let realm = format!("Bearer realm=\"{}\"", upstream.url("/token"));
        let refusal = Answer::status(401).header("WWW-Authenticate", &realm);
        upstream.answer("/v2/*", refusal);
        let token = Answer::ok("application/json", br#"{"token":"anonymous"}"#.to_vec());
        upstream.answer("/token", token);
    }
    let request = Request::get(APP).header("Authorization", "Bearer s3cret-of-a-caller");
    let answer = world.mirror.send(request).await;
    answer.expect_error(404, "MANIFEST_UNKNOWN");
    for upstream in [&world.first, &world.second] {
        let seen = upstream.log();
        assert!(!seen.is_empty());
        assert!(
            !format!("{seen:?}").contains("s3cret-of-a-caller"),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn an_outage_does_not_pick_another_registry() {
    for (status, expected) in [(500, 502), (503, 502), (429, 429)] {
        let world = world().await;
        world.first.answer("/v2/*", Answer::status(status));
        let answer = world.mirror.get(APP).await;
        assert_eq!(answer.status, expected, "{answer:?}");
        assert_eq!(world.second.connections(), 0);
    }
    let world = world().await;
    world.first.stop().await;
    assert_eq!(world.mirror.get(APP).await.status, 502);
    assert_eq!(world.second.connections(), 0);
}

#[tokio::test]
async fn who_names_a_registry_is_not_searched_for() {
    let world = world().await;
    for target in [
        format!("{APP}?ns=first.example"),
        "/v2/first.example/team/app/manifests/v1".to_owned(),
    ] {
        let answer = world.mirror.get(&target).await;
        answer.expect_error(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(world.second.connections(), 0);
}

#[tokio::test]
async fn tags_are_those_of_the_registry_that_has_the_repository() {
    let world = world().await;
    let answer = world.mirror.get("/v2/team/app/tags/list").await;
    let body = answer.expect(200);
    assert_eq!(body, br#"{"name":"team/app","tags":["v1"]}"#.as_slice());
}
