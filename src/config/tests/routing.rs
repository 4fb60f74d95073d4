//! The ways in.

use super::*;

fn check_problems(yaml: &str, flags: &str, expected: &[&str]) {
    let found = problems(load_yaml(yaml, flags, &[]));
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found}\n{expected}");
    }
}

#[test]
fn each_listener_may_have_a_registry_of_its_own() {
    let yaml = "\
listen:
  - address: '127.0.0.1:5000'
  - { address: '[::]:5001', upstream: index.docker.io }
  - { address: '[::]:5002', upstream: hub }
upstreams:
  registry.corp:5000: { endpoints: ['http://10.0.0.5:5000'], aliases: [hub] }
";
    let config = load_yaml(yaml, "-p 3000", &[]).expect("well-formed");
    let listeners: Vec<_> = config
        .listen
        .iter()
        .map(|listen| {
            let upstream = listen.upstream.as_ref().map(ToString::to_string);
            (listen.address.to_string(), upstream)
        })
        .collect();
    let expected = [
        // The flag is for the first.
        ("127.0.0.1:3000", None),
        ("[::]:5001", Some("docker.io")),
        ("[::]:5002", Some("registry.corp:5000")),
    ];
    let expected =
        expected.map(|(address, name)| (address.to_owned(), name.map(ToOwned::to_owned)));
    assert_eq!(listeners, expected);
    let own: Vec<_> = config.listen.into_iter().map(|one| one.upstream).collect();
    assert_eq!(config.ways.listeners, own);
    assert_eq!(config.upstream.named.len(), 2);
}

#[test]
fn listeners_that_exclude_each_other_are_a_problem() {
    let beside = |first: &str, second: &str| {
        let yaml = format!("listen: [{{ address: '{first}' }}, {{ address: '{second}' }}]");
        load_yaml(&yaml, "", &[])
    };
    for (first, second) in [
        ("[::]:3000", "[::]:3000"),
        ("[::]:3000", "0.0.0.0:3000"),
        ("0.0.0.0:3000", "127.0.0.1:3000"),
        ("[::1]:3000", "[::]:3000"),
    ] {
        let found = problems(beside(first, second));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains(": listen[1]: cannot listen on "),
            "{found:?}"
        );
    }
    for (first, second) in [
        ("[::]:3000", "[::]:3001"),
        ("[::]:0", "[::]:0"),
        ("127.0.0.1:3000", "[::1]:3000"),
        ("127.0.0.1:3000", "127.0.0.2:3000"),
        ("0.0.0.0:3000", "[::1]:3000"),
    ] {
        assert!(beside(first, second).is_ok(), "{first} {second}");
    }
    // Held against each other as they are in the end.
    check_problems(
        "listen: [{address: '[::]:1'}, {address: '[::]:2'}]",
        "-p 2",
        &["listen[1]: cannot listen on [::]:2 beside [::]:2"],
    );
}

#[test]
fn host_names_stand_for_registries() {
    let yaml = "\
domain: Mirror.Example
hosts: { Docker.Example: index.docker.io, 10.0.0.9: quay.io }
";
    let ways = Config::from_yaml(yaml).expect("well-formed").ways;
    assert_eq!(ways.domain, Some(namespace("mirror.example")));
    let hosts = [("docker.example", "docker.io"), ("10.0.0.9", "quay.io")];
    let hosts = hosts.map(|(host, registry)| (namespace(host), namespace(registry)));
    assert_eq!(ways.hosts, hosts.into());
    check_problems(
        "domain: 'mirror.example:443'\nhosts: { a.example: b c, 'a:1': d, A: e, a: f }\n",
        "",
        &[
            "domain: \"mirror.example:443\" must be a host name without a port",
            "hosts.a.example: \"b c\" must be the name of a registry",
            "hosts.a:1: \"a:1\" must be a host name without a port",
            "hosts.a: \"a\" is a, which is mapped already",
        ],
    );
}

#[test]
fn several_default_registries_are_a_list() {
    let yaml = "default_upstream: [registry.corp, index.docker.io, quay.io]";
    let config = Config::from_yaml(yaml).expect("well-formed").upstream;
    assert_eq!(config.default_upstream, namespace("registry.corp"));
    let further = ["docker.io", "quay.io"].map(namespace);
    assert_eq!(config.further_defaults, further);
    // A flag says it all.
    let config = load_yaml(yaml, "--default-upstream ghcr.io", &[]).expect("well-formed");
    assert_eq!(config.upstream.default_upstream, namespace("ghcr.io"));
    assert!(config.upstream.further_defaults.is_empty());
    let flag = "--default-upstream ghcr.io,quay.io,registry-1.docker.io";
    let config = load_yaml(yaml, flag, &[]).expect("well-formed").upstream;
    assert_eq!(config.default_upstream, namespace("ghcr.io"));
    let further = ["quay.io", "docker.io"].map(namespace);
    assert_eq!(config.further_defaults, further);
    let variable = [("ENTREPOT_DEFAULT_UPSTREAM", "quay.io, ghcr.io")];
    let config = load(flag, &variable).expect("well-formed").upstream;
    assert_eq!(config.default_upstream, namespace("ghcr.io"));
    let config = load("", &variable).expect("well-formed").upstream;
    assert_eq!(config.default_upstream, namespace("quay.io"));
    assert_eq!(config.further_defaults, [namespace("ghcr.io")]);
    let found = problems(load("--default-upstream ghcr.io,a,,ghcr.io", &[]));
    let expected = [
        "--default-upstream: \"\" must be the name of a registry",
        "--default-upstream: \"ghcr.io\" is ghcr.io, which is in the list already",
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
    check_problems(
        "default_upstream: [docker.io, a b, registry-1.docker.io, '']",
        "",
        &[
            "default_upstream[1]: \"a b\" must be the name of a registry",
            "default_upstream[2]: \"registry-1.docker.io\" is docker.io, which is in the list already",
            "default_upstream[3]: \"\" must be the name of a registry",
        ],
    );
}
