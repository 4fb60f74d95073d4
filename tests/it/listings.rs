//! For how long a list of tags or referrers is believed, and what becomes of it when upstream cannot say.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::clock;
use crate::harness::content::{Image, Manifest, OCI_IMAGE, OCI_INDEX};
use crate::harness::gate::Gate;
use crate::harness::upstream::{Answer as Scripted, Upstream};
use crate::harness::world::World;

const TAGS: &str = "/v2/team/app/tags/list";

/// Just more than the time for which a list is believed, in seconds.
const AFTER_TTL: i64 = 61;

/// Just more than the time for which it may stand in after that, in seconds.
const AFTER_STALE: i64 = 7 * 24 * 60 * 60 + AFTER_TTL;

fn subject() -> Manifest {
    Image::new(1).manifest
}

/// What `targets` are about: tags, and referrers.
fn targets() -> [String; 2] {
    let referrers = format!("/v2/team/app/referrers/{}", subject().digest());
    [TAGS.to_owned(), referrers]
}

/// Puts one more tag, which is one more referrer, too.
fn put(upstream: &Upstream, n: u64) {
    let document = json!({
        "artifactType": "application/vnd.example.n", "annotations": { "n": n.to_string() },
        "subject": { "mediaType": OCI_IMAGE, "digest": subject().digest(), "size": 1 },
    });
    let manifest = Manifest::json(OCI_IMAGE, document);
    upstream.put_manifest("team/app", &format!("v{n}"), &manifest);
}

/// How many entries a list has.
fn length(answer: Answer) -> usize {
    let body: Value = serde_json::from_slice(&answer.expect(200)).expect("JSON");
    let list = body.get("tags").unwrap_or(&body["manifests"]);
    list.as_array().expect("a list").len()
}

/// A world whose mirror knows lists of one entry.
async fn warm() -> World {
    warm_with("").await
}

async fn warm_with(line: &str) -> World {
    let world = World::with_line(line).await;
    put(&world.upstream, 1);
    for target in targets() {
        assert_eq!(length(world.mirror.get(&target).await), 1);
    }
    world.upstream.forget();
    world
}

fn asked(world: &World) -> usize {
    world.upstream.log().len()
}

#[tokio::test]
async fn a_list_is_asked_for_once_a_minute() {
    for target in targets() {
        let world = warm().await;
        put(&world.upstream, 2);
        for _ in 0..5 {
            world.mirror.clock.advance(11);
            let answer = world.mirror.get(&target).await;
            assert_eq!(answer.header("Cache-Status"), Some("entrepot; hit"));
            let age: u64 = answer
                .header("Age")
                .expect("an age")
                .parse()
                .expect("a number");
            assert!((11..=56).contains(&age), "{age}");
            assert_eq!(length(answer), 1);
        }
        assert_eq!(asked(&world), 0);
        world.mirror.clock.advance(6);
        assert_eq!(length(world.mirror.get(&target).await), 2);
        assert_eq!(length(world.mirror.get(&target).await), 2);
        assert_eq!(asked(&world), 1);
    }
}

#[tokio::test]
async fn a_list_is_never_believed_for_longer_than_a_tag() {
    for (line, seconds) in [
        ("manifests: { ttl: 10s }", 11),
        ("manifests: { cache: false }", 0),
    ] {
        for target in targets() {
            let world = warm_with(line).await;
            put(&world.upstream, 2);
            world.mirror.clock.advance(seconds);
            assert_eq!(length(world.mirror.get(&target).await), 2, "{line}");
        }
    }
}

/// Asks for a stale list and expects it, with a warning.
async fn is_stale(world: &World, target: &str) {
    let answer = world.mirror.get(target).await;
    let warning = answer.header("Warning").expect("a warning");
    assert!(warning.starts_with("299 - \"served stale"), "{warning}");
    let status = answer.header("Cache-Status").expect("a status");
    assert!(
        status.starts_with("entrepot; hit; ttl=-") && status.ends_with("detail=stale-if-error"),
        "{status}"
    );
    assert_eq!(length(answer), 1);
}

