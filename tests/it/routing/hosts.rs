//! A host name for each registry, and C-12, C-16 for host names.

use crate::harness::client::{Answer, Request};
use crate::harness::content::Image;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::Upstream;

const APP: &str = "/v2/team/app/manifests/v1";

/// A mirror with a domain and two registries, of which the first is the default one.
struct World {
    first: Upstream,
    second: Upstream,
    mirror: Mirror,
    image: Image,
}

async fn world(setup: Setup) -> World {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let image = Image::new(1);
    first.put_image("team/app", "v1", &Image::new(2));
    second.put_image("team/app", "v1", &image);
    let mirror = setup
        .upstream("registry.example", &first)
        .upstream("second.example", &second)
        .line("domain: mirror.test")
        .line("hosts: { hub.test: second.example }")
        .start()
        .await;
    World {
        first,
        second,
        mirror,
        image,
    }
}

impl World {
    async fn get(&self, host: &str, target: &str) -> Answer {
        let request = Request::get(target).header("Host", host);
        self.mirror.send(request).await
    }
}

#[tokio::test]
async fn a_host_name_stands_for_its_registry_whatever_its_case_and_port() {
    let world = world(Setup::new()).await;
    for host in [
        "second.example.mirror.test",
        "SECOND.example.Mirror.test:5000",
        "hub.test",
        "Hub.Test:80",
    ] {
        let answer = world.get(host, APP).await;
        assert_eq!(answer.header("OCI-Namespace"), Some("second.example"));
        assert_eq!(answer.expect(200), world.image.manifest.bytes, "{host}");
    }
    assert_eq!(world.first.connections(), 0);
    assert_eq!(world.second.requests("GET", "/v2/*").len(), 1);
}

#[tokio::test]
async fn a_host_name_that_nobody_mapped_is_404_and_the_client_falls_back() {
    let world = world(Setup::new()).await;
    // What containerd and containers/image do with mirrors: the next one after any 404, in the end the registry itself.
    let endpoints = [
        ("quay.example.mirror.test", world.mirror.address),
        ("second.example.mirror.test", world.mirror.address),
    ];
    let mut answers = Vec::new();
    for (host, address) in endpoints {
        let answer = Request::get(APP).header("Host", host).send(address).await;
        let status = answer.status;
        answers.push(answer);
        if status == 200 {
            break;
        }
    }
    let [refused, served] = answers.try_into().expect("two answers");
    assert_eq!(refused.header("WWW-Authenticate"), None);
    refused.expect_error(404, "NAME_UNKNOWN");
    assert_eq!(served.expect(200), world.image.manifest.bytes);
    assert_eq!(world.first.connections(), 0, "never the default one");
}

#[tokio::test]
async fn c16_a_host_name_leads_nowhere_unless_somebody_wrote_it_down() {
    let elsewhere = Upstream::start().await;
    for setup in [Setup::new(), Setup::new().serving_the_public()] {
        let world = world(setup).await;
        let port = elsewhere.host();
        for host in [
            "mirror.test",
            "other.test",
            "localhost.mirror.test",
            "127.0.0.1.mirror.test",
            "made-up.example.org.mirror.test",
            "metadata.google.internal.mirror.test",
            "1.2.3",
        ] {
            let answer = world.get(host, APP).await;
            let message = answer.expect_error(404, "NAME_UNKNOWN");
            assert!(message.contains("hosts"), "it says what to do: {message}");
        }
        // Addresses say nothing, so these mean the default registry.
        for host in [&*port, "169.254.169.254", "[::1]:3000", "localhost:5000"] {
            let answer = world.get(host, APP).await;
            assert_eq!(answer.header("OCI-Namespace"), Some("registry.example"));
            answer.expect(200);
        }
        assert_eq!(world.second.connections(), 0);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn under_a_host_name_that_nobody_mapped_registries_can_still_be_named() {
    let world = world(Setup::new()).await;
    let named = format!("{APP}?ns=second.example");
    let prefixed = "/v2/second.example/team/app/manifests/v1";
    for target in [&*named, prefixed] {
        let answer = world.get("other.test", target).await;
        assert_eq!(answer.expect(200), world.image.manifest.bytes, "{target}");
    }
    // Clients that prefix their images ask for this first.
    world.get("other.test", "/v2/").await.expect(200);
}

#[tokio::test]
async fn ns_comes_before_the_host_and_the_host_before_the_path() {
    let world = world(Setup::new()).await;
    let host = "second.example.mirror.test";
    let named = format!("{APP}?ns=registry.example");
    let answer = world.get(host, &named).await;
    assert_eq!(answer.header("OCI-Namespace"), Some("registry.example"));
    let said_twice = "/v2/second.example/team/app/manifests/v1";
    let answer = world.get(host, said_twice).await;
    assert_eq!(answer.expect(200), world.image.manifest.bytes);
    let contradicted = "/v2/registry.example/team/app/manifests/v1";
    let answer = world.get(host, contradicted).await;
    answer.expect_error(404, "MANIFEST_UNKNOWN");
    let seen = world.second.requests("GET", "/v2/registry.example/*");
    assert_eq!(seen.len(), 1);
}
