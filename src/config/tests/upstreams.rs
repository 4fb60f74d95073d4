//! Upstreams by name, from the file and from the command line.

use reqwest::Url;

use super::*;
use crate::upstream::UpstreamConfig;

fn upstreams(yaml: &str, flags: &str) -> Vec<UpstreamConfig> {
    load_yaml(yaml, flags, &[])
        .expect("well-formed")
        .upstream
        .upstreams
}

fn endpoints(upstream: &UpstreamConfig) -> Vec<&str> {
    upstream.endpoints.iter().map(Url::as_str).collect()
}

#[test]
fn an_upstream_has_all_that_is_written() {
    let yaml = "
default_upstream: mirror.corp
upstreams:
  registry.corp:5000:
    endpoints: ['http://10.0.0.5:5000', 'https://h/artifactory']
    aliases: [mirror.corp]
    realms: [auth.corp, 'gitlab.corp:8443']
    credentials: { username: '${U:-}', password: '${P:-}' }
";
    let config = load_yaml(yaml, "", &[]).expect("well-formed").upstream;
    let [upstream] = &*config.upstreams else {
        panic!("one upstream")
    };
    assert_eq!(upstream.namespace, namespace("registry.corp:5000"));
    assert_eq!(
        endpoints(upstream),
        ["http://10.0.0.5:5000/", "https://h/artifactory"]
    );
    assert_eq!(upstream.aliases, [namespace("mirror.corp")]);
    assert_eq!(
        upstream.realms,
        [namespace("auth.corp"), namespace("gitlab.corp:8443")]
    );
    assert_eq!(config.default_upstream, namespace("registry.corp:5000"));
    assert!(
        config
            .credentials
            .find(&namespace("registry.corp:5000"), "a")
            .is_none()
    );
}

#[test]
fn an_upstream_without_endpoints_is_where_it_is_known_to_be() {
    let found = upstreams(
        "upstreams: { docker.io: {}, ghcr.io: , 'h:5000': { endpoints: [] } }",
        "",
    );
    let found: Vec<_> = found
        .iter()
        .map(|upstream| endpoints(upstream).join(" "))
        .collect();
    assert_eq!(
        found,
        [
            "https://registry-1.docker.io/",
            "https://ghcr.io/",
            "https://h:5000/"
        ]
    );
}

#[test]
fn a_name_that_no_url_takes_needs_endpoints() {
    let found = problems(load_yaml("upstreams: { 'xn--a.example': {} }", "", &[]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("cannot stand in a URL; write where it is under `endpoints`"));
    let yaml = "upstreams: { 'xn--a.example': { endpoints: ['https://h'] } }";
    load_yaml(yaml, "", &[]).expect("well-formed");
}

#[test]
fn an_alias_that_is_built_in_names_the_same_upstream() {
    let yaml = "upstreams: { registry-1.docker.io: { endpoints: ['http://h'], aliases: [index.docker.io] } }";
    let config = load_yaml(yaml, "--default-upstream index.docker.io", &[]).expect("well-formed");
    assert_eq!(
        config.upstream.upstreams[0].namespace,
        namespace("docker.io")
    );
    assert_eq!(config.upstream.default_upstream, namespace("docker.io"));
}

#[test]
fn the_command_line_adds_endpoints_in_order() {
    let flags = "--upstream a=http://1 --upstream b=http://2 --upstream A=http://3 --upstream index.docker.io=http://4";
    let found = upstreams("", flags);
    let found: Vec<_> = found
        .iter()
        .map(|upstream| format!("{} {}", upstream.namespace, endpoints(upstream).join(" ")))
        .collect();
    assert_eq!(
        found,
        [
            "a http://0.0.0.1/ http://0.0.0.3/",
            "b http://0.0.0.2/",
            "docker.io http://0.0.0.4/"
        ]
    );
}

#[test]
fn a_name_stands_for_one_upstream() {
    let check = |yaml: &str, flags: &str, expected: &[&str]| {
        assert_eq!(problems(load_yaml(yaml, flags, &[])), expected, "{yaml}");
    };
    check(
        "upstreams: { docker.io: {}, index.docker.io: {} }",
        "",
        &[
            "ENTREPOT_CONFIG_YAML:1:29: upstreams.index.docker.io: \"index.docker.io\" is docker.io, which is \
             configured twice; it is also at ENTREPOT_CONFIG_YAML:1:14: upstreams.docker.io",
        ],
    );
    check(
        "upstreams: { a: {} }",
        "--upstream A=http://h",
        &[
            "--upstream: \"A=http://h\" is a, which is configured twice; it is also at ENTREPOT_CONFIG_YAML:1:14: \
           upstreams.a",
        ],
    );
    check(
        "upstreams:\n  a: { aliases: [b, c] }\n  b: {}\n  d: { aliases: [c, d] }",
        "",
        &[
            "ENTREPOT_CONFIG_YAML:2:18: upstreams.a.aliases[0]: \"b\" is a name of b already, at \
             ENTREPOT_CONFIG_YAML:3:3: upstreams.b; a name stands for one upstream",
            "ENTREPOT_CONFIG_YAML:4:18: upstreams.d.aliases[0]: \"c\" is a name of a already, at \
             ENTREPOT_CONFIG_YAML:2:21: upstreams.a.aliases[1]; a name stands for one upstream",
            "ENTREPOT_CONFIG_YAML:4:21: upstreams.d.aliases[1]: \"d\" is a name of d already, at \
             ENTREPOT_CONFIG_YAML:4:3: upstreams.d",
        ],
    );
}

#[test]
fn a_ca_file_holds_certificates() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["h".to_owned()])
        .and_then(|parameters| parameters.self_signed(&key))
        .expect("a certificate");
    let files = Files::new(&[
        ("ca.pem", &format!("a comment\n{}", certificate.pem())),
        ("key.pem", &key.serialize_pem()),
        ("empty.pem", ""),
        (
            "broken.pem",
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        ),
        (
            "junk.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ),
        ("entrepot.yaml", "upstreams: { a: { ca: ca.pem }, b: {} }"),
    ]);
    let path = |name: &str| files.path(name).display().to_string();
    let config = load(
        &format!(
            "-c {} --upstream c=https://h --upstream d=https://h --upstream-ca {}",
            path("entrepot.yaml"),
            path("ca.pem")
        ),
        &[],
    );
    let config = config.expect("well-formed");
    let have_ca: Vec<_> = config
        .upstream
        .upstreams
        .iter()
        .map(|upstream| upstream.ca.is_some())
        .collect();
    assert_eq!(have_ca, [true, false, true, true]);

    let check = |name: &str, expected: &str| {
        let path = path(name);
        let found = problems(load(
            &format!("--upstream a=https://h --upstream-ca {path}"),
            &[],
        ));
        assert_eq!(found, [format!("--upstream-ca: {path:?} {expected}")]);
    };
    check(
        "key.pem",
        "holds no certificate; it must be a PEM file with -----BEGIN CERTIFICATE-----",
    );
    check(
        "empty.pem",
        "holds no certificate; it must be a PEM file with -----BEGIN CERTIFICATE-----",
    );
    check("broken.pem", "is not a well-formed PEM file");
    check("junk.pem", "holds a certificate that cannot be read");
    check(
        "missing.pem",
        "cannot be read: No such file or directory (os error 2)",
    );
    let found = problems(load(&format!("--upstream-ca {}", path("ca.pem")), &[]));
    assert!(
        found[0].ends_with("is for what --upstream names, and nothing is named"),
        "{found:?}"
    );
    assert!(files.directory().is_dir());
}
