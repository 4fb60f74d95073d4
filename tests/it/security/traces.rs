//! C-44 to C-47: what is written down about a request, in the log and in the metrics.

use crate::harness::client::Request;
use crate::harness::content::{Image, bytes, sha256};
use crate::harness::log::Log;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Guard, Upstream};
use crate::harness::world::{REGISTRY, World};

#[tokio::test]
async fn c44_c45_no_secret_is_logged() {
    let (log, _guard) = Log::start();
    let upstream = Upstream::start().await;
    let store = Upstream::start_on("127.0.0.2").await;
    let content = bytes(1, 5000);
    let digest = upstream.put_blob("team/app", content.clone());
    upstream.put_image("team/app", "v1", &Image::new(1));
    store.put_file(&format!("/files/{digest}"), content.clone());
    upstream.redirect_blobs(
        307,
        &store.url("/files"),
        "?X-Amz-Signature=canary-signature&token=canary-query",
    );
    let guard = Guard::bearer(&upstream.url("/token"), "x").issuing(|_, token| {
        let body = serde_json::json!({ "token": token, "refresh_token": "canary-refresh" });
        crate::harness::upstream::Answer::ok("application/json", body.to_string())
    });
    guard.stand(&upstream, &upstream, "/token");
    let setup = Setup::new().upstream(REGISTRY, &upstream);
    let credentials = "registry.example: { username: robot, password: canary-password }\n";
    let mut mirror = setup.credentials(credentials).start().await;

    let blob = format!("/v2/team/app/blobs/{digest}");
    for target in [
        "/v2/team/app/manifests/v1",
        &blob,
        "/v2/team/app/manifests/v2?token=canary-client",
    ] {
        let request = Request::get(target)
            .header("Authorization", "Bearer canary-authorization")
            .header("Cookie", "canary-cookie");
        mirror.send(request).await;
    }
    store.stop().await;
    upstream.stop().await;
    mirror.get("/v2/team/app/manifests/v3").await;
    mirror.stop().await;
    let text = log.text();
    // Lines of the libraries below tell what they please at TRACE; ours do not.
    let ours = text.lines().filter(|line| line.contains("entrepot"));
    let ours: Vec<_> = ours.collect();
    assert!(!ours.is_empty(), "requests are logged");
    let basic = crate::harness::upstream::basic("robot", "canary-password");
    for secret in ["canary", &basic, "token-1"] {
        let told: Vec<_> = ours.iter().filter(|line| line.contains(secret)).collect();
        assert!(told.is_empty(), "{secret}: {told:#?}");
    }
}

#[tokio::test]
async fn c44_a_callers_own_token_is_not_logged() {
    let (log, _guard) = Log::start();
    let upstream = Upstream::start().await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    let realm = upstream.url("/token");
    upstream.rule(move |request| {
        let may = request.header("Authorization") == Some("Bearer canary-right");
        let challenge = format!(r#"Bearer realm="{realm}",service="x""#);
        let refusal = crate::harness::upstream::Answer::status(401);
        (!may && request.path().starts_with("/v2/"))
            .then(|| refusal.header("WWW-Authenticate", &challenge))
    });
    let refusal = crate::harness::upstream::Answer::status(403);
    upstream.answer("/token", refusal);
    let mut mirror = Setup::new().upstream(REGISTRY, &upstream).start().await;
    for (token, status) in [("right", 200), ("wrong", 401)] {
        let request = Request::get("/v2/team/app/manifests/v1");
        let request = request.header("Authorization", format!("Bearer canary-{token}"));
        assert_eq!(mirror.send(request).await.status, status);
    }
    mirror.stop().await;
    let text = log.text();
    assert!(text.contains("entrepot"), "requests are logged");
    assert!(!text.contains("canary"), "{text}");
    for (path, _) in mirror.files() {
        let content = std::fs::read(mirror.directory.path().join(path)).expect("a file");
        let needle = b"canary";
        let is_told = content.windows(needle.len()).any(|bytes| bytes == needle);
        assert!(!is_told, "it is on disk");
    }
}

#[tokio::test]
async fn c46_a_client_cannot_write_lines_of_its_own() {
    let (log, _guard) = Log::start();
    let world = World::new().await;
    for target in [
        "/v2/a%0Aforged/manifests/v1",
        "/v2/a/manifests/%1B%5B31mforged",
        "/v2/a/manifests/v1?ns=%0Aforged",
    ] {
        let request =
            Request::get(target).header("User-Agent", b"x\t[31m forged \xc2\x9b31m \xff\xfe");
        world.mirror.send(request).await;
    }
    let long = Request::get("/v2/").header("User-Agent", "a".repeat(7000));
    world.mirror.send(long).await.expect(200);
    for line in log.text().lines() {
        assert!(
            !line.starts_with("forged") && !line.contains('\u{1b}'),
            "{line:?}"
        );
        assert!(
            line.len() < 4096 || !line.contains("entrepot"),
            "{} bytes in one line",
            line.len()
        );
    }
}

#[tokio::test]
async fn c47_the_metrics_have_no_words_of_clients() {
    let world = World::with(Setup::serving_the_public).await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    for n in 0..50 {
        let target = format!("/v2/words-{n}/app/manifests/tag-{n}?ns=10.0.0.{n}");
        world.mirror.get(&target).await;
        let target = format!("/v2/words-{n}/app/manifests/tag-{n}");
        world.mirror.get(&target).await;
    }
    let digest = sha256(b"x");
    world
        .mirror
        .get(&format!("/v2/team/app/blobs/{digest}"))
        .await;
    world
        .mirror
        .get("/v2/team/app/manifests/v1")
        .await
        .expect(200);
    let metrics = world.mirror.metrics().await;
    assert!(metrics.contains("entrepot_"), "{metrics}");
    for word in ["words-", "tag-", "10.0.0.", &digest] {
        assert!(!metrics.contains(word), "{word} in {metrics}");
    }
    // What is configured, or known at large, may be named.
    assert!(metrics.contains(REGISTRY), "{metrics}");
}
