//! C-20 to C-24: where a redirect may lead, and with what.

use crate::harness::client::Request;
use crate::harness::content::{Image, bytes, sha256};
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Answer, Authority, Guard, Upstream};
use crate::harness::world::{REGISTRY, World};

const CREDENTIALS: &str = "registry.example: { username: robot, password: hunter2 }\n";

fn target(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

/// A mirror that knows a credential for the registry.
async fn with_credential(registry: &Upstream) -> Mirror {
    let setup = Setup::new().upstream(REGISTRY, registry);
    setup.credentials(CREDENTIALS).start().await
}

#[tokio::test]
async fn c20_no_credential_follows_a_redirect_to_another_origin() {
    for host in ["127.0.0.2", "127.0.0.1"] {
        let registry = Upstream::start().await;
        let store = Upstream::start_on(host).await;
        let content = bytes(1, 5000);
        let digest = registry.put_blob("team/app", content.clone());
        store.put_file(&format!("/files/{digest}"), content.clone());
        registry.redirect_blobs(307, &store.url("/files"), "?sig=abc%2Fdef");
        let guard = Guard::bearer(&registry.url("/token"), "x");
        guard.stand(&registry, &registry, "/token");
        let mirror = with_credential(&registry).await;

        let request = Request::get(&target(&digest))
            .header("Authorization", "Bearer of-the-client")
            .header("Cookie", "of=the-client")
            .header("X-Of-Client", "yes");
        assert_eq!(mirror.send(request).await.expect(200), content);
        let log = store.log();
        assert!(!log.is_empty());
        for request in log {
            for header in ["Authorization", "Cookie", "X-Of-Client"] {
                assert_eq!(request.header(header), None, "{request:?}");
            }
            assert!(request.target.ends_with("?sig=abc%2Fdef"), "{request:?}");
        }
        let authorised = registry.requests("GET", &target(&digest));
        assert!(
            authorised
                .iter()
                .any(|request| request.header("Authorization").is_some())
        );
    }
}

#[tokio::test]
async fn c21_a_redirect_from_https_to_http_is_refused() {
    let authority = Authority::new();
    let registry = Upstream::start_tls("127.0.0.1", &authority).await;
    let store = Upstream::start().await;
    let content = bytes(1, 5000);
    let digest = registry.put_blob("team/app", content.clone());
    store.put_file(&format!("/files/{digest}"), content);
    registry.redirect_blobs(307, &store.url("/files"), "");
    let setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let setup = setup.upstream_with(REGISTRY, &registry, &format!("ca: {ca:?}"));
    let mirror = setup.start().await;
    let answer = mirror.get(&target(&digest)).await;
    assert!(matches!(answer.status, 403 | 502), "{answer:?}");
    assert_eq!(store.connections(), 0);
}

#[tokio::test]
async fn a_redirect_between_hosts_with_tls_is_followed() {
    let authority = Authority::new();
    let registry = Upstream::start_tls("127.0.0.1", &authority).await;
    let store = Upstream::start_tls("127.0.0.2", &authority).await;
    let content = bytes(1, 5000);
    let digest = registry.put_blob("team/app", content.clone());
    store.put_file(&format!("/files/{digest}"), content.clone());
    registry.redirect_blobs(307, &store.url("/files"), "");
    let setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let setup = setup.upstream_with(REGISTRY, &registry, &format!("ca: {ca:?}"));
    let mirror = setup.start().await;
    assert_eq!(mirror.get(&target(&digest)).await.expect(200), content);
}

#[tokio::test]
async fn c23_five_redirects_are_followed_and_six_are_not() {
    for (hops, followed) in [(5, true), (6, false)] {
        let world = World::new().await;
        let content = bytes(1, 5000);
        let digest = sha256(&content);
        world
            .upstream
            .put_file(&format!("/hop/{hops}"), content.clone());
        for hop in 1..hops {
            let location = format!("/hop/{}", hop + 1);
            let path = format!("/hop/{hop}");
            world
                .upstream
                .answer(&path, Answer::redirect(307, &location));
        }
        let first = Answer::redirect(302, "/hop/1");
        world.upstream.answer(&target(&digest), first);
        let answer = world.mirror.get(&target(&digest)).await;
        if followed {
            assert_eq!(answer.expect(200), content);
        } else {
            answer.expect_error(502, "UNAVAILABLE");
        }
    }
}

#[tokio::test]
async fn c23_a_redirect_that_leads_nowhere_is_a_502() {
    let content = bytes(1, 5000);
    let digest = sha256(&content);
    let target = target(&digest);
    let locations = [
        Some(target.clone()),
        Some("http://".to_owned()),
        Some("file:///etc/passwd".to_owned()),
        Some("ftp://127.0.0.1/x".to_owned()),
        Some("http://user:pw@127.0.0.1:9/x".to_owned()),
        Some(format!("/{}", "x".repeat(60_000))),
        Some(String::new()),
        None,
    ];
    for location in locations {
        let world = World::new().await;
        let answer = match &location {
            Some(location) => Answer::redirect(307, location),
            None => Answer::status(307),
        };
        world.upstream.answer("/v2/team/app/*", answer);
        let answer = world.mirror.get(&target).await;
        let short = location.as_deref().map(|text| &text[..text.len().min(50)]);
        assert!(matches!(answer.status, 403 | 502), "{short:?}: {answer:?}");
        let n_requests = world.upstream.log().len();
        assert!(n_requests <= 7, "{short:?}: {n_requests}");
    }
}

#[tokio::test]
async fn c23_a_relative_location_is_meant_from_where_it_was_said() {
    let content = bytes(1, 5000);
    let digest = sha256(&content);
    for location in ["/files/x", "../../../../files/x", "//HOST/files/x"] {
        let world = World::new().await;
        let location = location.replace("HOST", &world.upstream.host());
        world.upstream.put_file("/files/x", content.clone());
        world
            .upstream
            .answer(&target(&digest), Answer::redirect(302, &location));
        let answer = world.mirror.get(&target(&digest)).await;
        assert_eq!(answer.expect(200), content, "{location}");
    }
}

#[tokio::test]
async fn c24_a_credential_that_was_dropped_is_not_taken_up_again() {
    let registry = Upstream::start().await;
    let other = Upstream::start_on("127.0.0.2").await;
    let content = bytes(1, 5000);
    let digest = registry.put_blob("team/app", content.clone());
    registry.put_file("/files/x", content.clone());
    other.answer("/back", Answer::redirect(307, &registry.url("/files/x")));
    let away = Answer::redirect(307, &other.url("/back"));
    registry.answer(&target(&digest), away);
    let guard = Guard::bearer(&registry.url("/token"), "x");
    guard.stand(&registry, &registry, "/token");
    let mirror = with_credential(&registry).await;
    assert_eq!(mirror.get(&target(&digest)).await.expect(200), content);
    for request in registry.requests("GET", "/files/x") {
        assert_eq!(request.header("Authorization"), None);
    }
}

#[tokio::test]
async fn a_redirect_is_never_passed_on() {
    for status in [301, 302, 303, 307, 308] {
        let world = World::new().await;
        let image = Image::new(1);
        world.upstream.put_image("elsewhere/app", "v1", &image);
        let location = world.upstream.url("/v2/elsewhere/app/manifests/v1");
        let redirect = Answer::redirect(status, &location);
        world.upstream.answer("/v2/team/app/manifests/v1", redirect);
        let answer = world.mirror.get("/v2/team/app/manifests/v1").await;
        assert_eq!(answer.expect(200), image.manifest.bytes, "{status}");
    }
}
