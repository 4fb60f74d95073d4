//! GitLab, Harbor and NVIDIA's: realms elsewhere, tokens that die early, challenges that change.

use super::{mirror_of, pulls};
use crate::harness::content::{Image, MIB, bytes};
use crate::harness::gate::Gate;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Authority, Body, End, Guard, Seen, Upstream};

const REGISTRY: &str = "registry.example";

#[tokio::test]
async fn p33_gitlab_split() {
    let authority = Authority::new();
    let registry = Upstream::start_tls("127.0.0.1", &authority).await;
    let gitlab = Upstream::start_tls("127.0.0.2", &authority).await;
    let image = Image::new(1);
    registry.put_image("group/project", "v1", &image);
    let guard =
        Guard::bearer(&gitlab.url("/jwt/auth"), "container_registry").issuing(|_, token| {
            let body = serde_json::json!({ "token": token });
            Answer::ok("application/json", body.to_string())
        });
    guard.stand(&registry, &gitlab, "/jwt/auth");
    let setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let keys = format!("ca: {ca:?}, realms: [{:?}]", gitlab.host());
    let setup = setup.upstream_with(REGISTRY, &registry, &keys);
    let credentials = "registry.example: { username: deploy, password: token }\n";
    let mirror = setup.credentials(credentials).start().await;
    pulls(&mirror, REGISTRY, "group/project", &image).await;
    let asked = gitlab.requests("GET", "/jwt/auth");
    assert_eq!(asked[0].query("service"), ["container_registry"]);
}

#[tokio::test]
async fn p33_a_token_that_dies_in_the_middle_of_a_blob() {
    let registry = Upstream::start().await;
    let content = bytes(1, 2 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(MIB, &gate);
    let digest = registry.put_blob("group/project", body.cut_at(MIB, End::Fin, 1));
    let guard = Guard::bearer(&registry.url("/token"), "x");
    guard.stand(&registry, &registry, "/token");
    let mirror = mirror_of(REGISTRY, &registry).await;
    let target = format!("/v2/group/project/blobs/{digest}");
    let dies = async {
        gate.reached().await;
        guard.revoke();
        gate.open();
    };
    let (answer, ()) = tokio::join!(mirror.get(&target), dies);
    assert_eq!(answer.expect(200), content);
    assert_eq!(guard.issued(), 2);
    let sent = registry.body_bytes("/v2/group/project/blobs/*");
    assert!(sent <= content.len() as u64 * 101 / 100, "{sent}");
}

#[tokio::test]
async fn p34_harbor_flip() {
    let harbor = Upstream::start().await;
    let image = Image::new(1);
    harbor.put_image("project/app", "v1", &image);
    let (realm, host) = (harbor.url("/service/token"), harbor.host());
    // Whoever brings a token that is no good meets another challenge than whoever brings none.
    let guard = Guard::challenging(move |request| {
        if request.header("Authorization").is_some() {
            return vec!["Basic realm=\"harbor\"".to_owned()];
        }
        let name = request.parts().map_or("", |(name, _, _)| name);
        let scope = format!("repository:{name}:pull");
        vec![format!(
            r#"Bearer realm="{realm}",service="harbor-registry",scope="{scope}""#
        )]
    });
    guard.stand(&harbor, &harbor, "/service/token");
    for with_credential in [false, true] {
        let setup = Setup::new().upstream(REGISTRY, &harbor);
        let setup = if with_credential {
            setup.credentials("registry.example: { username: robot$x, password: y }\n")
        } else {
            setup
        };
        let mirror = setup.start().await;
        let before = guard.issued();
        pulls(&mirror, REGISTRY, "project/app", &image).await;
        guard.revoke();
        let other = Image::new(2);
        harbor.put_image("project/app", "v2", &other);
        let target = "/v2/project/app/manifests/v2";
        assert_eq!(
            mirror.get(target).await.expect(200),
            other.manifest.bytes,
            "{host}"
        );
        assert_eq!(guard.issued() - before, 2);
    }
}

#[tokio::test]
async fn p34_harbor_empty_challenge() {
    for challenge in [None, Some("")] {
        let harbor = Upstream::start().await;
        let refusal = Answer::error(401, "UNAUTHORIZED");
        let refusal = match challenge {
            Some(text) => refusal.header("WWW-Authenticate", text),
            None => refusal,
        };
        harbor.answer("/v2/*", refusal);
        let mirror = mirror_of(REGISTRY, &harbor).await;
        let target = "/v2/unknown/app/manifests/v1";
        mirror.get(target).await.expect_error(403, "DENIED");
        assert!(harbor.log().len() <= 2, "{:?}", harbor.log());
    }
}

#[tokio::test]
async fn p37_nvcr_no_service() {
    let nvcr = Upstream::start().await;
    let image = Image::new(1);
    nvcr.put_image("nvidia/app", "v1", &image);
    let realm = nvcr.url("/proxy_auth");
    let guard = Guard::challenging(move |_| vec![format!(r#"Bearer realm="{realm}",scope="""#)]);
    guard.stand(&nvcr, &nvcr, "/proxy_auth");
    let mirror = mirror_of("nvcr.io", &nvcr).await;
    pulls(&mirror, "nvcr.io", "nvidia/app", &image).await;
    for request in nvcr.requests("GET", "/proxy_auth") {
        assert!(request.query("service").is_empty(), "{request:?}");
        assert_eq!(request.query("scope"), ["repository:nvidia/app:pull"]);
    }
}

#[tokio::test]
async fn p37_a_realm_that_moves_is_followed() {
    let nvcr = Upstream::start().await;
    let image = Image::new(1);
    nvcr.put_image("nvidia/app", "v1", &image);
    let old = Guard::bearer(&nvcr.url("/token"), "nvcr.io");
    old.stand(&nvcr, &nvcr, "/token");
    let mirror = mirror_of("nvcr.io", &nvcr).await;
    pulls(&mirror, "nvcr.io", "nvidia/app", &image).await;

    nvcr.behave();
    nvcr.answer("/token", Answer::status(404));
    let new = Guard::bearer(&nvcr.url("/proxy_auth"), "nvcr.io");
    new.stand(&nvcr, &nvcr, "/proxy_auth");
    let other = Image::new(2);
    nvcr.put_image("nvidia/app", "v2", &other);
    let target = "/v2/nvidia/app/manifests/v2?ns=nvcr.io";
    assert_eq!(mirror.get(target).await.expect(200), other.manifest.bytes);
    assert_eq!(new.issued(), 1);
}

#[tokio::test]
async fn p35_a_realm_abroad_gets_no_credential() {
    let registry = Upstream::start().await;
    let evil = Upstream::start_on("127.0.0.2").await;
    evil.rule(|_: &Seen| Some(Answer::ok("application/json", r#"{"token":"of-evil"}"#)));
    registry.put_image("linuxserver/app", "v1", &Image::new(1));
    let guard = Guard::bearer(&evil.url("/token"), "evil");
    guard.stand(&registry, &registry, "/nowhere");
    let setup = Setup::new().upstream("lscr.io", &registry);
    let credentials = "lscr.io: { username: robot, password: hunter2 }\n";
    let mirror = setup.credentials(credentials).start().await;
    let target = "/v2/linuxserver/app/manifests/v1?ns=lscr.io";
    mirror.get(target).await.expect_error(403, "DENIED");
    assert_eq!(evil.connections(), 0);
}
