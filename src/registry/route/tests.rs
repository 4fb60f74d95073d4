//! Which request means what.

use proptest::prelude::*;

use super::*;
use crate::oci::{Algorithm, RepositoryPatterns};
use crate::registry::trial;
use crate::upstream::{
    AccessPolicy, Config, Credentials, Limits, Proxies, UnknownNamespaces, UpstreamConfig, Way,
};

/// Every public registry, two private ones, and Docker Hub by default.
pub(in crate::registry) fn directory() -> Directory {
    let named = |namespace: &str| UpstreamConfig {
        namespace: namespace.parse().expect("a namespace"),
        endpoints: vec!["http://127.0.0.1:1".parse().expect("a URL")],
        aliases: Vec::new(),
        ca: None,
        realms: Vec::new(),
        limits: Limits::default(),
        access: AccessPolicy::default(),
        repositories: RepositoryPatterns::default(),
        way: Way::default(),
    };
    Directory::new(&Config {
        default_upstream: "docker.io".parse().expect("a namespace"),
        further_defaults: Vec::new(),
        named: Vec::new(),
        unknown_namespaces: UnknownNamespaces::Public,
        upstreams: vec![named("localhost:5000"), named("registry.example.com:5000")],
        credentials: Credentials::default(),
        proxies: Proxies::default(),
    })
}

fn route(target: &str) -> Result<Route, RouteError> {
    by(&Ways::default(), None, target)
}

/// The route of a GET that came in at the first listener.
fn by(ways: &Ways, host: Option<&str>, target: &str) -> Result<Route, RouteError> {
    let inbound = Inbound {
        method: &Method::GET,
        target: &target.parse().expect("a request target"),
        door: Door { listener: 0, host },
    };
    parse(inbound, ways, &directory())
}

/// Namespace and repository of a manifest route.
fn check(target: &str, namespace: &str, repository: &str) {
    match route(target) {
        Ok(Route::Content(target, _)) => assert_eq!(
            (target.namespace.as_str(), target.repository.as_str()),
            (namespace, repository)
        ),
        other => panic!("{target}: {other:?}"),
    }
}

fn refuse(target: &str, expected: &RouteError) {
    assert_eq!(route(target).as_ref(), Err(expected), "{target}");
}

#[test]
fn the_base_is_answered_with_and_without_a_slash() {
    for target in ["/v2", "/v2/", "/v2/?x=y"] {
        assert_eq!(route(target), Ok(Route::Base { namespace: None }));
    }
    let namespace = Some("ghcr.io".parse().expect("a namespace"));
    assert_eq!(route("/v2/?ns=ghcr.io"), Ok(Route::Base { namespace }));
}

#[test]
fn ns_comes_before_the_path_and_the_path_before_the_default() {
    check("/v2/org/app/manifests/v1?ns=ghcr.io", "ghcr.io", "org/app");
    check(
        "/v2/quay.io/app/manifests/v1?ns=ghcr.io",
        "ghcr.io",
        "quay.io/app",
    );
    check("/v2/quay.io/org/app/manifests/v1", "quay.io", "org/app");
    check("/v2/org/app/manifests/v1", "docker.io", "org/app");
    check(
        "/v2/app/manifests/v1?ns=registry.example.com%3A5000",
        "registry.example.com:5000",
        "app",
    );
}

#[test]
fn a_registry_that_is_said_twice_is_heard_once() {
    check(
        "/v2/ghcr.io/org/app/manifests/v1?ns=ghcr.io",
        "ghcr.io",
        "org/app",
    );
    check(
        "/v2/index.docker.io/library/x/manifests/v1?ns=docker.io",
        "docker.io",
        "library/x",
    );
    check(
        "/v2/docker.io/nginx/manifests/v1?ns=registry-1.docker.io",
        "docker.io",
        "library/nginx",
    );
}

#[test]
fn names_of_one_part_are_the_hubs_library() {
    check("/v2/nginx/manifests/v1", "docker.io", "library/nginx");
    check(
        "/v2/nginx/manifests/v1?ns=DOCKER.IO",
        "docker.io",
        "library/nginx",
    );
    check(
        "/v2/docker.io/nginx/manifests/v1",
        "docker.io",
        "library/nginx",
    );
    check("/v2/nginx/manifests/v1?ns=quay.io", "quay.io", "nginx");
}

#[test]
fn only_a_registry_that_is_served_takes_the_first_part() {
    check(
        "/v2/localhost:5000/app/manifests/v1",
        "localhost:5000",
        "app",
    );
    check("/v2/node.js/app/manifests/v1", "node.js", "app");
    // Nobody configured these, and they cannot be public: they are parts of a name of the default upstream.
    check(
        "/v2/localhost/app/manifests/v1",
        "docker.io",
        "localhost/app",
    );
    check(
        "/v2/registry.local/app/manifests/v1",
        "docker.io",
        "registry.local/app",
    );
    refuse(
        "/v2/localhost:5001/app/manifests/v1",
        &NameError::Grammar.into(),
    );
}

