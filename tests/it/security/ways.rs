//! C-12 to C-24 and C-47 for every way in, and for what stands between us and a registry: what holds for `ns` holds for
//! host names, ports, prefixes, search lists and mirrors.

use crate::harness::client::{Answer, Request};
use crate::harness::content::Image;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Answer as Scripted, Upstream, basic};
use crate::harness::world::REGISTRY;

const REST: &str = "team/app/manifests/v1";

/// A mirror with every way in: a port of its own for one registry, host names, and a search list.
async fn every_way(setup: Setup, upstream: &Upstream) -> Mirror {
    upstream.put_image("team/app", "v1", &Image::new(1));
    setup
        .upstream(REGISTRY, upstream)
        .upstream("second.example", upstream)
        .searching("[registry.example, second.example]")
        .line("domain: mirror.test")
        .line("hosts: { hub.test: registry.example }")
        .listen("{ address: \"127.0.0.1:0\", upstream: registry.example }")
        .start()
        .await
}

/// What is answered to whoever asks for `namespace` in each way.
async fn asked_for(mirror: &Mirror, namespace: &str) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    let mut ask = async |way: &str, host: &str, target: String, at: usize| {
        let request = Request::get(&target).header("Host", host);
        let answer = request.send(mirror.addresses[at]).await;
        answers.push((format!("{way} {host} {target}"), answer));
    };
    let by_ns = format!("/v2/{REST}?ns={namespace}");
    let by_path = format!("/v2/{namespace}/{REST}");
    let plain = format!("/v2/{REST}");
    let by_host = format!("{namespace}.mirror.test");
    ask("ns", "localhost", by_ns.clone(), 0).await;
    ask("ns at a port of its own", "localhost", by_ns.clone(), 1).await;
    ask("ns under a host name", "hub.test", by_ns, 0).await;
    ask("path", "localhost", by_path.clone(), 0).await;
    ask("path at a port of its own", "localhost", by_path.clone(), 1).await;
    ask("path under a host name", "hub.test", by_path, 0).await;
    ask("host name", &by_host, plain, 0).await;
    answers
}

#[tokio::test]
async fn c12_c13_in_no_way_is_what_nobody_configured_or_what_is_private_reached() {
    for setup in [Setup::new(), Setup::new().serving_the_public()] {
        let (upstream, other) = (Upstream::start().await, Upstream::start().await);
        other.put_image("team/app", "v1", &Image::new(2));
        let mirror = every_way(setup, &upstream).await;
        let (host, port) = (other.host(), other.host());
        let (_, port) = port.rsplit_once(':').expect("a port");
        for namespace in [
            host.clone(),
            format!("localhost:{port}"),
            format!("localhost.:{port}"),
            format!("127.0.0.2:{port}"),
            format!("0.0.0.0:{port}"),
            "127.0.0.1".to_owned(),
            "10.0.0.1".to_owned(),
            "169.254.169.254".to_owned(),
            "metadata.google.internal".to_owned(),
            "0x7f.1".to_owned(),
        ] {
            for (way, answer) in asked_for(&mirror, &namespace).await {
                let is_refused = matches!(answer.status, 400 | 403 | 404);
                assert!(is_refused, "{way}: {answer:?}");
            }
        }
        assert_eq!(other.connections(), 0);
    }
}

