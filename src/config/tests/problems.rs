//! What is said about mistakes: all of it, where, and no secret.

use super::*;

#[test]
fn a_configuration_with_ten_mistakes_reports_ten() {
    let yaml = "\
listen:
  - address: localhost:3000
default_upstream: docker io
unknown_namespaces: maybe
cache:
  directory: ${NOWHERE}
manifests: { cache: 1, ttl: 15, ignore: '(' }
domian: registry.example.com
upstreams:
  ghcr.io:
    endpoints: [ftp://ghcr.io]
    credentials: { username: alice }
";
    let expected = [
        "2:14: listen[0].address: \"localhost:3000\" must be an IP address and a port, ",
        "3:19: default_upstream: \"docker io\" must be the name of a registry: ",
        "4:21: unknown_namespaces: \"maybe\" must be public or deny",
        "6:14: cache.directory: asks for the variable NOWHERE, which is not set; ",
        "7:21: manifests.cache: \"1\" must be yes, no, true or false",
        "7:29: manifests.ttl: \"15\" must be a time with its unit, such as 30s, 15m, ",
        "7:41: manifests.ignore: \"(\" must be a regular expression: unclosed group",
        "8:1: domian: is not a known key; did you mean domain?",
        "11:17: upstreams.ghcr.io.endpoints[0]: \"ftp://ghcr.io\" must be a URL that starts with ",
        "12:5: upstreams.ghcr.io.credentials: has no password",
    ];
    let found = load_yaml(yaml, "", &[]).expect_err("ten mistakes");
    assert!(
        found
            .to_string()
            .starts_with("the configuration has 10 problems:\n  ")
    );
    let found: Vec<_> = found.iter().map(Problem::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        let expected = format!("ENTREPOT_CONFIG_YAML:{expected}");
        assert!(found.starts_with(&expected), "{found}\n{expected}");
    }
}

#[test]
fn ten_mistakes_about_the_ways_in_are_ten_problems() {
    let yaml = "\
listen:
  - { adress: '[::]:1', upstream: 'a b' }
  - { address: '[::]:2' }
  - { address: '0.0.0.0:2' }
default_upstream: [docker.io, index.docker.io]
domain: https://mirror.example.com
hosts: { 'a:80': ghcr.io }
upstreams:
  ghcr.io: { repositories: ['', 'team/['], repository: [x] }
";
    let expected = [
        "2:5: listen[0]: has no address",
        "2:7: listen[0].adress: is not a known key; did you mean address?",
        "2:35: listen[0].upstream: \"a b\" must be the name of a registry",
        "4:5: listen[2]: cannot listen on 0.0.0.0:2 beside [::]:2: another listener does already",
        "5:31: default_upstream[1]: \"index.docker.io\" is docker.io, which is in the list already",
        "6:9: domain: \"https://mirror.example.com\" must be a host name without a port",
        "7:10: hosts.a:80: \"a:80\" must be a host name without a port",
        "9:29: upstreams.ghcr.io.repositories[0]: \"\" must be a pattern of repositories",
        "9:33: upstreams.ghcr.io.repositories[1]: \"team/[\" must be a pattern of repositories",
        "9:44: upstreams.ghcr.io.repository: is not a known key; known here: ",
    ];
    let found = problems(load_yaml(yaml, "", &[]));
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        let expected = format!("ENTREPOT_CONFIG_YAML:{expected}");
        assert!(found.starts_with(&expected), "{found}\n{expected}");
    }
}

#[test]
fn every_mistake_on_the_command_line_is_reported() {
    let found = problems(load(
        "-p x -m=x -i ( -l x --log-format x -d '' -f /nowhere/x -c /nowhere/x --upstream x --upstream-ca /nowhere/x \
         --default-upstream @",
        &[],
    ));
    assert_eq!(found.len(), 11, "{found:#?}");
    for problem in found {
        assert!(problem.starts_with("--"), "{problem}");
    }
}

/// Checks the only problem of a file.
fn check(yaml: &str, expected: &str) {
    let found = problems(load_yaml(yaml, "", &[]));
    let expected = format!("ENTREPOT_CONFIG_YAML:{expected}");
    assert_eq!(found, [expected], "{yaml}");
}