#[tokio::test]
async fn a7_8_a_stale_list_is_served_when_upstream_is_down() {
    for target in targets() {
        let world = warm().await;
        world.upstream.stop().await;
        world.mirror.get(&target).await.expect(200);
        world.mirror.clock.advance(AFTER_TTL);
        is_stale(&world, &target).await;
        world.mirror.clock.advance(24 * 60 * 60);
        is_stale(&world, &target).await;
        // There is an end to it.
        world.mirror.clock.advance(AFTER_STALE);
        let answer = world.mirror.get(&target).await;
        answer.expect_error(502, "UNAVAILABLE");
        // And it is back when upstream is.
        world.upstream.resume().await;
        let answer = world.mirror.get(&target).await;
        assert_eq!(answer.header("Warning"), None);
        assert_eq!(length(answer), 1);
    }
}

#[tokio::test]
async fn a_stale_list_is_served_when_upstream_is_in_trouble() {
    let answers = [408, 429, 500, 503].map(Scripted::status).into_iter();
    let page = Scripted::ok("text/html", "<html>Maintenance</html>");
    for answer in answers.chain([page]) {
        for target in targets() {
            let world = warm().await;
            world.upstream.answer("/v2/*", answer.clone());
            world.mirror.clock.advance(AFTER_TTL);
            is_stale(&world, &target).await;
        }
    }
}

#[tokio::test]
async fn a_stale_list_is_served_when_upstream_is_slow_and_the_check_goes_on() {
    for target in targets() {
        let world = warm().await;
        put(&world.upstream, 2);
        let full = world.upstream.requests("GET", "*").len();
        let gate = Gate::closed();
        let body = if target == TAGS {
            Scripted::ok(
                "application/json",
                r#"{"name":"team/app","tags":["v1","v2"]}"#,
            )
        } else {
            let second = Image::new(2).manifest;
            let index = Manifest::index(OCI_INDEX, &[&subject(), &second]);
            Scripted::ok(OCI_INDEX, index.bytes)
        };
        world.upstream.answer(&target, body.after(&gate));
        world.mirror.clock.advance(AFTER_TTL);
        let slow = async {
            gate.reached().await;
            clock::pass(1).await;
        };
        let (stale, ()) = tokio::join!(world.mirror.get(&target), slow);
        assert!(stale.header("Warning").is_some());
        assert_eq!(length(stale), 1);
        // The check was not given up: whoever asks now waits for the same one.
        let next = async {
            gate.open();
            world.mirror.get(&target).await
        };
        assert_eq!(length(next.await), 2);
        assert_eq!(asked(&world) - full, 1, "{target}");
    }
}

#[tokio::test]
async fn a_list_that_upstream_takes_back_is_gone() {
    for (upstream, status) in [(401, 403), (403, 403), (404, 404)] {
        for target in targets() {
            if target != TAGS && upstream == 404 {
                // Referrers are never missing.
                continue;
            }
            let world = warm().await;
            world.upstream.answer("/v2/*", Scripted::status(upstream));
            world.mirror.clock.advance(AFTER_TTL);
            assert_eq!(world.mirror.get(&target).await.status, status);
            // An outage after that does not bring it up again, nor does a restart.
            world.upstream.stop().await;
            world.mirror.clock.advance(3);
            let answer = world.mirror.get(&target).await;
            answer.expect_error(502, "UNAVAILABLE");
        }
    }
}

