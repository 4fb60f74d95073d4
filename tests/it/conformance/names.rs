//! A1.7, A1.8: names are parsed from the right, and take the whole grammar.

use crate::harness::content::Image;
use crate::harness::world::{State, Way, World, everywhere};

#[tokio::test]
async fn a1_7_a_name_may_be_made_of_the_words_of_the_api() {
    let names = [
        "a/manifests/b",
        "manifests/blobs",
        "blobs/manifests/blobs",
        "tags/list",
        "referrers/uploads",
        "a/tags/list",
        "v2/v2",
    ];
    let image = Image::new(1);
    let prepare = |upstream: &crate::harness::upstream::Upstream| {
        for name in names {
            upstream.put_image(name, "latest", &image);
            upstream.put_image(name, "list", &image);
        }
    };
    everywhere(prepare, async |mirror, way, state| {
        // With the upstream gone a tag that is always asked for is stale, which is not the matter here.
        if state == State::Down {
            return;
        }
        for name in names {
            mirror
                .pull(|rest| way.target(rest), name, "list", &image)
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn a1_8_names_take_the_whole_grammar() {
    let world = World::new().await;
    let longest = format!("{}/a", "a".repeat(253));
    let names = [
        "a",
        "a/b",
        "a/b/c/d/e/f/g/h",
        "library/docker.io/x",
        "a__b/c--d/e.f/g_h/i---j",
        "0/1",
        &longest,
    ];
    let image = Image::new(1);
    for name in names {
        world.upstream.put_image(name, "v1", &image);
        for way in [Way::Namespace, Way::Default] {
            world
                .mirror
                .pull(|rest| way.target(rest), name, "v1", &image)
                .await;
        }
    }
}

#[tokio::test]
async fn a1_8_a_name_of_256_bytes_is_refused() {
    let world = World::new().await;
    let name = format!("{}/a", "a".repeat(254));
    for way in [Way::Namespace, Way::Default] {
        let target = way.target(&format!("{name}/manifests/v1"));
        world
            .mirror
            .get(&target)
            .await
            .expect_error(400, "NAME_INVALID");
    }
    assert_eq!(world.upstream.connections(), 0);
}