#[test]
fn each_rule_of_shape_has_its_words() {
    check("hello", "1:1: wants a mapping of keys, but holds a text");
    check("- a", "1:1: wants a mapping of keys, but holds a list");
    check("a: [", "1:4: is not YAML: unclosed bracket '['");
    check(
        "a: b\n---\nc: d",
        "3:1: is not YAML: a second document begins here",
    );
    check(
        "cache: /data",
        "1:1: cache: wants a mapping of keys, but holds a text",
    );
    check(
        "cache: {directory: [a]}",
        "1:9: cache.directory: wants a text, but holds a list",
    );
    check(
        "unknown_namespaces: [a, b]",
        "1:1: unknown_namespaces: wants a text, but holds a list",
    );
    check(
        "default_upstream: {a: b}",
        "1:1: default_upstream: wants a text or a list, but holds a mapping",
    );
    check(
        "default_upstream: [a, ~]",
        "1:23: default_upstream[1]: is empty",
    );
    check("hosts: {a: }", "1:9: hosts.a: is empty");
    check(
        "hosts: {a: [b]}",
        "1:9: hosts.a: wants a text, but holds a list",
    );
    check(
        "upstreams: {a: {aliases: b}}",
        "1:17: upstreams.a.aliases: wants a list, but holds a text",
    );
    check(
        "upstreams: {a: {aliases: [~]}}",
        "1:27: upstreams.a.aliases[0]: is empty",
    );
    check(
        "upstreams: [a]",
        "1:1: upstreams: wants a mapping of keys, but holds a list",
    );
    check(
        "cache: {directory: /a}\ncache: {directory: /b}",
        "2:1: cache: is written twice; it is also on line 1",
    );
    check(
        "cache: {directori: /a}",
        "1:9: cache.directori: is not a known key; did you mean directory?",
    );
    check(
        "cache: {size: 1}",
        "1:9: cache.size: is not a known key; known here: directory, group_access, max_size, min_free, scrub_every, scrub_rate, shared",
    );
    check(
        "cache: {\"a\\e\": 1}",
        "1:9: cache.a\\u{1b}: is not a known key; known here: directory, group_access, max_size, min_free, scrub_every, scrub_rate, shared",
    );
}

#[test]
fn each_rule_of_value_has_its_words() {
    check("listen: []", "1:1: listen: must hold at least one listener");
    check(
        "default_upstream: []",
        "1:1: default_upstream: must name at least one registry",
    );
    check(
        "listen: [{}]",
        "1:10: listen[0]: has no address, such as \"[::]:3000\"",
    );
    check(
        "cache: {directory: ''}",
        "1:20: cache.directory: \"\" must name a file or directory",
    );
    check(
        "manifests: {ttl: 200y}",
        "1:18: manifests.ttl: \"200y\" must be at most a hundred years",
    );
    check(
        "credentials_file: /nowhere/x",
        "1:19: credentials_file: \"/nowhere/x\" cannot be read: No such file or directory (os error 2)",
    );
}

#[test]
fn no_secret_is_repeated() {
    let files = Files::new(&[(
        "credentials.yaml",
        "a: hunter2\nb: {username: '', password: hunter2}\nu:hunter2@c: {}",
    )]);
    let yaml = "\
default_upstream: u:hunter2@docker.io
cache: { directory: { x: hunter2 } }
manifests: { ttl: '${SECRET}', ignore: '(${SECRET}', cache: '${SECRET}' }
pass: hunter2
upstreams:
  a: { credentials: hunter2 }
  b: { credentials: [hunter2] }
  c: { credentials: { username: hunter2 } }
  d: { credentials: { password: hunter2, passwrd: hunter2, password: hunter2 } }
  e: { endpoints: ['https://u:hunter2@h', 'https://h?hunter2', 'ftp://hunter2@h', 'hunter2@h'] }
  f: { credentials: { username: hunter2, password: '' } }
  g: { credentials: { username: '${hunter2', password: ['hunter2'] } }
  'https://u:hunter2@h': {}
";
    let flags = format!(
        "-f {} --upstream a=https://u:hunter2@h",
        files.path("credentials.yaml").display()
    );
    let found = load_yaml(yaml, &flags, &[("SECRET", "hunter2")]).expect_err("many");
    assert!(found.iter().count() >= 20, "{found}");
    assert!(!found.to_string().contains("hunter2"), "{found}");
    assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
}

#[test]
fn a_configuration_in_order_can_be_printed_without_its_secrets() {
    let yaml = "upstreams: { ghcr.io: { credentials: { username: alice, password: hunter2 } } }";
    let config = load_yaml(yaml, "", &[]).expect("well-formed");
    assert!(!format!("{config:?}").contains("hunter2"));
    let credential = config
        .upstream
        .credentials
        .find(&namespace("ghcr.io"), "a/b");
    assert_eq!(
        credential
            .as_ref()
            .and_then(|found| found.fixed())
            .map(|found| found.password.expose()),
        Some("hunter2")
    );
}
