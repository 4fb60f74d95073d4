//! The credentials file.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A credentials file with the given access mode, and the flag that names it.
fn file(text: &str, mode: u32) -> (Files, String) {
    let files = Files::new(&[("credentials.yaml", text)]);
    let path = files.path("credentials.yaml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its owner may");
    let flag = format!("-f {}", path.display());
    (files, flag)
}

#[test]
fn the_longest_prefix_wins_under_any_name_of_a_registry() {
    let text = "
https://index.docker.io/v1/: { username: hub, password: a }
ghcr.io: { username: all, password: 0123 }
ghcr.io/team: { username: team, password: 1.10 }
ghcr.io/team/open: { username: '', password: '' }
mirror.corp/x: { username: corp, password: yes }
";
    let (_files, flag) = file(text, 0o600);
    let yaml = "upstreams: { registry.corp: { aliases: [mirror.corp] } }";
    let config = load_yaml(yaml, &flag, &[]).expect("well-formed");
    let find = |registry: &str, repository: &str| {
        let credential = config
            .upstream
            .credentials
            .find(&namespace(registry), repository)?;
        let credential = credential.fixed()?;
        Some(format!(
            "{}:{}",
            credential.username,
            credential.password.expose()
        ))
    };
    assert_eq!(find("docker.io", "library/nginx").as_deref(), Some("hub:a"));
    assert_eq!(find("ghcr.io", "other").as_deref(), Some("all:0123"));
    assert_eq!(find("ghcr.io", "team/app").as_deref(), Some("team:1.10"));
    assert_eq!(find("ghcr.io", "team/open/app"), None);
    assert_eq!(find("registry.corp", "x").as_deref(), Some("corp:yes"));
    assert_eq!(find("registry.corp", "y"), None);
    assert!(config.warnings.is_empty());
}

/// Checks the problems of a credentials file, without its path.
fn check(text: &str, expected: &[&str]) {
    let (files, flag) = file(text, 0o600);
    let path = files.path("credentials.yaml").display().to_string();
    let found = problems(load(&flag, &[]));
    let found: Vec<_> = found
        .iter()
        .map(|problem| problem.replace(&path, "F"))
        .collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn a_malformed_file_is_told_by_line_and_key() {
    check("a: {", &["F:1:4: is not YAML: unclosed bracket '{'"]);
    check(
        "hello",
        &["F:1:1: wants a mapping of keys, but holds a text"],
    );
    check(
        "a: b",
        &["F:1:1: a: wants a mapping of keys, but holds a text"],
    );
    check(
        "a:\nb: { username: u }",
        &[
            "F:1:1: a: has neither username nor password; write '' for both to be anonymous",
            "F:2:1: b: has no password",
        ],
    );
    check(
        "a: { username: u, password: '' }",
        &["F:1:1: a: has an empty password, but a username"],
    );
    check(
        "a: { password: p, username: }",
        &["F:1:1: a: has no username"],
    );
    check(
        "a: { username: '', password: p }",
        &["F:1:1: a: has an empty username, but a password"],
    );
    check(
        "a: { username: u, password: '${NOPE}' }",
        &[
            "F:1:1: a: has no password",
            "F:1:29: a.password: asks for the variable NOPE, which is not set; set it, or write ${NOPE:-default}",
        ],
    );
    check(
        "http://a: { username: u, password: p }",
        &[
            "F:1:1: http://a: \"http://a\" must be a registry with an optional part of a path, such as ghcr.io or \
             registry.example.com:5000/team",
        ],
    );
    check(
        "a/B: { username: u, password: p }",
        &[
            "F:1:1: a/B: \"a/B\" must name repositories behind the registry: a repository name is \
             lower-case letters and digits, parted by `/`, `.`, `_`, `__` or `-`",
        ],
    );
}

#[test]
fn a_docker_config_is_recognised() {
    let (_files, flag) = file(r#"{"auths": {"ghcr.io": {"auth": "dTpw"}}}"#, 0o600);
    let found = problems(load(&flag, &[]));
    assert!(
        found
            .iter()
            .any(|problem| problem.contains("Docker's config.json")),
        "{found:?}"
    );
}

#[test]
fn a_credential_is_configured_once() {
    check(
        "docker.io: { username: u, password: p }\nindex.docker.io: { username: v, password: q }",
        &[
            "F:2:1: index.docker.io: is configured twice; the other credential is at F:1:1: docker.io",
        ],
    );
    let (_files, flag) = file("ghcr.io: { username: u, password: p }", 0o600);
    let inline = "upstreams: { ghcr.io: { credentials: { username: u, password: p } } }";
    let found = problems(load_yaml(inline, &flag, &[]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(
        "ghcr.io: is configured twice; the other credential is at ENTREPOT_CONFIG_YAML:1:25"
    ));
    let (_files, flag) = file("ghcr.io/team: { username: u, password: p }", 0o600);
    load_yaml(inline, &flag, &[]).expect("one for all, one for the team");
}

#[test]
fn a_file_that_everybody_may_read_is_warned_about() {
    let (_files, flag) = file("ghcr.io: { username: u, password: hunter2 }", 0o644);
    let warnings = load(&flag, &[]).expect("well-formed").warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("credentials.yaml") && !warnings[0].contains("hunter2"));
}
