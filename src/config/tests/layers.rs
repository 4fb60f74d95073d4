//! Defaults, and which of flag, variable and file counts.

use std::time::Duration;

use super::*;
use crate::cache::{Lifetime, OnRefusal, TagTerms};
use crate::upstream::UnknownNamespaces;

#[test]
fn without_a_word_every_public_registry_is_mirrored_on_port_3000() {
    let config = load("", &[]).expect("nothing is wrong with nothing");
    assert_eq!(
        config.listen,
        [Listen {
            address: "[::]:3000".parse().expect("an address"),
            upstream: None,
            tls: None,
        }]
    );
    assert_eq!(config.cache_directory, Path::new("/tmp/data"));
    assert_eq!(config.upstream.default_upstream, namespace("docker.io"));
    assert_eq!(
        config.upstream.unknown_namespaces,
        UnknownNamespaces::Public
    );
    assert!(config.upstream.upstreams.is_empty());
    let usual = TagTerms {
        lifetime: Lifetime::Limited(Duration::from_mins(15)),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::from_hours(7 * 24),
        on_not_found: OnRefusal::Deny,
        on_unauthorized: OnRefusal::Deny,
    };
    assert_eq!(terms(&config, "docker.io/library/nginx:v1"), usual);
    let ignored = TagTerms {
        lifetime: Lifetime::Limited(Duration::ZERO),
        ..usual
    };
    assert_eq!(terms(&config, "docker.io/library/nginx:latest"), ignored);
    assert_eq!(config.log.format, LogFormat::Text);
    assert!(config.warnings.is_empty());
}

#[test]
fn an_empty_file_changes_nothing() {
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "cache:\nmanifests: ~\nlisten:\nupstreams: {}\n",
    ] {
        let config = Config::from_yaml(text).expect(text);
        assert_eq!(config.cache_directory, Path::new("/tmp/data"), "{text:?}");
    }
}

/// Checks one setting: the flag counts before the variable, the variable before the file, and each is read.
fn check<T: PartialEq + std::fmt::Debug>(
    (flag, variable, yaml): (&str, (&str, &str), &str),
    setting: impl Fn(&Config) -> T,
    [from_flag, from_variable, from_file]: [T; 3],
) {
    let of = |flags: &str, variables: &[(&str, &str)]| {
        setting(&load_yaml(yaml, flags, variables).expect("well-formed"))
    };
    assert_eq!(of(flag, &[variable]), from_flag, "{flag}");
    assert_eq!(of("", &[variable]), from_variable, "{variable:?}");
    assert_eq!(of("", &[]), from_file, "{yaml}");
}

#[test]
fn a_flag_counts_before_its_variable_and_that_before_the_file() {
    check(
        (
            "-p 1",
            ("ENTREPOT_PORT", "2"),
            "listen: [{address: '127.0.0.1:3'}]",
        ),
        |config| config.listen[0].address.to_string(),
        ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"].map(str::to_owned),
    );
    check(
        (
            "-d /a",
            ("ENTREPOT_CACHE_DIR", "/b"),
            "cache: {directory: /c}",
        ),
        |config| config.cache_directory.clone(),
        ["/a", "/b", "/c"].map(PathBuf::from),
    );
    check(
        (
            "-m",
            ("ENTREPOT_CACHE_MANIFESTS", "no"),
            "manifests: {cache: yes}",
        ),
        |config| terms(config, "h/app:v1").lifetime != Lifetime::Limited(Duration::ZERO),
        [true, false, true],
    );
    check(
        ("-i a", ("ENTREPOT_IGNORE", ""), "manifests: {ignore: c}"),
        |config| {
            let rule = config.tags.shorthands.first();
            rule.and_then(|rule| Some(rule.tags.as_ref()?.to_string()))
        },
        [Some("a".to_owned()), None, Some("c".to_owned())],
    );
    check(
        (
            "--default-upstream a",
            ("ENTREPOT_DEFAULT_UPSTREAM", "b"),
            "default_upstream: c",
        ),
        |config| config.upstream.default_upstream.clone(),
        ["a", "b", "c"].map(namespace),
    );
    check(
        ("--log-format text", ("ENTREPOT_LOG_FORMAT", "json"), ""),
        |config| config.log.format,
        [LogFormat::Text, LogFormat::Json, LogFormat::Text],
    );
    check(
        ("-l debug", ("ENTREPOT_LOG_LEVEL", "off"), ""),
        |config| config.log.filter.to_string(),
        ["debug", "off", "info"].map(str::to_owned),
    );
    check(
        (
            "--upstream a=http://h",
            ("ENTREPOT_UPSTREAM", "b=http://h  c=http://h"),
            "upstreams: {d: }",
        ),
        |config| {
            let names = config
                .upstream
                .upstreams
                .iter()
                .map(|upstream| upstream.namespace.to_string());
            names.collect::<Vec<_>>().join(" ")
        },
        // What is named outside comes beside what the file names.
        ["d a", "d b c", "d"].map(str::to_owned),
    );
}

