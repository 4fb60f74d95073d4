//! MCR and Azure: paths with two slashes, tokens under another name, stores that want no `Authorization`.

use super::{mirror_of, pulls, store_of};
use crate::harness::content::{Image, sha256};
use crate::harness::upstream::{Answer, Guard, Seen, Upstream};

#[tokio::test]
async fn p28_mcr_double_slash() {
    let mcr = Upstream::start().await;
    let store = Upstream::start_on("127.0.0.2").await;
    let image = Image::new(1);
    mcr.put_image("dotnet/runtime", "v1", &image);
    for blob in &image.blobs {
        let hex = sha256(blob).replace(':', "%3A");
        let body = blob.clone();
        let exact = format!(
            "/shard//docker/registry/v2/blobs/sha256/xx/{hex}/data?se=2024%2d&sig=a%2Fb%3d&sp=r&&x="
        );
        store.rule(move |request: &Seen| {
            let digest = sha256(&body);
            (request.target == exact).then(|| {
                Answer::ok("application/octet-stream", body.clone()).header("X-Digest", &digest)
            })
        });
    }
    let base = store.url("/shard//docker/registry/v2/blobs/sha256/xx");
    mcr.rule(move |request: &Seen| {
        let (_, kind, digest) = request.parts()?;
        let hex = digest.replace(':', "%3A");
        let location = format!("{base}/{hex}/data?se=2024%2d&sig=a%2Fb%3d&sp=r&&x=");
        (kind == "blobs").then(|| Answer::redirect(307, &location))
    });
    let mirror = mirror_of("mcr.microsoft.com", &mcr).await;
    pulls(&mirror, "mcr.microsoft.com", "dotnet/runtime", &image).await;
}

#[tokio::test]
async fn p29_acr_access_token() {
    const ACR: &str = "contoso.azurecr.io";
    let acr = Upstream::start().await;
    let image = Image::new(1);
    let store = store_of(&image).await;
    acr.put_image("hello-world", "v1", &image);
    acr.redirect_blobs(307, &store.url("/files"), "?se=1&sig=x");
    let guard = Guard::bearer(&acr.url("/oauth2/token"), ACR).issuing(|request, token| {
        let body = serde_json::json!({ "access_token": token });
        match &*request.method {
            "GET" => Answer::ok("application/json; charset=utf-8", body.to_string()),
            _ => Answer::status(400),
        }
    });
    guard.stand(&acr, &acr, "/oauth2/token");
    let mirror = mirror_of(ACR, &acr).await;
    pulls(&mirror, ACR, "hello-world", &image).await;
}

/// A store that answers 400 with this text to whoever brings an `Authorization` along.
async fn wants_no_authorization(text: &'static str) {
    const ACR: &str = "contoso.azurecr.io";
    let acr = Upstream::start().await;
    let image = Image::new(1);
    let store = store_of(&image).await;
    store.rule(move |request: &Seen| {
        let refusal = Answer::status(400)
            .header("Content-Type", "application/xml")
            .body(text);
        request.header("Authorization").map(|_| refusal)
    });
    acr.put_image("hello-world", "v1", &image);
    acr.redirect_blobs(307, &store.url("/files"), "?se=1&sig=x");
    let guard = Guard::bearer(&acr.url("/oauth2/token"), ACR);
    guard.stand(&acr, &acr, "/oauth2/token");
    let mirror = mirror_of(ACR, &acr).await;
    pulls(&mirror, ACR, "hello-world", &image).await;
}

#[tokio::test]
async fn p10_s3_two_auth() {
    wants_no_authorization("<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>").await;
}

#[tokio::test]
async fn p11_azure_auth() {
    wants_no_authorization("<Error><Code>InvalidAuthenticationInfo</Code></Error>").await;
}

#[tokio::test]
async fn p11_what_a_store_says_stays_in_the_log() {
    const ACR: &str = "contoso.azurecr.io";
    let acr = Upstream::start().await;
    let store = Upstream::start_on("127.0.0.2").await;
    let refusal = "<Error><Code>InvalidAuthenticationInfo</Code></Error>";
    store.answer("*", Answer::status(400).body(refusal));
    acr.redirect_blobs(307, &store.url("/files"), "?se=1&sig=x");
    let mirror = mirror_of(ACR, &acr).await;
    let target = format!("/v2/hello-world/blobs/{}?ns={ACR}", sha256(b"x"));
    let message = mirror.get(&target).await.expect_error(502, "UNAVAILABLE");
    assert!(!message.contains("InvalidAuthenticationInfo"), "{message}");
}
