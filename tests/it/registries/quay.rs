//! quay.io: redirects that say they may be kept, tokens that do not say how long they live, strict scopes.

use super::{mirror_of, pulls, store_of};
use crate::harness::content::{Image, OCI_IMAGE, sha256};
use crate::harness::upstream::{Answer, Guard, Seen, Upstream};

const QUAY: &str = "quay.io";

#[tokio::test]
async fn p16_quay_302_cacheable() {
    let quay = Upstream::start().await;
    let image = Image::new(1);
    quay.put_image("org/app", "v1", &image);
    // Each answer leads to a place that only works once.
    let (first, second) = (store_of(&image).await, store_of(&image).await);
    let mirror = mirror_of(QUAY, &quay).await;
    let target = format!("/v2/org/app/blobs/{}?ns=quay.io", sha256(&image.blobs[1]));
    for store in [&first, &second] {
        let base = store.url("/files");
        quay.rule(move |request: &Seen| {
            let (_, kind, digest) = request.parts()?;
            let location = format!("{base}/{digest}?X-Amz-Expires=600");
            let answer = Answer::redirect(302, &location).header("Docker-Content-Digest", digest);
            (kind == "blobs").then(|| answer.header("Cache-Control", "max-age=31536000"))
        });
        assert_eq!(mirror.get(&target).await.expect(200), image.blobs[1]);
        store.stop().await;
        mirror.wait_until_stored(&sha256(&image.blobs[1])).await;
        std::fs::remove_file(mirror.path_of(&sha256(&image.blobs[1]))).expect("it is stored");
    }
    assert_eq!(second.requests("GET", "*").len(), 1);
}

#[tokio::test]
async fn p17_quay_token_only() {
    let quay = Upstream::start().await;
    let image = Image::new(1);
    quay.put_image("org/app", "v1", &image);
    let guard = Guard::bearer(&quay.url("/v2/auth"), QUAY).issuing(|request, token| {
        let body = serde_json::json!({ "token": token });
        match &*request.method {
            "GET" => Answer::ok("application/json", body.to_string()),
            _ => Answer::status(405),
        }
    });
    guard.stand(&quay, &quay, "/v2/auth");
    let mirror = mirror_of(QUAY, &quay).await;
    pulls(&mirror, QUAY, "org/app", &image).await;
    for n in 0..5 {
        let target = format!("/v2/org/app/manifests/missing-{n}?ns=quay.io");
        mirror
            .get(&target)
            .await
            .expect_error(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(
        guard.issued(),
        1,
        "a token without a lifetime still has one"
    );
}

#[tokio::test]
async fn p18_quay_strict_scope() {
    let quay = Upstream::start().await;
    let image = Image::new(1);
    quay.put_image("org/app", "v1", &image);
    let guard = Guard::bearer(&quay.url("/v2/auth"), QUAY).issuing(|request, token| {
        let body = serde_json::json!({ "token": token });
        if request.query("scope") == ["repository:org/app:pull"] {
            Answer::ok("application/json", body.to_string())
        } else {
            Answer::status(400).body("Unable to decode repository and actions")
        }
    });
    guard.stand(&quay, &quay, "/v2/auth");
    let mirror = mirror_of(QUAY, &quay).await;
    pulls(&mirror, QUAY, "org/app", &image).await;
}

#[tokio::test]
async fn p19_quay_convert() {
    let quay = Upstream::start().await;
    let image = Image::new(1);
    quay.put_image("org/app", "v1", &image);
    quay.rule(|request: &Seen| {
        let (_, kind, reference) = request.parts()?;
        let takes = request
            .header("Accept")
            .is_some_and(|accept| accept.contains(OCI_IMAGE));
        let by_tag = kind == "manifests" && !reference.contains(':');
        let schema_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        (by_tag && !takes).then(|| Answer::ok(schema_1, "{\"schemaVersion\":1}"))
    });
    let mirror = mirror_of(QUAY, &quay).await;
    pulls(&mirror, QUAY, "org/app", &image).await;
}

#[tokio::test]
async fn p21_foreign_codes() {
    for (media_type, body) in [
        (
            "application/json",
            r#"{"errors":[{"code":"TAG_EXPIRED","message":"Tag v1 was deleted","detail":{}}]}"#,
        ),
        (
            "application/json",
            r#"{"errors":[{"code":"NOT_FOUND","message":"artifact not found"}]}"#,
        ),
        (
            "application/json",
            r#"{"errors": [{"code": "404", "message": "Not Found"}]}"#,
        ),
        ("text/plain", "404 page not found"),
        (
            "application/xml",
            "<Error><Code>BlobNotFound</Code></Error>",
        ),
        ("text/html", "<html><title>Apache Tomcat</title></html>"),
    ] {
        let quay = Upstream::start().await;
        let answer = Answer::status(404)
            .header("Content-Type", media_type)
            .body(body);
        quay.answer("/v2/*", answer);
        let mirror = mirror_of(QUAY, &quay).await;
        let manifest = mirror.get("/v2/org/app/manifests/v1?ns=quay.io").await;
        manifest.expect_error(404, "MANIFEST_UNKNOWN");
        let blob = format!("/v2/org/app/blobs/{}?ns=quay.io", sha256(b"x"));
        mirror.get(&blob).await.expect_error(404, "BLOB_UNKNOWN");
    }
}