#[tokio::test]
async fn c14_what_is_no_namespace_is_refused_in_every_way() {
    let upstream = Upstream::start().await;
    let mirror = every_way(Setup::new(), &upstream).await;
    for namespace in [
        "user:pw@host.example",
        "a%20b",
        "host.example%23x",
        "..",
        "a%0d%0ab",
    ] {
        for (way, answer) in asked_for(&mirror, namespace).await {
            assert!(matches!(answer.status, 400 | 404), "{way}: {answer:?}");
        }
    }
    // Two are one too many, also where the port or the host name says it already.
    let twice = format!("/v2/{REST}?ns={REGISTRY}&ns=second.example");
    for (host, at) in [("localhost", 0), ("localhost", 1), ("hub.test", 0)] {
        let request = Request::get(&twice).header("Host", host);
        let answer = request.send(mirror.addresses[at]).await;
        answer.expect_error(400, "NAME_INVALID");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn c15_one_registry_has_one_entry_whatever_the_way() {
    let upstream = Upstream::start().await;
    upstream.want_basic("Basic realm=\"x\"", "robot", "hunter2");
    let credentials = "registry.example: { username: robot, password: hunter2 }\n";
    let mirror = every_way(Setup::new().credentials(credentials), &upstream).await;
    let named = format!("/v2/{REST}?ns=REGISTRY.Example.");
    let prefixed = format!("/v2/registry.example/{REST}");
    let plain = format!("/v2/{REST}");
    for (host, target, at) in [
        ("localhost", &named, 0),
        ("localhost", &prefixed, 0),
        ("localhost", &plain, 0),
        ("localhost", &plain, 1),
        ("hub.test", &plain, 0),
        ("Registry.EXAMPLE.mirror.test:443", &plain, 0),
    ] {
        let request = Request::get(target).header("Host", host);
        let answer = request.send(mirror.addresses[at]).await;
        assert_eq!(answer.status, 200, "{host} {target}: {answer:?}");
    }
    let asked = upstream.requests("GET", &plain);
    assert_eq!(asked.len(), 2, "a refusal and an answer: {asked:?}");
}

#[tokio::test]
async fn c16_beside_host_names_nothing_else_says_which_registry_is_meant() {
    let upstream = Upstream::start().await;
    let mirror = every_way(Setup::new(), &upstream).await;
    let target = format!("/v2/{REST}");
    for header in [
        "X-Forwarded-Host",
        "X-Forwarded-Server",
        "X-Original-Host",
        "Forwarded",
    ] {
        let request = Request::get(&target).header("Host", "nobody.test");
        let request = request.header(header, "hub.test");
        let answer = request.send(mirror.address).await;
        answer.expect_error(404, "NAME_UNKNOWN");
    }
    let twice = Request::get(&target).header("Host", "hub.test");
    let twice = twice.header("Host", "second.example.mirror.test");
    assert_eq!(twice.send(mirror.address).await.status, 400);
    let absolute = format!("http://second.example.mirror.test{target}");
    let request = Request::get(&absolute).header("Host", "hub.test");
    assert_eq!(request.send(mirror.address).await.status, 400);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn c47_host_names_and_prefixes_that_nobody_configured_are_no_labels() {
    let upstream = Upstream::start().await;
    let mirror = every_way(Setup::new(), &upstream).await;
    for n in 0..50 {
        asked_for(&mirror, &format!("words-{n}.example")).await;
    }
    let metrics = mirror.metrics().await;
    assert!(
        metrics.contains(REGISTRY) && !metrics.contains("words-"),
        "{metrics}"
    );
}

#[tokio::test]
async fn c17_c24_a_mirror_in_front_of_a_registry_gets_no_credential_out_of_us() {
    let (registry, front) = (Upstream::start().await, Upstream::start().await);
    registry.put_image("team/app", "v1", &Image::new(1));
    registry.want_basic("Basic realm=\"x\"", "robot", "hunter2");
    let secret = basic("robot", "hunter2");
    let realm = registry.url("/token");
    for answer in [
        // It claims to want what the registry would get,
        Scripted::error(401, "UNAUTHORIZED").header("WWW-Authenticate", "Basic realm=\"x\""),
        Scripted::error(401, "UNAUTHORIZED").header(
            "WWW-Authenticate",
            &format!("Bearer realm=\"{realm}\",service=\"x\""),
        ),
        // or leads to the registry, past the way on which it is asked with a credential.
        Scripted::redirect(307, &registry.url("/led/here")),
    ] {
        front.behave();
        front.answer("/v2/*", answer);
        let setup = Setup::new();
        let keys = format!("mirrors: [{:?}]", front.url(""));
        let setup = setup.upstream_with(REGISTRY, &registry, &keys);
        let credentials = "registry.example: { username: robot, password: hunter2 }\n";
        let mirror = setup.credentials(credentials).start().await;
        mirror.get(&format!("/v2/{REST}")).await.expect(200);
    }
    for request in front.log() {
        assert_eq!(request.header("Authorization"), None, "{request:?}");
    }
    for request in registry.log() {
        let is_asked_by_us = request.path().starts_with("/v2/");
        let shown = request.header("Authorization");
        assert!(is_asked_by_us || shown != Some(&*secret), "{request:?}");
    }
}
