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

/// The warnings of a configuration file that everybody may read, without its directory.
fn warnings(yaml: &str, others: &[(&str, &str)]) -> Vec<String> {
    let files = Files::new(others);
    let path = files.path("entrepot.yaml");
    std::fs::write(&path, yaml).expect("written");
    for name in others
        .iter()
        .map(|(name, _)| *name)
        .chain(["entrepot.yaml"])
    {
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(files.path(name), mode).expect("its owner may");
    }
    let flag = format!("-c {}", path.display());
    let config = load(&flag, &[("TOKEN", "hunter2")]).expect("well-formed");
    let directory = format!("{}/", files.directory().display());
    let warnings = config.warnings.iter();
    let warnings: Vec<_> = warnings.map(|text| text.replace(&directory, "")).collect();
    assert!(!warnings.concat().contains("hunter2"), "{warnings:?}");
    warnings
}

#[test]
fn a_secret_that_everybody_may_read_is_warned_about_wherever_it_stands() {
    let check = |yaml: &str, file: &str, key: &str| {
        let found = warnings(yaml, &[("secret", "hunter2\n")]);
        let [found] = &*found else {
            panic!("one warning: {found:?}");
        };
        assert!(
            found.starts_with("everybody on this machine may read "),
            "{found}"
        );
        assert!(found.contains(file) && found.contains(key), "{found}");
    };
    let password = "upstreams.a.example.credentials.password";
    let of = |what: &str| format!("upstreams: {{ a.example: {{ {what} }} }}");
    let written = of("credentials: { username: u, password: hunter2 }");
    check(&written, "entrepot.yaml", password);
    let asked = of("credentials: { username: u, password: '${file:secret}' }");
    check(&asked, " secret", password);
    let token = of("credentials: { token: hunter2 }");
    check(&token, "entrepot.yaml", "credentials.token");
    let proxy = of("proxy: 'http://u:hunter2@proxy.example:3128'");
    check(&proxy, "entrepot.yaml", "upstreams.a.example.proxy");
    for open in [
        "credentials: { username: u, password: '${TOKEN}' }",
        "credentials: { username: '', password: '' }",
        "proxy: 'http://proxy.example:3128'",
        "proxy: 'http://u:${TOKEN}@proxy.example:3128'",
        "aliases: ['${file:secret}.example']",
    ] {
        assert_eq!(warnings(&of(open), &[("secret", "b")]), [""; 0], "{open}");
    }
    let config = r#"{"auths":{"ghcr.io":{"auth":"dTpodW50ZXIy"}}}"#;
    let found = warnings("docker_config: config.json", &[("config.json", config)]);
    assert!(
        matches!(&*found, [one] if one.contains("config.json")),
        "{found:?}"
    );
}

#[test]
fn a_password_over_plain_http_is_warned_about() {
    let (_files, flag) = file("a.example: { username: u, password: p }", 0o600);
    let check = |keys: &str, expected: &[&str]| {
        let yaml = format!("upstreams: {{ a.example: {{ {keys} }}, b.example: {{}} }}");
        let found = load_yaml(&yaml, &flag, &[]).expect("well-formed").warnings;
        let expected = expected.iter().map(|endpoint| {
            format!(
                "the credentials for a.example go to {endpoint} over plain http, where others can read them"
            )
        });
        assert_eq!(found, expected.collect::<Vec<_>>(), "{keys}");
    };
    check(
        "endpoints: ['http://10.0.0.5:5000']",
        &["http://10.0.0.5:5000/"],
    );
    check(
        "endpoints: ['http://127.0.0.1:5000', 'http://localhost', 'https://c.example']",
        &[],
    );
    // A password is not given away where there is another way, unless somebody wants that.
    let both = "endpoints: ['https://c.example', 'http://10.0.0.5']";
    check(both, &[]);
    let wanted = format!("{both}, credentials_over_http: yes");
    check(&wanted, &["http://10.0.0.5/"]);
    check(
        "endpoints: ['http://10.0.0.5'], credentials_over_http: no",
        &[],
    );
    let other = "upstreams: { b.example: { endpoints: ['http://10.0.0.5'] } }";
    let config = load_yaml(other, &flag, &[]).expect("well-formed");
    assert_eq!(config.warnings, [""; 0], "there is none for that one");
}

#[test]
fn what_is_not_used_of_a_docker_config_is_warned_about() {
    let json = r#"{"auths":{"ghcr.io":{"auth":"dTpwOnE="}},"credsStore":"secretservice"}"#;
    let files = Files::new(&[("config.json", json)]);
    let path = files.path("config.json");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, mode).expect("its owner may");
    let yaml = format!("docker_config: {}", path.display());
    let found = load_yaml(&yaml, "", &[]).expect("well-formed").warnings;
    let expected = format!(
        "{}: \"credsStore\" is not used; name the helper under `exec`",
        path.display()
    );
    assert_eq!(found, [expected]);
}
