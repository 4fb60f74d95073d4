//! A2: what upstream sends as a manifest and is none, or not the one that was asked for.

use serde_json::json;

use crate::harness::content::{Image, MIB, Manifest, OCI_IMAGE, OCI_INDEX};
use crate::harness::upstream::{Answer, Body, Declared};
use crate::harness::world::World;

/// Answers a tag with `answer` and expects 502, twice: nothing of it is kept.
async fn is_refused(answer: Answer, code: &str) {
    let world = World::new().await;
    world.upstream.answer("/v2/team/app/manifests/v1", answer);
    let before = world.mirror.files();
    for n in 1..=2 {
        let target = "/v2/team/app/manifests/v1";
        world.mirror.get(target).await.expect_error(502, code);
        let asked = world.upstream.requests("GET", target).len();
        assert!(asked >= n, "it was not kept, so it is asked for again");
    }
    assert_eq!(world.mirror.files(), before);
}

fn answer(manifest: &Manifest) -> Answer {
    Answer::ok(&manifest.media_type, manifest.bytes.clone())
}

#[tokio::test]
async fn a2_9_more_than_a_manifest_can_have_is_refused() {
    let padding = "x".repeat(9 * MIB);
    let manifest = Manifest::json(OCI_INDEX, json!({ "manifests": [], "padding": padding }));
    is_refused(answer(&manifest), "UNAVAILABLE").await;
}

#[tokio::test]
async fn a2_9_a_manifest_without_end_is_refused() {
    let endless = Body::new("[[[[[[[[".repeat(1000)).endlessly();
    is_refused(Answer::ok(OCI_INDEX, endless), "UNAVAILABLE").await;
    let undeclared = Body::new("x".repeat(9 * MIB)).declare(Declared::Chunked);
    is_refused(Answer::ok(OCI_INDEX, undeclared), "UNAVAILABLE").await;
}

#[tokio::test]
async fn a2_11_a_document_of_another_type_than_its_header_is_refused() {
    let document = Manifest::json(OCI_IMAGE, json!({ "layers": [] }));
    let wrong = Answer::ok(OCI_INDEX, document.bytes);
    is_refused(wrong, "MANIFEST_INVALID").await;
}

#[tokio::test]
async fn a2_12_an_index_that_is_an_image_too_is_refused() {
    let both = Manifest::json(OCI_INDEX, json!({ "manifests": [], "layers": [] }));
    is_refused(answer(&both), "MANIFEST_INVALID").await;
    let both = Manifest::json(OCI_IMAGE, json!({ "manifests": [], "config": {} }));
    is_refused(answer(&both), "MANIFEST_INVALID").await;
}

#[tokio::test]
async fn c9_a_field_that_stands_twice_is_refused() {
    let twice = r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#;
    is_refused(Answer::ok(OCI_INDEX, twice), "MANIFEST_INVALID").await;
}

#[tokio::test]
async fn c9_a_document_that_is_nested_too_deep_is_refused() {
    let (open, close) = ("[".repeat(10_000), "]".repeat(10_000));
    let deep = format!(r#"{{"schemaVersion":2,"manifests":{open}{close}}}"#);
    is_refused(Answer::ok(OCI_INDEX, deep), "MANIFEST_INVALID").await;
}

#[tokio::test]
async fn a2_13_a_false_claim_about_the_digest_is_refused() {
    let manifest = Image::new(1).manifest;
    let claim = Image::new(2).manifest.digest();
    let lie = answer(&manifest).header("Docker-Content-Digest", &claim);
    is_refused(lie, "MANIFEST_INVALID").await;
}

#[tokio::test]
async fn a2_13_a_claim_that_does_not_parse_says_nothing() {
    let world = World::new().await;
    let manifest = Image::new(1).manifest;
    let odd = answer(&manifest).header("Docker-Content-Digest", "unknown");
    world.upstream.answer("/v2/team/app/manifests/v1", odd);
    let answer = world.mirror.get("/v2/team/app/manifests/v1").await;
    let digest = answer.header("Docker-Content-Digest").map(str::to_owned);
    assert_eq!(digest, Some(manifest.digest()));
    assert_eq!(answer.expect(200), manifest.bytes);
}

#[tokio::test]
async fn a2_14_another_document_than_the_digest_asked_for_is_refused() {
    let (asked, other) = (Image::new(1).manifest, Image::new(2).manifest);
    for claimed in [asked.digest(), other.digest()] {
        let world = World::new().await;
        let target = format!("/v2/team/app/manifests/{}", asked.digest());
        let lie = answer(&other).header("Docker-Content-Digest", &claimed);
        world.upstream.answer(&target, lie);
        let before = world.mirror.files();
        world
            .mirror
            .get(&target)
            .await
            .expect_error(502, "MANIFEST_INVALID");
        assert_eq!(world.mirror.files(), before);

        // The right one, later, is served: nobody remembers the lie.
        world.upstream.behave();
        world
            .upstream
            .put_manifest_as("team/app", &asked.digest(), &asked);
        assert_eq!(world.mirror.get(&target).await.expect(200), asked.bytes);
    }
}

#[tokio::test]
async fn f11_a_page_is_no_manifest() {
    for media_type in [
        "text/html",
        "text/plain",
        "application/octet-stream",
        "*",
        "",
    ] {
        let page = Answer::ok(media_type, "<html>Please log in.</html>");
        is_refused(page, "MANIFEST_INVALID").await;
    }
    let page = Answer::ok(OCI_INDEX, "<html>Please log in.</html>");
    is_refused(page, "MANIFEST_INVALID").await;
}

#[tokio::test]
async fn a_head_tells_nothing_that_a_get_would_refuse() {
    let world = World::new().await;
    let page = Answer::ok("text/html", "<html>Please log in.</html>");
    world.upstream.answer("/v2/team/app/manifests/v1", page);
    let head = world.mirror.head("/v2/team/app/manifests/v1").await;
    assert_eq!(head.status, 502);
}