#[test]
fn names_are_read_from_the_right() {
    check(
        "/v2/a/manifests/b/manifests/latest",
        "docker.io",
        "a/manifests/b",
    );
    check(
        "/v2/manifests/blobs/tags/manifests/latest",
        "docker.io",
        "manifests/blobs/tags",
    );
    check(
        "/v2/a/b/c/d/e/f/g/h/manifests/latest",
        "docker.io",
        "a/b/c/d/e/f/g/h",
    );
}

#[test]
fn escapes_are_decoded_once_and_make_no_new_parts() {
    let digest = Digest::of(Algorithm::Sha256, b"").to_string();
    let escaped = digest.replace(':', "%3A");
    check(&format!("/v2/a/b/blobs/{escaped}"), "docker.io", "a/b");
    for name in [
        "%2e%2e/x", "a%2Fb", "a%252eb", "%2e", "a%5Cb", "a%00", "%ff",
    ] {
        refuse(&format!("/v2/{name}/manifests/v1"), &RouteError::Escape);
    }
}

#[test]
fn bad_names_are_refused() {
    for name in [
        "", "/a", "a/", "a//b", "..", "a/../b", "A", "a..b", "_x", "a___b",
    ] {
        refuse(
            &format!("/v2/{name}/manifests/v1"),
            &NameError::Grammar.into(),
        );
    }
    refuse("/v2/manifests/v1", &NameError::Grammar.into());
    refuse(
        &format!("/v2/{}/manifests/v1", "a".repeat(256)),
        &NameError::TooLong.into(),
    );
}

#[test]
fn bad_references_are_refused() {
    refuse("/v2/a/manifests/.x", &ReferenceError::Tag.into());
    refuse(
        &format!("/v2/a/manifests/{}", "a".repeat(129)),
        &ReferenceError::Tag.into(),
    );
    refuse("/v2/a/blobs/sha256", &DigestError::NoAlgorithm.into());
    refuse("/v2/a/blobs/md5:00", &DigestError::UnknownAlgorithm.into());
    refuse("/v2/a/manifests/v1/", &NameError::Grammar.into());
}

#[test]
fn bad_namespaces_are_refused() {
    for ns in [
        "",
        "user:pw@host",
        "host/path",
        "a%0d%0ab",
        "host%23x",
        "b%C3%BCcher.example",
    ] {
        refuse(
            &format!("/v2/a/manifests/v1?ns={ns}"),
            &NamespaceError.into(),
        );
    }
    refuse(
        "/v2/a/manifests/v1?ns=a.io&ns=a.io",
        &RouteError::Namespaces,
    );
}

#[test]
fn what_is_not_served_says_so() {
    for target in [
        "/",
        "/v1/",
        "/v3/",
        "/v2x",
        "/v2/a",
        "/v2/_oci/ext/discover",
    ] {
        refuse(target, &RouteError::Path);
    }
    assert!(matches!(
        route("/v2/_catalog"),
        Err(RouteError::Unsupported(_))
    ));
    let target = "/v2/a/manifests/v1".parse().expect("a target");
    for method in [
        Method::PUT,
        Method::POST,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
    ] {
        let inbound = Inbound {
            method: &method,
            target: &target,
            door: Door {
                listener: 0,
                host: None,
            },
        };
        let parsed = parse(inbound, &Ways::default(), &directory());
        assert_eq!(parsed, Err(RouteError::Method));
    }
}

fn with_a_domain() -> Ways {
    let namespace = |text: &str| text.parse().expect("a namespace");
    Ways {
        listeners: vec![None, Some(namespace("registry.k8s.io"))],
        domain: Some(namespace("mirror.example")),
        hosts: [(namespace("hub.example"), namespace("docker.io"))].into(),
    }
}

#[test]
fn a_host_that_is_mapped_comes_before_the_path_and_one_that_is_not_hides_the_default() {
    let ways = with_a_domain();
    let check = |host: &str, target: &str, expected: Option<(&str, &str)>| match (
        by(&ways, Some(host), target),
        expected,
    ) {
        (Ok(Route::Content(target, _)), Some(expected)) => {
            let found = (target.namespace.as_str(), target.repository.as_str());
            assert_eq!(found, expected, "{host}");
        }
        (Err(RouteError::Host), None) => {}
        (other, _) => panic!("{host} {target}: {other:?}"),
    };
    let app = "/v2/org/app/manifests/v1";
    let prefixed = "/v2/ghcr.io/org/app/manifests/v1";
    check("quay.io.mirror.example", app, Some(("quay.io", "org/app")));
    check("hub.example:80", app, Some(("docker.io", "org/app")));
    check(
        "quay.io.mirror.example",
        prefixed,
        Some(("quay.io", "ghcr.io/org/app")),
    );
    // Said twice, heard once.
    check(
        "ghcr.io.mirror.example",
        prefixed,
        Some(("ghcr.io", "org/app")),
    );
    check("unmapped.example", app, None);
    check("unmapped.example", prefixed, Some(("ghcr.io", "org/app")));
    check("127.0.0.1:3000", app, Some(("docker.io", "org/app")));
    let named = format!("{app}?ns=ghcr.io");
    check("unmapped.example", &named, Some(("ghcr.io", "org/app")));
}