#[tokio::test]
async fn n_callers_cost_one_list() {
    for target in targets() {
        let world = World::new().await;
        put(&world.upstream, 1);
        for _ in 0..2 {
            let answers = join_all((0..16).map(|_| world.mirror.get(&target))).await;
            for answer in answers {
                assert_eq!(length(answer), 1);
            }
            assert_eq!(asked(&world), 1, "{target}");
            world.upstream.forget();
            world.mirror.clock.advance(AFTER_TTL);
        }
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_stop_the_list() {
    let world = World::new().await;
    put(&world.upstream, 1);
    let gate = Gate::closed();
    let list = Scripted::ok("application/json", r#"{"name":"team/app","tags":["v1"]}"#);
    world.upstream.answer(TAGS, list.after(&gate));
    {
        let asking = world.mirror.get(TAGS);
        tokio::pin!(asking);
        tokio::select! {
            answer = &mut asking => panic!("{answer:?}"),
            () = gate.reached() => {}
        }
    }
    gate.open();
    assert_eq!(length(world.mirror.get(TAGS).await), 1);
    assert_eq!(asked(&world), 1);
}

#[tokio::test]
async fn a_missing_repository_is_remembered_for_two_seconds() {
    let world = World::new().await;
    for _ in 0..5 {
        world
            .mirror
            .get(TAGS)
            .await
            .expect_error(404, "NAME_UNKNOWN");
    }
    assert_eq!(asked(&world), 1);
    put(&world.upstream, 1);
    world.mirror.clock.advance(2);
    assert_eq!(length(world.mirror.get(TAGS).await), 1);
}

#[tokio::test]
async fn a_refusal_is_not_remembered() {
    for target in targets() {
        for status in [401, 403] {
            let world = World::new().await;
            put(&world.upstream, 1);
            world.upstream.answer("/v2/*", Scripted::status(status));
            let refused = world.mirror.get(&target).await;
            refused.expect_error(403, "DENIED");
            world.upstream.behave();
            assert_eq!(length(world.mirror.get(&target).await), 1);
        }
    }
}

#[tokio::test]
async fn lists_survive_a_restart_with_upstream_down() {
    for target in targets() {
        let mut world = warm().await;
        world.mirror.stop().await;
        world.upstream.stop().await;
        world.mirror = world.mirror.start_again().await;
        assert_eq!(length(world.mirror.get(&target).await), 1);
        world.mirror.clock.advance(AFTER_TTL);
        is_stale(&world, &target).await;
    }
}

#[tokio::test]
async fn a_list_that_was_taken_back_is_gone_after_a_restart_too() {
    for target in targets() {
        let mut world = warm().await;
        world.upstream.answer("/v2/*", Scripted::status(403));
        world.mirror.clock.advance(AFTER_TTL);
        world.mirror.get(&target).await.expect_error(403, "DENIED");
        world.mirror.stop().await;
        world.upstream.stop().await;
        world.mirror = world.mirror.start_again().await;
        let answer = world.mirror.get(&target).await;
        answer.expect_error(502, "UNAVAILABLE");
    }
}

#[tokio::test]
async fn made_up_digests_leave_no_files() {
    let mut world = World::new().await;
    let before = world.mirror.files();
    for n in 0..20_u64 {
        let digest = Image::new(n).manifest.digest();
        let target = format!("/v2/team/app/referrers/{digest}");
        assert_eq!(length(world.mirror.get(&target).await), 0);
    }
    world.mirror.stop().await;
    assert_eq!(world.mirror.files(), before);
}

#[tokio::test]
async fn damaged_lists_on_disk_are_a_miss() {
    let mut world = warm().await;
    world.mirror.stop().await;
    for (path, length) in world.mirror.files() {
        if path.starts_with("v1/lists") {
            assert!(length > 0);
            std::fs::write(world.mirror.directory.path().join(path), "{\"tags\":").expect("a file");
        }
    }
    world.mirror = world.mirror.start_again().await;
    for target in targets() {
        assert_eq!(length(world.mirror.get(&target).await), 1);
    }
    assert_eq!(asked(&world), 2);
}

#[tokio::test]
async fn a_registry_that_is_not_served_has_no_lists() {
    let world = World::new().await;
    for target in targets() {
        let target = format!("{target}?ns=other.example");
        let answer = world.mirror.get(&target).await;
        answer.expect_error(404, "NAME_UNKNOWN");
    }
    assert_eq!(asked(&world), 0);
}

#[tokio::test]
async fn lists_have_metrics_of_their_own() {
    let world = warm().await;
    world.mirror.get(TAGS).await.expect(200);
    let metrics = world.mirror.metrics().await;
    for (kind, result) in [("tags", "hit"), ("tags", "miss"), ("referrers", "miss")] {
        let line = format!(
            r#"entrepot_requests_total{{upstream="registry.example",kind="{kind}",result="{result}"}} 1"#
        );
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}
