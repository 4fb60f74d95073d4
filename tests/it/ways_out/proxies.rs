//! Proxies of single upstreams.

use super::proxy::Proxy;
use crate::harness::content::{Image, bytes};
use crate::harness::log::Log;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Authority, Guard, Upstream, basic};

const MANIFEST: &str = "/v2/team/app/manifests/v1";

#[tokio::test]
async fn two_upstreams_with_their_own_proxies_and_credentials_see_nothing_of_each_other() {
    let (log, _guard) = Log::start();
    let names = ["one", "two"];
    let mut setup = Setup::new();
    let (mut upstreams, mut proxies) = (Vec::new(), Vec::new());
    let mut credentials = String::new();
    for name in names {
        let (upstream, proxy) = (Upstream::start().await, Proxy::start().await);
        upstream.put_image("team/app", "v1", &Image::new(1));
        // A password for the proxy, and another one for the registry: both ends can be seen in plain here.
        upstream.want_basic("Basic realm=\"x\"", "robot", &format!("registry-{name}"));
        let url = format!("http://user:proxy-{name}@{}", proxy.address);
        let namespace = format!("{name}.example");
        setup = setup.upstream_with(&namespace, &upstream, &format!("proxy: {url:?}"));
        let robot = format!("{{ username: robot, password: registry-{name} }}");
        credentials.extend([namespace.as_str(), ": ", &robot, "\n"]);
        upstreams.push(upstream);
        proxies.push(proxy);
    }
    let mirror = setup.credentials(&credentials).start().await;
    for name in names {
        let target = format!("{MANIFEST}?ns={name}.example");
        mirror.get(&target).await.expect(200);
    }
    for (own, other) in [(0, 1), (1, 0)] {
        let told = proxies[own].log();
        let says = |text: String| told.contains(&text);
        assert!(
            says(basic("user", &format!("proxy-{}", names[own]))),
            "{told}"
        );
        assert!(says(basic("robot", &format!("registry-{}", names[own]))));
        assert!(says(upstreams[own].host()));
        assert!(
            !says(basic("user", &format!("proxy-{}", names[other]))),
            "{told}"
        );
        assert!(!says(basic("robot", &format!("registry-{}", names[other]))));
        assert!(!says(upstreams[other].host()));
        for request in upstreams[own].log() {
            assert_eq!(request.header("Proxy-Authorization"), None);
        }
    }
    let ours = log.text();
    let ours = ours.lines().filter(|line| line.contains("entrepot"));
    let told: Vec<_> = ours.filter(|line| line.contains("proxy-one")).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[tokio::test]
async fn realms_and_redirects_go_through_the_same_proxy() {
    let authority = Authority::new();
    let registry = Upstream::start_tls("127.0.0.1", &authority).await;
    let issuer = Upstream::start_tls("127.0.0.2", &authority).await;
    let store = Upstream::start_tls("127.0.0.3", &authority).await;
    let proxy = Proxy::start().await;
    let content = bytes(1, 5000);
    let digest = registry.put_blob("team/app", content.clone());
    store.put_file(&format!("/files/{digest}"), content.clone());
    registry.redirect_blobs(307, &store.url("/files"), "");
    let guard = Guard::bearer(&issuer.url("/token"), "x");
    guard.stand(&registry, &issuer, "/token");
    let setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let keys = |more: &str| {
        let (realm, proxy) = (issuer.host(), proxy.address);
        format!("ca: {ca:?}, realms: [{realm:?}], proxy: \"http://{proxy}\", {more}")
    };
    let blob = format!("/v2/team/app/blobs/{digest}");
    let through = setup
        .clone()
        .upstream_with("registry.example", &registry, &keys(""));
    let mirror = through.start().await;
    assert_eq!(mirror.get(&blob).await.expect(200), content);
    let told = proxy.log();
    for upstream in [&registry, &issuer, &store] {
        assert!(
            told.contains(&format!("CONNECT {} ", upstream.host())),
            "{told}"
        );
    }
    // TLS ends at the registry: the proxy is told hosts alone.
    assert!(!told.contains("Authorization"), "{told}");

    let direct = keys("no_proxy: [\"127.0.0.2/31\"]");
    let mirror = setup
        .upstream_with("registry.example", &registry, &direct)
        .start()
        .await;
    let before = proxy.log().len();
    assert_eq!(mirror.get(&blob).await.expect(200), content);
    let told = proxy.log().split_off(before);
    assert!(told.contains(&registry.host()), "{told}");
    assert!(
        !told.contains(&issuer.host()) && !told.contains(&store.host()),
        "{told}"
    );
}

#[tokio::test]
async fn a_proxy_that_refuses_is_not_gone_round() {
    let upstream = Upstream::start().await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    // Nobody listens there any more.
    let gone = Proxy::start().await.address;
    let setup =
        Setup::new().upstream_with("a.example", &upstream, &format!("proxy: \"http://{gone}\""));
    let mirror = setup.start().await;
    let answer = mirror.get(&format!("{MANIFEST}?ns=a.example")).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_proxy_that_is_none_stops_the_start_and_its_password_is_not_shown() {
    let upstream = Upstream::start().await;
    for keys in [
        "proxy: \"ftp://user:hunter2@proxy.example\"",
        "proxy: \"hunter2\"",
        "no_proxy: [\"a.example:80\"]",
    ] {
        let setup = Setup::new().upstream_with("a.example", &upstream, keys);
        let problems = setup.check().expect_err(keys);
        assert!(problems.contains("must be"), "{problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}