#[test]
fn the_base_says_which_registry_the_way_in_means() {
    let ways = with_a_domain();
    let base = |host, target| by(&ways, Some(host), target);
    let of = |namespace: Option<&str>| {
        let namespace = namespace.map(|text| text.parse().expect("a namespace"));
        Ok(Route::Base { namespace })
    };
    assert_eq!(base("quay.io.mirror.example", "/v2/"), of(Some("quay.io")));
    assert_eq!(base("hub.example", "/v2/?ns=ghcr.io"), of(Some("ghcr.io")));
    // Whoever prefixes their images with a registry asks for this first.
    assert_eq!(base("unmapped.example", "/v2/"), of(None));
}

/// A host, a listener and a query as somebody may send them.
fn any_host() -> impl Strategy<Value = Option<String>> {
    let usual = prop::sample::select(vec![
        "quay.io.mirror.example",
        "hub.example:5000",
        "unmapped.example",
        "localhost:3000",
        "127.0.0.1",
        "[::1]:3000",
    ]);
    let usual = usual.prop_map(str::to_owned);
    prop::option::of(prop_oneof![usual, "[ -~]{0,20}"])
}

/// A path as somebody may send it.
fn any_path() -> impl Strategy<Value = String> {
    let part = "[a-z]{1,3}|gcr\\.io|docker\\.io|localhost(:5000)?|manifests|blobs|tags|list|[a-zA-Z0-9._:%@-]{0,6}";
    let parts = prop::collection::vec(part, 0..5).prop_map(|parts| parts.join("/"));
    let item = prop::sample::select(vec![
        "manifests/v1",
        "blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "tags/list",
        "referrers/sha256%3Ae3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "",
    ]);
    prop_oneof![
        "/v2/[a-zA-Z0-9._:%/@-]{0,40}",
        (parts, item).prop_map(|(name, item)| format!("/v2/{name}/{item}")),
    ]
}

proptest! {
    #[test]
    fn every_target_has_an_answer(
        path in any_path(), ns in "[a-z0-9.:%@/-]{0,12}|gcr.io|[a-c]\\.io(:5000)?", host in any_host(), listener in 0..3_usize
    ) {
        if let Ok(target) = format!("{path}?ns={ns}").parse::<Uri>() {
            trial::route(&target, (listener, host.as_deref()), &with_a_domain(), &directory());
        }
    }

    #[test]
    fn who_names_a_registry_gets_that_one_whatever_the_way_in(host in any_host(), listener in 0..3_usize) {
        let target = "/v2/org/app/manifests/v1?ns=gcr.io".parse().expect("a target");
        let door = Door { listener, host: host.as_deref() };
        let inbound = Inbound { method: &Method::GET, target: &target, door };
        let Ok(Route::Content(target, _)) = parse(inbound, &with_a_domain(), &directory()) else {
            panic!("it is routed");
        };
        prop_assert_eq!(target.namespace.as_str(), "gcr.io");
    }

    #[test]
    fn a_listener_of_its_own_hears_no_host(host in any_host(), name in "[a-z]{1,5}(/[a-z]{1,5}){0,3}") {
        let target = format!("/v2/{name}/manifests/v1").parse().expect("a target");
        let door = Door { listener: 1, host: host.as_deref() };
        let inbound = Inbound { method: &Method::GET, target: &target, door };
        let Ok(Route::Content(target, _)) = parse(inbound, &with_a_domain(), &directory()) else {
            panic!("it is routed");
        };
        prop_assert_eq!(target.namespace.as_str(), "registry.k8s.io");
    }

    #[test]
    fn no_host_leads_to_a_registry_that_nobody_knows(host in any_host(), name in "[a-z]{1,5}(/[a-z]{1,5}){0,3}") {
        let target = format!("/v2/{name}/manifests/v1").parse().expect("a target");
        let door = Door { listener: 0, host: host.as_deref() };
        let inbound = Inbound { method: &Method::GET, target: &target, door };
        match parse(inbound, &with_a_domain(), &directory()) {
            Ok(Route::Content(target, _)) => prop_assert!(directory().knows(&target.namespace)),
            other => prop_assert_eq!(other, Err(RouteError::Host)),
        }
    }
}
