//! C-17 to C-19: a challenge is what an attacker says. It decides neither where a credential goes nor what for.

use crate::harness::content::Image;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Answer, Authority, Guard, Upstream};
use crate::harness::world::REGISTRY;

const MANIFEST: &str = "/v2/team/app/manifests/v1";
const CREDENTIALS: &str = "registry.example: { username: robot, password: hunter2 }\n";

/// A registry that holds an image, and a mirror that has a credential for it.
async fn with_credential(upstream: &Upstream) -> Mirror {
    upstream.put_image("team/app", "v1", &Image::new(1));
    let setup = Setup::new().upstream(REGISTRY, upstream);
    setup.credentials(CREDENTIALS).start().await
}

#[tokio::test]
async fn c17_a_realm_on_another_host_is_not_asked() {
    let registry = Upstream::start().await;
    let elsewhere = Upstream::start_on("127.0.0.2").await;
    let guard = Guard::bearer(&elsewhere.url("/token"), "x");
    guard.stand(&registry, &elsewhere, "/token");
    let mirror = with_credential(&registry).await;
    let message = mirror.get(MANIFEST).await.expect_error(403, "DENIED");
    assert!(message.contains("realm"), "it says what to do: {message}");
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn c17_a_realm_that_is_named_is_asked_with_the_credential() {
    let authority = Authority::new();
    let registry = Upstream::start_tls("127.0.0.1", &authority).await;
    let elsewhere = Upstream::start_tls("127.0.0.2", &authority).await;
    registry.put_image("team/app", "v1", &Image::new(1));
    let guard = Guard::bearer(&elsewhere.url("/token"), "x");
    guard.stand(&registry, &elsewhere, "/token");
    let setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let keys = format!("ca: {ca:?}, realms: [{:?}]", elsewhere.host());
    let setup = setup.upstream_with(REGISTRY, &registry, &keys);
    let mirror = setup.credentials(CREDENTIALS).start().await;
    mirror.get(MANIFEST).await.expect(200);
    let asked = elsewhere.requests("GET", "/token");
    assert_eq!(asked.len(), 1);
    let expected = crate::harness::upstream::basic("robot", "hunter2");
    assert_eq!(asked[0].header("Authorization"), Some(&*expected));
}

#[tokio::test]
async fn c17_a_realm_that_is_no_place_for_a_token_is_refused() {
    let registry = Upstream::start().await;
    let host = registry.host();
    let mirror = with_credential(&registry).await;
    let realms = [
        "file:///etc/passwd".to_owned(),
        "ftp://127.0.0.1/token".to_owned(),
        "gopher://127.0.0.1/".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://127.0.0.2:9/token".to_owned(),
        format!("http://user:pw@{host}/token"),
        format!("http://{host}/{}", "x".repeat(8192)),
        "http://".to_owned(),
        String::new(),
    ];
    for realm in realms {
        registry.behave();
        let challenge = format!(r#"Bearer realm="{realm}",service="x""#);
        let refusal = Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", &challenge);
        registry.answer("/v2/*", refusal);
        let answer = mirror.get(MANIFEST).await;
        assert!(matches!(answer.status, 403 | 502), "{realm}: {answer:?}");
    }
    for request in registry.log() {
        let told = request.header("Authorization").unwrap_or_default();
        assert!(!told.starts_with("Bearer"), "{request:?}");
    }
}

#[tokio::test]
async fn c17_a_plain_realm_of_a_registry_with_tls_is_not_asked() {
    let authority = Authority::new();
    let registry = Upstream::start_tls("127.0.0.1", &authority).await;
    let plain = Upstream::start().await;
    registry.put_image("team/app", "v1", &Image::new(1));
    let guard = Guard::bearer(&plain.url("/token"), "x");
    guard.stand(&registry, &plain, "/token");
    let setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let realms = format!("ca: {ca:?}, realms: [{:?}]", plain.host());
    let setup = setup.upstream_with(REGISTRY, &registry, &realms);
    let mirror = setup.credentials(CREDENTIALS).start().await;
    let answer = mirror.get(MANIFEST).await;
    assert!(matches!(answer.status, 403 | 502), "{answer:?}");
    assert_eq!(plain.connections(), 0);
}

#[tokio::test]
async fn c17_a_token_endpoint_that_redirects_elsewhere_is_not_followed() {
    let registry = Upstream::start().await;
    let elsewhere = Upstream::start_on("127.0.0.2").await;
    let location = elsewhere.url("/token");
    let guard = Guard::bearer(&registry.url("/token"), "x")
        .issuing(move |_, _| Answer::redirect(307, &location));
    guard.stand(&registry, &registry, "/token");
    let mirror = with_credential(&registry).await;
    let answer = mirror.get(MANIFEST).await;
    assert!(matches!(answer.status, 403 | 502), "{answer:?}");
    for request in elsewhere.log() {
        assert_eq!(request.header("Authorization"), None);
    }
}

#[tokio::test]
async fn c17_of_several_challenges_the_one_that_can_be_met_is_met() {
    let registry = Upstream::start().await;
    let realm = registry.url("/token");
    let guard = Guard::challenging(move |_| {
        vec![
            "Negotiate".to_owned(),
            "Bearer realm=\"http://127.0.0.2:9/token\"".to_owned(),
            format!(r#"Digest realm="a, b", Bearer realm="{realm}", service="x""#),
        ]
    });
    guard.stand(&registry, &registry, "/token");
    let mirror = with_credential(&registry).await;
    // Whether a good challenge behind a bad one is met is the mirror's choice; it never asks the bad one.
    let answer = mirror.get(MANIFEST).await;
    assert!(matches!(answer.status, 200 | 403 | 502), "{answer:?}");
}

#[tokio::test]
async fn a_challenge_that_repeats_itself_is_final() {
    let registry = Upstream::start().await;
    let guard = Guard::bearer(&registry.url("/token"), "x");
    guard.stand(&registry, &registry, "/token");
    let mirror = with_credential(&registry).await;
    // Whatever token comes, it is not taken.
    let challenge = format!(r#"Bearer realm="{}",service="x""#, registry.url("/token"));
    let refusal = Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", &challenge);
    registry.answer("/v2/*", refusal);
    mirror.get(MANIFEST).await.expect_error(403, "DENIED");
    assert!(registry.requests("GET", "/token").len() <= 2);
    assert!(registry.requests("GET", MANIFEST).len() <= 3);
}

#[tokio::test]
async fn c18_c19_a_token_is_asked_for_by_us_and_used_where_it_belongs() {
    let upstream = Upstream::start().await;
    for name in ["team/app", "team/other"] {
        upstream.put_image(name, "v1", &Image::new(1));
    }
    let realm = upstream.url("/token");
    let guard = Guard::challenging(move |_| {
        let scope = "repository:other/secret:pull,push registry:catalog:*";
        vec![format!(
            r#"Bearer realm="{realm}",service="x",scope="{scope}""#
        )]
    });
    guard.stand(&upstream, &upstream, "/token");
    let mirror = Setup::new().upstream(REGISTRY, &upstream).start().await;
    for name in ["team/app", "team/other"] {
        let target = format!("/v2/{name}/manifests/v1");
        mirror.get(&target).await.expect(200);
    }
    let scopes: Vec<_> = upstream
        .requests("GET", "/token")
        .iter()
        .flat_map(|request| request.query("scope"))
        .collect();
    assert_eq!(
        scopes,
        ["repository:team/app:pull", "repository:team/other:pull"]
    );
    // The token of the first never came to the second.
    for request in upstream.requests("GET", "/v2/team/other/*") {
        assert_ne!(request.header("Authorization"), Some("Bearer token-1"));
    }
}
