//! A7: the tags of a repository.

use serde_json::{Value, json};

use crate::harness::client::{Answer, Request};
use crate::harness::clock;
use crate::harness::content::Image;
use crate::harness::mirror::Mirror;
use crate::harness::upstream::{Answer as Scripted, Upstream, json as text};
use crate::harness::world::{REGISTRY, State, Way, World, everywhere};

const LIST: &str = "/v2/team/app/tags/list";

fn put_tags(upstream: &Upstream, tags: &[&str]) {
    for tag in tags {
        upstream.put_image("team/app", tag, &Image::new(1));
    }
}

fn tags_of(answer: Answer) -> Vec<String> {
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&answer.expect(200)).expect("JSON");
    let tags = body["tags"].as_array().expect("a list").iter();
    tags.map(|tag| tag.as_str().expect("text").to_owned())
        .collect()
}

/// The target of the link to the next page.
fn next_of(answer: &Answer) -> Option<String> {
    let link = answer.header("Link")?;
    let (target, relation) = link.strip_prefix('<')?.split_once('>')?;
    assert_eq!(relation, "; rel=\"next\"");
    Some(target.to_owned())
}

/// Follows the links from `target` on; gives the pages.
async fn walk(mirror: &Mirror, target: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(target.to_owned());
    while let Some(target) = next {
        let answer = mirror.get(&target).await;
        next = next_of(&answer);
        pages.push(tags_of(answer));
    }
    pages
}

#[tokio::test]
async fn a7_1_the_tags_are_sorted_and_the_name_is_that_of_the_client() {
    let tags = ["v2", "B", "a", "v10", "v1", "sha256-ab.sig"];
    everywhere(
        |upstream| put_tags(upstream, &tags),
        async |mirror, way, state| {
            let answer = mirror.get(&way.target("team/app/tags/list")).await;
            let expected = match state {
                State::Cold => "entrepot; fwd=miss; stored",
                State::Warm | State::Down => "entrepot; hit",
            };
            assert_eq!(answer.header("Cache-Status"), Some(expected), "{way:?}");
            let body: Value = serde_json::from_slice(&answer.expect(200)).expect("JSON");
            let name = match way {
                Way::Path => "registry.example/team/app",
                Way::Namespace | Way::Default => "team/app",
            };
            let sorted = ["B", "a", "sha256-ab.sig", "v1", "v10", "v2"];
            assert_eq!(body, json!({ "name": name, "tags": sorted }));
        },
    )
    .await;
}

#[tokio::test]
async fn a7_1_head_has_the_headers_of_get() {
    let world = World::new().await;
    put_tags(&world.upstream, &["a", "b", "c"]);
    let target = format!("{LIST}?n=2&ns={REGISTRY}");
    let get = world.mirror.get(&target).await;
    let head = world.mirror.head(&target).await;
    for header in ["Content-Type", "Content-Length", "Link", "OCI-Namespace"] {
        assert!(get.header(header).is_some(), "{header}");
        assert_eq!(head.header(header), get.header(header), "{header}");
    }
    assert_eq!(head.status, 200);
}

