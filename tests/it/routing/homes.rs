//! Where a repository is that was searched for: remembered over restarts, and believed before an outage.

use std::fs;

use serde_json::{Value, json};

use crate::harness::content::{Image, Manifest, OCI_IMAGE, OCI_INDEX};
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Answer, Upstream};

const APP: &str = "/v2/team/app/manifests/v1";
const TAGS: &str = "/v2/team/app/tags/list";

/// Two registries that are searched in order, of which the second has an image.
struct World {
    first: Upstream,
    second: Upstream,
    mirror: Mirror,
    image: Image,
}

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
}

#[tokio::test]
async fn after_a_restart_with_upstreams_down_what_was_searched_for_is_served() {
    let mut world = world().await;
    world.pull().await;
    world.mirror.get(TAGS).await.expect(200);
    world.mirror.stop().await;
    world.first.stop().await;
    world.second.stop().await;
    world.mirror = world.mirror.start_again().await;
    world.pull().await;
    let answer = world.mirror.get(TAGS).await;
    assert_eq!(answer.header("OCI-Namespace"), Some("second.example"));
    answer.expect(200);
    // What nobody ever found is not made up.
    let answer = world.mirror.get("/v2/team/other/manifests/v1").await;
    answer.expect_error(502, "UNAVAILABLE");
}

#[tokio::test]
async fn after_an_hour_the_registries_before_it_have_their_turn_again() {
    let world = world().await;
    world.pull().await;
    let mine = Image::new(2);
    world.first.put_image("team/app", "v1", &mine);
    world.mirror.clock.advance(3599);
    let answer = world.mirror.get(APP).await;
    assert_eq!(answer.expect(200), world.image.manifest.bytes);
    world.mirror.clock.advance(1);
    let answer = world.mirror.get(APP).await;
    assert_eq!(answer.header("OCI-Namespace"), Some("first.example"));
    assert_eq!(answer.expect(200), mine.manifest.bytes);
}

#[tokio::test]
async fn an_outage_of_another_leaves_a_repository_where_it_was_found() {
    let mut world = world().await;
    world.pull().await;
    world.first.stop().await;
    for seconds in [7200, 30 * 24 * 3600] {
        world.mirror.clock.advance(seconds);
        let answer = world.mirror.get(APP).await;
        assert_eq!(answer.header("OCI-Namespace"), Some("second.example"));
        assert_eq!(answer.expect(200), world.image.manifest.bytes);
    }
    // After a restart, too; and it did not count as found anew.
    world.mirror.stop().await;
    world.mirror = world.mirror.start_again().await;
    world.mirror.clock.advance(31 * 24 * 3600);
    world.pull().await;
    world.first.resume().await;
    let mine = Image::new(2);
    world.first.put_image("team/app", "v9", &mine);
    let answer = world.mirror.get("/v2/team/app/manifests/v9").await;
    assert_eq!(answer.header("OCI-Namespace"), Some("first.example"));
}

#[tokio::test]
async fn a_registry_that_is_searched_no_more_is_nobodys_home() {
    let mut world = world().await;
    world.pull().await;
    let third = Upstream::start().await;
    world.mirror.reconfigure(|setup| {
        let setup = setup.upstream("third.example", &third);
        setup.searching("[first.example, third.example]")
    });
    let answer = world.mirror.get(APP).await;
    answer.expect_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(third.requests("GET", APP).len(), 1);
}

#[tokio::test]
async fn a_damaged_record_costs_a_search() {
    let mut world = world().await;
    world.pull().await;
    world.mirror.stop().await;
    let root = world.mirror.directory.path().to_owned();
    let homes = |mirror: &Mirror| {
        let files = mirror.files().into_iter().map(|(path, _)| path);
        let homes = files.filter(|path| path.starts_with("v1/homes"));
        homes.map(|path| root.join(path)).collect::<Vec<_>>()
    };
    let [home] = &*homes(&world.mirror) else {
        panic!("one repository: {:?}", world.mirror.files());
    };
    for text in [
        "",
        "{",
        "{\"repository\":\"team/app\",\"namespace\":\"../x\",\"found\":1}",
    ] {
        fs::write(home, text).expect("written");
        world.mirror = world.mirror.start_again().await;
        world.pull().await;
        world.mirror.stop().await;
    }
    let record = fs::read_to_string(home).expect("written anew");
    assert!(record.contains("second.example"), "{record}");
}

/// What refers to the image, as the answer for a repository that nobody asked for before.
async fn referrers(world: &World) -> (u16, usize) {
    let digest = world.image.manifest.digest();
    let answer = world
        .mirror
        .get(&format!("/v2/team/app/referrers/{digest}"))
        .await;
    let status = answer.status;
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    (status, body["manifests"].as_array().map_or(0, Vec::len))
}

#[tokio::test]
async fn referrers_of_a_repository_that_is_not_placed_yet_are_searched_for() {
    let empty = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] });
    let empty = Answer::ok(OCI_INDEX, empty.to_string());
    for first in [None, Some(empty), Some(Answer::status(403))] {
        let world = world().await;
        let subject = &world.image.manifest;
        let (digest, size) = (subject.digest(), subject.bytes.len());
        let subject = json!({ "mediaType": OCI_IMAGE, "digest": digest, "size": size });
        let signature = json!({ "artifactType": "a/b", "subject": subject });
        let signature = Manifest::json(OCI_IMAGE, signature);
        world
            .second
            .put_manifest_as("team/app", &signature.digest(), &signature);
        if let Some(first) = first {
            world.first.answer("/v2/team/app/referrers/*", first);
        }
        assert_eq!(referrers(&world).await, (200, 1));
    }
}

#[tokio::test]
async fn where_nothing_refers_to_it_the_list_is_empty_and_in_an_outage_it_is_not() {
    let world = world().await;
    assert_eq!(referrers(&world).await, (200, 0));
    let other = self::world().await;
    other.second.stop().await;
    assert_eq!(referrers(&other).await, (502, 0));
    // Once the repository is placed, its own registry has the last word.
    world.pull().await;
    world.mirror.clock.advance(120);
    world.first.forget();
    assert_eq!(referrers(&world).await, (200, 0));
    assert!(world.first.log().is_empty(), "{:?}", world.first.log());
}
