//! Identity tokens: what `docker login` keeps in place of a password. They are worth as much, and go to who issues the
//! registry's tokens alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::content::Image;
use crate::harness::log::Log;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Answer, Guard, Seen, Upstream, basic};
use crate::harness::world::REGISTRY;

const MANIFEST: &str = "/v2/team/app/manifests/v1";
/// As Docker writes it for Azure's registries: a name without a password, and the token beside it.
const AUTHS: &str = r#"{"auths":{"registry.example":{
    "auth":"MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOg==","identitytoken":"canary"}}}"#;

/// A registry whose tokens come from its own host, as `issue` says.
async fn registry(issue: impl Fn(&Seen, &str) -> Answer + Send + Sync + 'static) -> Upstream {
    let registry = Upstream::start().await;
    registry.put_image("team/app", "v1", &Image::new(1));
    let guard = Guard::bearer(&registry.url("/token"), "registry.example");
    guard.issuing(issue).stand(&registry, &registry, "/token");
    registry
}

fn granted(token: &str) -> Answer {
    let body = serde_json::json!({ "access_token": token, "refresh_token": "canary-two" });
    Answer::ok("application/json", body.to_string())
}

fn refused(status: u16) -> Answer {
    Answer::status(status)
}

async fn mirror(registry: &Upstream) -> Mirror {
    let setup = Setup::new().upstream(REGISTRY, registry);
    let config = setup.file("config.json", AUTHS).display().to_string();
    setup
        .line(&format!("docker_config: {config:?}"))
        .start()
        .await
}

#[tokio::test]
async fn an_identity_token_is_shown_in_a_grant_and_nowhere_else() {
    let (log, _guard) = Log::start();
    let registry = registry(|request, token| {
        let is_right = request.method == "POST"
            && request.field("grant_type").as_deref() == Some("refresh_token")
            && request.field("refresh_token").as_deref() == Some("canary");
        if is_right {
            granted(token)
        } else {
            refused(401)
        }
    })
    .await;
    let mirror = mirror(&registry).await;
    mirror.get(MANIFEST).await.expect(200);
    mirror.head(MANIFEST).await;
    let [asked] = &*registry.requests("POST", "/token") else {
        panic!("one grant: {:?}", registry.log());
    };
    let form = Some("application/x-www-form-urlencoded");
    assert_eq!(asked.header("Content-Type"), form);
    assert_eq!(asked.field("service").as_deref(), Some("registry.example"));
    let scope = asked.field("scope");
    assert_eq!(scope.as_deref(), Some("repository:team/app:pull"));
    assert!(asked.field("client_id").is_some_and(|id| !id.is_empty()));
    for request in registry.log() {
        let told = request.header("Authorization").unwrap_or_default();
        assert!(!told.starts_with("Basic"), "{request:?}");
        assert!(!request.target.contains("canary"), "{request:?}");
    }
    let ours = log.text();
    let ours = ours.lines().filter(|line| line.contains("entrepot"));
    let told: Vec<_> = ours.filter(|line| line.contains("canary")).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[tokio::test]
async fn an_issuer_that_knows_no_grants_is_asked_as_of_old() {
    for status in [401, 404, 405] {
        let expected = basic("00000000-0000-0000-0000-000000000000", "canary");
        let registry = registry(move |request, token| {
            let is_known = request.header("Authorization") == Some(&expected);
            match &*request.method {
                "POST" => refused(status),
                _ if is_known => granted(token),
                _ => refused(401),
            }
        })
        .await;
        let mirror = mirror(&registry).await;
        mirror.get(MANIFEST).await.expect(200);
    }
}

#[tokio::test]
async fn an_identity_token_that_is_good_no_more_is_a_refusal() {
    let (log, _guard) = Log::start();
    let registry = registry(|request, _| {
        let status = if request.method == "POST" { 400 } else { 401 };
        Answer::status(status).body(r#"{"error":"invalid_grant"}"#)
    })
    .await;
    let answer = mirror(&registry).await.get(MANIFEST).await;
    answer.expect_error(403, "DENIED");
    assert!(
        log.text().contains("credential is refused"),
        "{}",
        log.text()
    );
    // What was refused once is not tried in another way.
    for request in registry.requests("GET", "/token") {
        assert_eq!(request.header("Authorization"), None);
    }
}

#[tokio::test]
async fn c17_a_realm_on_another_host_is_shown_no_identity_token() {
    let registry = Upstream::start().await;
    registry.put_image("team/app", "v1", &Image::new(1));
    let elsewhere = Upstream::start_on("127.0.0.2").await;
    let guard = Guard::bearer(&elsewhere.url("/token"), "x");
    guard.stand(&registry, &elsewhere, "/token");
    let answer = mirror(&registry).await.get(MANIFEST).await;
    answer.expect_error(403, "DENIED");
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_helper_that_gives_a_token_without_a_name_means_an_identity_token() {
    let registry = registry(|request, token| {
        let is_right = request.field("refresh_token").as_deref() == Some("from-helper");
        if is_right {
            granted(token)
        } else {
            refused(401)
        }
    })
    .await;
    let setup = Setup::new();
    let says = r#"{"Username":"<token>","Secret":"from-helper"}"#;
    let text = format!("#!/bin/sh\ncat > /dev/null; echo '{says}'\n");
    let program = setup.file("helper", &text);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("a file");
    let keys = format!("credentials: {{ exec: [{program:?}] }}");
    let setup = setup.upstream_with(REGISTRY, &registry, &keys);
    setup.start().await.get(MANIFEST).await.expect(200);
}