#[test]
fn what_is_overridden_is_checked_all_the_same() {
    let found = problems(load_yaml(
        "manifests: {cache: perhaps}",
        "-m=yes",
        &[("ENTREPOT_CACHE_MANIFESTS", "?")],
    ));
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_variable_set_to_nothing_is_not_set() {
    let names = [
        "PORT",
        "CACHE_DIR",
        "CACHE_MANIFESTS",
        "CREDS_FILE",
        "CONFIG",
        "LOG_LEVEL",
        "UPSTREAM",
        "CONFIG_YAML",
    ];
    let names: Vec<_> = names
        .iter()
        .map(|name| format!("ENTREPOT_{name}"))
        .collect();
    let variables: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    load("", &variables).expect("nothing is said");
}

#[test]
fn the_variable_that_kubernetes_sets_beside_a_service_is_not_a_port() {
    let config = load("", &[("ENTREPOT_PORT", "tcp://10.96.0.17:80")]).expect("not meant for us");
    assert_eq!(config.listen[0].address.port(), 3000);
}

#[test]
fn a_file_is_read_and_its_paths_start_where_it_is() {
    let files = Files::new(&[
        (
            "entrepot.yaml",
            "cache: { directory: data }\ncredentials_file: credentials.yaml",
        ),
        (
            "credentials.yaml",
            "ghcr.io: { username: alice, password: '${file:token}' }",
        ),
        ("token", "s3cret\n"),
    ]);
    let path = files.path("entrepot.yaml").display().to_string();
    for loaded in [
        load(&format!("-c {path}"), &[]),
        load("", &[("ENTREPOT_CONFIG", &path)]),
    ] {
        let config = loaded.expect("well-formed");
        assert_eq!(config.cache_directory, files.path("data"));
        let credential = config
            .upstream
            .credentials
            .find(&namespace("ghcr.io"), "a")
            .expect("a credential");
        let credential = credential.fixed().expect("a known one");
        assert_eq!(
            (&*credential.username, credential.password.expose()),
            ("alice", "s3cret")
        );
    }
    let outside = load(&format!("-c {path} -d data"), &[]).expect("well-formed");
    assert_eq!(outside.cache_directory, Path::new("data"));
}

#[test]
fn there_is_one_configuration_file() {
    let found = problems(load_yaml("cache: {}", "-c entrepot.yaml", &[]));
    assert_eq!(
        found,
        [
            "--config: \"entrepot.yaml\" cannot be read beside ENTREPOT_CONFIG_YAML, \
             which holds a configuration already"
        ]
    );
}

#[test]
fn proxies_are_those_of_the_environment() {
    let variables = [
        ("http_proxy", "http://a"),
        ("HTTPS_PROXY", "http://b"),
        ("https_proxy", "http://c"),
        ("NO_PROXY", ""),
        ("no_proxy", "d"),
    ];
    let proxies = load("", &variables).expect("well-formed").upstream.proxies;
    assert_eq!(
        [proxies.http, proxies.https, proxies.all, proxies.no],
        ["http://a", "http://b", "", "d"]
    );
}

#[test]
fn yaml_may_be_json() {
    let config =
        Config::from_yaml(r#"{"manifests": {"cache": false, "ttl": "1h"}}"#).expect("well-formed");
    assert_eq!(
        terms(&config, "h/app:v1").lifetime,
        Lifetime::Limited(Duration::ZERO)
    );
    assert_eq!(
        config.tags.usual.lifetime,
        Lifetime::Limited(Duration::from_hours(1))
    );
}
