//! Docker Hub: tokens for each repository, blobs elsewhere, 401 for what is missing, and a quota on GET.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::json;

use super::{mirror_of, pulls, store_of};
use crate::harness::content::{Image, OCI_IMAGE, sha256};
use crate::harness::upstream::{Answer, Guard, Seen, Upstream, json};

const HUB: &str = "docker.io";

/// The token endpoint, which says when a token was issued to the nanosecond.
fn guard(hub: &Upstream) -> Guard {
    Guard::bearer(&hub.url("/token"), "registry.docker.io").issuing(|_, token| {
        let issued_at = "2018-07-27T15:59:03.973148921Z";
        let body = json!({ "token": token, "access_token": token, "expires_in": 300,
            "issued_at": issued_at });
        Answer::ok("application/json", json(&body))
    })
}

#[tokio::test]
async fn p1_hub_basic() {
    let hub = Upstream::start().await;
    let image = Image::new(1);
    let store = store_of(&image).await;
    hub.put_image("library/nginx", "v1", &image);
    hub.redirect_blobs(307, &store.url("/files"), "?verify=1-abc%3D");
    let guard = guard(&hub);
    guard.stand(&hub, &hub, "/token");
    let mirror = mirror_of(HUB, &hub).await;
    pulls(&mirror, HUB, "nginx", &image).await;

    let tokens = hub.requests("GET", "/token");
    assert_eq!(tokens.len(), 1, "one token for the repository: {tokens:?}");
    assert_eq!(tokens[0].query("scope"), ["repository:library/nginx:pull"]);
    assert_eq!(tokens[0].query("service"), ["registry.docker.io"]);
    assert_eq!(tokens[0].header("Authorization"), None);
    for request in store.log() {
        assert_eq!(request.header("Authorization"), None);
    }
    // Nobody asks `/v2/`, whose challenge is another.
    assert!(hub.requests("GET", "/v2/").is_empty());
}

#[tokio::test]
async fn p1_many_clients_share_one_token() {
    let hub = Upstream::start().await;
    for n in 0..8 {
        hub.put_image("library/nginx", &format!("v{n}"), &Image::new(n));
    }
    let guard = guard(&hub);
    guard.stand(&hub, &hub, "/token");
    let mirror = mirror_of(HUB, &hub).await;
    let targets: Vec<_> = (0..8)
        .map(|n| format!("/v2/library/nginx/manifests/v{n}?ns=docker.io"))
        .collect();
    for answer in join_all(targets.iter().map(|target| mirror.get(target))).await {
        answer.expect(200);
    }
    assert_eq!(guard.issued(), 1);
}

#[tokio::test]
async fn p3_hub_head_free() {
    let hub = Upstream::start().await;
    let image = Image::new(1);
    hub.put_image("library/nginx", "v1", &image);
    let mirror = mirror_of(HUB, &hub).await;
    let target = "/v2/library/nginx/manifests/v1?ns=docker.io";
    mirror.get(target).await.expect(200);
    for _ in 0..3 {
        mirror.clock.advance(16 * 60);
        mirror.get(target).await.expect(200);
    }
    assert_eq!(
        hub.requests("GET", "*").len(),
        1,
        "the quota counts each GET"
    );
    assert_eq!(hub.requests("HEAD", "*").len(), 3);
}

#[tokio::test]
async fn p6_hub_schema1_trap() {
    let hub = Upstream::start().await;
    let image = Image::new(1);
    hub.put_image("library/nginx", "v1", &image);
    hub.rule(|request: &Seen| {
        let modern = request
            .header("Accept")
            .is_some_and(|accept| accept.contains(OCI_IMAGE));
        let schema_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        let is_tag = request.path() == "/v2/library/nginx/manifests/v1";
        (is_tag && !modern).then(|| Answer::ok(schema_1, "{\"schemaVersion\":1}"))
    });
    let mirror = mirror_of(HUB, &hub).await;
    pulls(&mirror, HUB, "nginx", &image).await;
}

#[tokio::test]
async fn schema_1_is_not_taken() {
    let hub = Upstream::start().await;
    let schema_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    hub.answer("/v2/*", Answer::ok(schema_1, "{\"schemaVersion\":1}"));
    let mirror = mirror_of(HUB, &hub).await;
    let target = "/v2/library/old/manifests/v1?ns=docker.io";
    mirror
        .get(target)
        .await
        .expect_error(502, "MANIFEST_INVALID");
}

#[tokio::test]
async fn p7_hub_two_cdns() {
    let hub = Upstream::start().await;
    let image = Image::new(1);
    let stores = [store_of(&image).await, store_of(&image).await];
    // What is signed for one host is refused by the other, and so is anything rewritten.
    for store in &stores {
        let host = store.host();
        store.rule(move |request: &Seen| {
            let signed = request
                .target
                .ends_with(&format!("?Expires=1&Signature=a~b-{host}&Key-Pair-Id=K%2B"));
            (!signed).then(|| {
                Answer::status(403).body("<Error><Code>SignatureDoesNotMatch</Code></Error>")
            })
        });
    }
    hub.put_image("library/nginx", "v1", &image);
    let bases: Vec<_> = stores
        .iter()
        .map(|store| {
            (
                store.url("/files"),
                format!("?Expires=1&Signature=a~b-{}&Key-Pair-Id=K%2B", store.host()),
            )
        })
        .collect();
    let turn = AtomicUsize::new(0);
    hub.rule(move |request: &Seen| {
        let (_, kind, digest) = request.parts()?;
        let (base, query) = &bases[turn.fetch_add(1, Ordering::Relaxed) % 2];
        let location = format!("{base}/{digest}{query}");
        (kind == "blobs").then(|| Answer::redirect(307, &location))
    });
    let mirror = mirror_of(HUB, &hub).await;
    pulls(&mirror, HUB, "nginx", &image).await;
    assert!(stores.iter().all(|store| !store.log().is_empty()));
}

#[tokio::test]
async fn p8_presign_get_only() {
    let hub = Upstream::start().await;
    let image = Image::new(1);
    let store = store_of(&image).await;
    store.rule(|request: &Seen| (request.method == "HEAD").then(|| Answer::status(403)));
    hub.put_image("library/nginx", "v1", &image);
    let base = store.url("/files");
    // Once the registry redirects HEAD as well, once it answers by itself.
    for redirects_head in [true, false] {
        let base = base.clone();
        hub.behave();
        hub.rule(move |request: &Seen| {
            let (_, kind, digest) = request.parts()?;
            let away = kind == "blobs" && (redirects_head || request.method == "GET");
            away.then(|| Answer::redirect(307, &format!("{base}/{digest}?sig=1")))
        });
        let mirror = mirror_of(HUB, &hub).await;
        for blob in &image.blobs {
            let target = format!("/v2/library/nginx/blobs/{}?ns=docker.io", sha256(blob));
            let head = mirror.head(&target).await;
            assert_eq!(
                head.header("Content-Length"),
                Some(&*blob.len().to_string())
            );
            head.expect(200);
        }
        pulls(&mirror, HUB, "nginx", &image).await;
    }
}