#[tokio::test]
async fn a7_1_a_repository_without_tags_has_an_empty_list() {
    for body in [
        json!({ "name": "team/app", "tags": [] }),
        json!({ "name": "team/app", "tags": null }),
    ] {
        let world = World::new().await;
        let answer = Scripted::ok("application/json", text(&body));
        world.upstream.answer(LIST, answer);
        let answer = world.mirror.get(LIST).await;
        assert_eq!(&answer.expect(200)[..], br#"{"name":"team/app","tags":[]}"#);
    }
}

#[tokio::test]
async fn a7_2_a_page_has_at_most_n_tags() {
    let world = World::new().await;
    put_tags(&world.upstream, &["a", "b", "c"]);
    for (n, expected) in [
        (1, &["a"][..]),
        (2, &["a", "b"]),
        (3, &["a", "b", "c"]),
        (4, &["a", "b", "c"]),
    ] {
        let answer = world.mirror.get(&format!("{LIST}?n={n}")).await;
        assert_eq!(next_of(&answer).is_some(), n < 3, "{n}");
        assert_eq!(tags_of(answer), expected);
    }
    assert_eq!(
        world.upstream.requests("GET", "*").len(),
        1,
        "the pages are cut here"
    );
}

#[tokio::test]
async fn a7_3_no_tags_can_be_asked_for() {
    let world = World::new().await;
    put_tags(&world.upstream, &["a"]);
    let answer = world.mirror.get(&format!("{LIST}?n=0")).await;
    assert_eq!(answer.header("Link"), None);
    assert!(tags_of(answer).is_empty());
}

#[tokio::test]
async fn a7_4_a_page_starts_after_last_whether_or_not_that_is_a_tag() {
    let world = World::new().await;
    put_tags(&world.upstream, &["a", "b", "d", "e"]);
    for (query, expected) in [
        ("last=b", &["d", "e"][..]),
        ("n=1&last=b", &["d"]),
        ("n=2&last=c", &["d", "e"]),
        ("last=", &["a", "b", "d", "e"]),
        ("last=e", &[]),
        ("last=%2F%3C%3E%22%0A", &["a", "b", "d", "e"]),
    ] {
        let answer = world.mirror.get(&format!("{LIST}?{query}")).await;
        assert_eq!(tags_of(answer), expected, "{query}");
    }
}

#[tokio::test]
async fn a7_5_links_lead_through_the_whole_list_exactly_once() {
    let tags = ["a", "b", "c", "d", "e"];
    everywhere(
        |upstream| put_tags(upstream, &tags),
        async |mirror, way, _| {
            let target = way.target("team/app/tags/list");
            let joint = if target.contains('?') { '&' } else { '?' };
            let pages = walk(mirror, &format!("{target}{joint}n=2")).await;
            assert_eq!(pages, [&tags[..2], &tags[2..4], &tags[4..]], "{way:?}");
        },
    )
    .await;
}

#[tokio::test]
async fn a7_5_a_link_is_on_us_in_the_words_of_the_client() {
    let world = World::with(|setup| {
        let upstream = "http://127.0.0.1:1".to_owned();
        setup.endpoints("other.example:5000", &[upstream], "")
    })
    .await;
    put_tags(&world.upstream, &["a", "b"]);
    for (target, expected) in [
        (
            "/v2/team/app/tags/list?n=1",
            "/v2/team/app/tags/list?n=1&last=a",
        ),
        (
            "/v2/team/app/tags/list?n=1&ns=registry.example",
            "/v2/team/app/tags/list?n=1&last=a&ns=registry.example",
        ),
        (
            "/v2/registry.example/team/app/tags/list?n=1",
            "/v2/registry.example/team/app/tags/list?n=1&last=a",
        ),
        (
            "/v2/registry.example/team/app/tags/list?n=1&ns=registry.example",
            "/v2/registry.example/team/app/tags/list?n=1&last=a&ns=registry.example",
        ),
    ] {
        let answer = world.mirror.get(target).await;
        assert_eq!(next_of(&answer).as_deref(), Some(expected), "{target}");
    }
}

#[tokio::test]
async fn a7_5_a_registry_with_a_port_stays_escaped_in_the_link() {
    let world = World::with(|setup| setup).await;
    let mirror = crate::harness::mirror::Setup::new()
        .upstream("registry.example:5000", &world.upstream)
        .start()
        .await;
    put_tags(&world.upstream, &["a", "b"]);
    let target = format!("{LIST}?n=1&ns=registry.example%3A5000");
    let answer = mirror.get(&target).await;
    assert_eq!(
        answer.header("OCI-Namespace"),
        Some("registry.example:5000")
    );
    let next = next_of(&answer).expect("a link");
    assert_eq!(
        next,
        format!("{LIST}?n=1&last=a&ns=registry.example%3A5000")
    );
    assert_eq!(tags_of(mirror.get(&next).await), ["b"]);
}

#[tokio::test]
async fn a7_6_n_is_a_number_and_clamped() {
    let world = World::new().await;
    let tags: Vec<String> = (0..10_001).map(|n| format!("{n:05}")).collect();
    let body = text(&json!({ "name": "team/app", "tags": tags }));
    world
        .upstream
        .answer(LIST, Scripted::ok("application/json", body));
    for n in ["-1", "abc", "", "1.5", "%2B1", "1&n=2"] {
        let answer = world.mirror.get(&format!("{LIST}?n={n}")).await;
        answer.expect_error(400, "UNSUPPORTED");
    }
    assert!(
        world.upstream.log().is_empty(),
        "no upstream call for what is refused"
    );
    for query in ["n=99999999999", "n=99999999999999999999999999", ""] {
        let target = format!("{LIST}?{query}");
        let pages = walk(&world.mirror, &target).await;
        let lengths: Vec<usize> = pages.iter().map(Vec::len).collect();
        assert_eq!(lengths, [10_000, 1], "{query}");
        assert_eq!(pages.concat(), tags);
    }
}

#[tokio::test]
async fn a7_7_a_repository_that_is_not_there_is_unknown() {
    let world = World::new().await;
    for way in Way::ALL {
        let target = way.target("team/missing/tags/list");
        let answer = world.mirror.get(&target).await;
        answer.expect_error(404, "NAME_UNKNOWN");
        assert_eq!(world.mirror.head(&target).await.status, 404);
    }
    let answer = world.mirror.get("/v2/team/App/tags/list").await;
    answer.expect_error(400, "NAME_INVALID");
}

#[tokio::test]
async fn a7_8_an_outage_is_never_an_empty_list() {
    let world = World::new().await;
    world.upstream.stop().await;
    world
        .mirror
        .get(LIST)
        .await
        .expect_error(502, "UNAVAILABLE");
    world.upstream.resume().await;
    for (answer, status) in [
        (Scripted::status(500), 502),
        (Scripted::status(429), 429),
        (Scripted::status(401), 403),
        (Scripted::status(403), 403),
        (Scripted::ok("text/html", "<html>Maintenance</html>"), 502),
        (Scripted::ok("application/json", "{}"), 502),
        (Scripted::ok("application/json", r#"{"errors":[]}"#), 502),
        (Scripted::ok("application/json", r#"{"tags":["a""#), 502),
        (Scripted::ok("application/json", ""), 502),
    ] {
        world.upstream.answer("/v2/*", answer.clone());
        let found = world.mirror.get(LIST).await;
        assert_eq!(found.status, status, "{answer:?}");
        // Whoever limits the rate is left alone for a moment.
        clock::pass(5).await;
    }
}

#[tokio::test]
async fn pushes_to_lists_are_refused() {
    let world = World::new().await;
    for method in ["POST", "PUT", "DELETE"] {
        let answer = world.mirror.send(Request::new(method, LIST)).await;
        answer.expect_error(405, "UNSUPPORTED");
    }
}

#[tokio::test]
async fn tags_of_signatures_are_ordinary_tags_with_true_404s() {
    let image = Image::new(1);
    let stem = image.manifest.digest().replace(':', "-");
    let tags = ["sig", "att", "sbom"].map(|suffix| format!("{stem}.{suffix}"));
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &image);
    for (n, tag) in (2..).zip(&tags) {
        let target = format!("/v2/team/app/manifests/{tag}");
        let missing = world.mirror.get(&target).await;
        missing.expect_error(404, "MANIFEST_UNKNOWN");
        assert_eq!(world.mirror.head(&target).await.status, 404);
        let signature = Image::new(n);
        world.upstream.put_image("team/app", tag, &signature);
        world.mirror.clock.advance(61);
        let found = world.mirror.get(&target).await;
        assert_eq!(found.expect(200), signature.manifest.bytes);
    }
    let listed = tags_of(world.mirror.get(LIST).await);
    assert!(tags.iter().all(|tag| listed.contains(tag)), "{listed:?}");
    // An outage is no 404: whoever verifies must not take it for "not signed".
    world.upstream.stop().await;
    let other = format!("/v2/team/app/manifests/{stem}.unknown");
    world
        .mirror
        .get(&other)
        .await
        .expect_error(502, "UNAVAILABLE");
}
