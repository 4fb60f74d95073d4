//! SOCKS proxies, and proxies that are spoken to over TLS.

use super::proxy::Proxy;
use super::socks::socks;
use crate::harness::content::{Image, bytes};
use crate::harness::log::Log;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Authority, Guard, Upstream, basic};
use crate::harness::world::REGISTRY;

const MANIFEST: &str = "/v2/team/app/manifests/v1";

async fn registry() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    upstream
}

#[tokio::test]
async fn a_socks_proxy_is_told_name_password_and_the_host_as_it_is_written() {
    let upstream = registry().await;
    let (_, port) = upstream
        .host()
        .rsplit_once(':')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .expect("a port");
    // Only the proxy knows the name, and what is special in a password arrives as it is.
    for (scheme, host) in [("socks5h", "registry.test"), ("socks5", "127.0.0.1")] {
        let proxy = socks("user", "p@ss:word").await;
        let url = format!("{scheme}://user:p%40ss%3Aword@{}", proxy.address);
        let endpoint = format!("http://{host}:{port}");
        let keys = format!("proxy: {url:?}");
        let mirror = Setup::new().endpoints(REGISTRY, &[endpoint], &keys);
        let mirror = mirror.start().await;
        mirror.get(MANIFEST).await.expect(200);
        let told = proxy.log();
        assert!(told.starts_with("user:p@ss:word\n"), "{scheme}: {told}");
        assert!(told.contains(&format!("CONNECT {host}:{port} ")), "{told}");
    }
    for request in upstream.log() {
        assert_eq!(request.header("Proxy-Authorization"), None);
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_know_us_is_not_gone_round() {
    let (log, _guard) = Log::start();
    let authority = Authority::new();
    let (over_socks, over_http) = (
        socks("user", "right").await,
        Proxy::wanting("user", "right").await,
    );
    let over_tls = Proxy::wanting_over_tls("user", "right", &authority).await;
    for url in [
        format!("socks5h://user:canary@{}", over_socks.address),
        format!("socks5://{}", over_socks.address),
        format!("http://user:canary@{}", over_http.address),
        format!("https://user:canary@{}", over_tls.address),
    ] {
        let plain = registry().await;
        let setup = Setup::new();
        let ca = setup.file("ca.pem", authority.pem());
        let keys = format!("ca: {ca:?}, proxy: {url:?}");
        let mirror = setup.upstream_with(REGISTRY, &plain, &keys).start().await;
        let answer = mirror.get(MANIFEST).await;
        answer.expect_error(502, "UNAVAILABLE");
        assert_eq!(plain.connections(), 0, "{url}");
    }
    let ours = log.text();
    let ours = ours.lines().filter(|line| line.contains("entrepot"));
    let told: Vec<_> = ours.filter(|line| line.contains("canary")).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[tokio::test]
async fn c50_behind_a_proxy_that_opens_no_tunnel_nothing_is_asked_in_plain() {
    let plain = registry().await;
    let proxy = Proxy::wanting("user", "right").await;
    let keys = format!("proxy: \"http://user:wrong@{}\"", proxy.address);
    let url = format!("https://{}", plain.host());
    let mirror = Setup::new().endpoints(REGISTRY, &[url], &keys);
    let answer = mirror.start().await.get(MANIFEST).await;
    answer.expect_error(502, "UNAVAILABLE");
    assert_eq!(plain.connections(), 0);
    for line in proxy.log().lines().filter(|line| line.contains("HTTP/1.1")) {
        assert!(line.starts_with("CONNECT "), "{line}");
    }
}

#[tokio::test]
async fn a_proxy_over_tls_keeps_what_it_is_told_from_others() {
    let authority = Authority::new();
    let upstream = Upstream::start_tls("127.0.0.1", &authority).await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    upstream.want_basic("Basic realm=\"x\"", "robot", "hunter2");
    let proxy = Proxy::wanting_over_tls("user", "proxy-password", &authority).await;
    let url = format!("https://user:proxy-password@{}", proxy.address);
    let setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let credentials = "registry.example: { username: robot, password: hunter2 }\n";
    let setup = setup.credentials(credentials);
    let trusting =
        setup
            .clone()
            .upstream_with(REGISTRY, &upstream, &format!("ca: {ca:?}, proxy: {url:?}"));
    trusting.start().await.get(MANIFEST).await.expect(200);
    let told = proxy.log();
    assert!(
        told.contains(&format!("CONNECT {} ", upstream.host())),
        "{told}"
    );
    assert!(told.contains(&basic("user", "proxy-password")), "{told}");
    // TLS within TLS: what is for the registry is for the registry.
    assert!(!told.contains(&basic("robot", "hunter2")), "{told}");
    for request in upstream.log() {
        assert_eq!(request.header("Proxy-Authorization"), None);
    }
    // Nobody vouches for the proxy: it is told nothing.
    let before = proxy.log();
    let plain = registry().await;
    let doubting = setup.upstream_with(REGISTRY, &plain, &format!("proxy: {url:?}"));
    let answer = doubting.start().await.get(MANIFEST).await;
    answer.expect_error(502, "UNAVAILABLE");
    assert_eq!((proxy.log(), plain.connections()), (before, 0));
}

#[tokio::test]
async fn upstreams_behind_proxies_of_different_kinds_see_nothing_of_each_other() {
    let authority = Authority::new();
    let proxies = [
        ("socks5h", socks("user", "proxy-socks").await),
        ("http", Proxy::wanting("user", "proxy-http").await),
        (
            "https",
            Proxy::wanting_over_tls("user", "proxy-over-tls", &authority).await,
        ),
    ];
    let kinds = ["socks", "http", "over-tls"];
    let mut setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let (mut upstreams, mut credentials) = (Vec::new(), String::new());
    for (kind, (scheme, proxy)) in kinds.iter().zip(&proxies) {
        let upstream = registry().await;
        upstream.want_basic("Basic realm=\"x\"", "robot", &format!("registry-{kind}"));
        let url = format!("{scheme}://user:proxy-{kind}@{}", proxy.address);
        let keys = format!("ca: {ca:?}, proxy: {url:?}");
        setup = setup.upstream_with(&format!("{kind}.example"), &upstream, &keys);
        let robot = format!("{{ username: robot, password: registry-{kind} }}");
        credentials.extend([kind, ".example: ", &*robot, "\n"]);
        upstreams.push(upstream);
    }
    let mirror = setup.credentials(&credentials).start().await;
    for kind in kinds {
        let target = format!("{MANIFEST}?ns={kind}.example");
        mirror.get(&target).await.expect(200);
    }
    for (own, (_, proxy)) in proxies.iter().enumerate() {
        let told = proxy.log();
        // These registries are spoken to in plain, so a proxy could read everything.
        for (other, kind) in kinds.iter().enumerate() {
            let is_own = own == other;
            let registry = basic("robot", &format!("registry-{kind}"));
            assert_eq!(told.contains(&registry), is_own, "{kind}: {told}");
            assert_eq!(told.contains(&upstreams[other].host()), is_own, "{told}");
            let password = format!("proxy-{kind}");
            let is_told = told.contains(&format!("user:{password}\n"))
                || told.contains(&basic("user", &password));
            assert_eq!(is_told, is_own, "{kind}: {told}");
        }
        for request in upstreams[own].log() {
            assert_eq!(request.header("Proxy-Authorization"), None);
        }
    }
}

#[tokio::test]
async fn realms_and_redirects_go_through_the_same_socks_proxy() {
    let authority = Authority::new();
    let registry = Upstream::start_tls("127.0.0.1", &authority).await;
    let issuer = Upstream::start_tls("127.0.0.2", &authority).await;
    let store = Upstream::start_tls("127.0.0.3", &authority).await;
    let proxy = socks("user", "pw").await;
    let content = bytes(1, 5000);
    let digest = registry.put_blob("team/app", content.clone());
    store.put_file(&format!("/files/{digest}"), content.clone());
    registry.redirect_blobs(307, &store.url("/files"), "");
    Guard::bearer(&issuer.url("/token"), "x").stand(&registry, &issuer, "/token");
    let setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let (realm, address) = (issuer.host(), proxy.address);
    let keys = format!("ca: {ca:?}, realms: [{realm:?}], proxy: \"socks5://user:pw@{address}\"");
    let setup = setup.upstream_with(REGISTRY, &registry, &keys);
    let credentials = "registry.example: { username: robot, password: hunter2 }\n";
    let mirror = setup.credentials(credentials).start().await;
    let blob = mirror.get(&format!("/v2/team/app/blobs/{digest}")).await;
    assert_eq!(blob.expect(200), content);
    let told = proxy.log();
    for upstream in [&registry, &issuer, &store] {
        let connect = format!("CONNECT {} ", upstream.host());
        assert!(told.contains(&connect), "{told}");
    }
    // C-20, through a proxy as without one.
    for request in store.log() {
        assert_eq!(request.header("Authorization"), None);
    }
}
