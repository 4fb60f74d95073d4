//! `docs/configuration.md` and the help say what there is.

use clap::CommandFactory;

use super::*;

const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");
const DEPLOYED: &str = include_str!("../../../deploy/entrepot.yaml");

/// The first YAML block of the documentation, which shows every key.
fn example() -> &'static str {
    let (_, rest) = DOCUMENTATION.split_once("```yaml\n").expect("an example");
    rest.split_once("```").expect("its end").0
}

#[test]
fn every_flag_and_its_variable_are_documented() {
    let command = Arguments::command();
    let flags = command.get_arguments().filter_map(clap::Arg::get_long);
    for flag in flags.filter(|flag| !matches!(*flag, "help" | "version" | "check-config")) {
        let variable = format!("ENTREPOT_{}", flag.replace('-', "_").to_uppercase());
        assert!(DOCUMENTATION.contains(&format!("`--{flag}")), "--{flag}");
        assert!(DOCUMENTATION.contains(&variable), "{variable}");
    }
}

/// Every key there is, as the documentation writes it.
fn known_keys() -> Vec<String> {
    // The reader lists what it knows beside a key that it does not know.
    let probe = "\
zzzz: 1
listen: [{ address: '[::]:1', zzzz: 1, tls: { zzzz: 1, certificates: [{ zzzz: 1 }] } }]
cache: { zzzz: 1, shared: { url: 's3://b', zzzz: 1 } }
clients: { zzzz: 1 }
manifests: { zzzz: 1, tags: [{ zzzz: 1 }] }
authentication: { zzzz: 1, rules: [{ zzzz: 1 }] }
upstreams: { a: { zzzz: 1, credentials: { username: u, password: p, zzzz: 1 }, tags: [{ zzzz: 1 }],
  limits: { zzzz: 1 } } }
";
    let mut found = problems(load_yaml(probe, "", &[]));
    // What is missing is another matter.
    found.retain(|problem| problem.contains("zzzz"));
    assert_eq!(found.len(), 15, "{found:#?}");
    found.iter().flat_map(|problem| known_in(problem)).collect()
}

/// The keys that a problem of `zzzz` lists.
fn known_in(problem: &str) -> Vec<String> {
    let (place, known) = problem
        .split_once("zzzz: is not a known key; known here: ")
        .expect("a list");
    let (_, path) = place.rsplit_once(": ").expect("a place");
    let path = path
        .replace("[0]", "[]")
        .replace("upstreams.a.", "upstreams.<name>.")
        // The rules are the same in both places.
        .replace("upstreams.<name>.tags[].", "manifests.tags[].");
    let keys = known.split(", ").map(|key| format!("{path}{key}"));
    keys.collect()
}

#[test]
fn every_key_is_documented() {
    for key in known_keys() {
        assert!(DOCUMENTATION.contains(&format!("`{key}`")), "{key}");
    }
}

/// The file that is there to be copied, with the lines that are commented out taken in.
fn deployed() -> String {
    let lines = DEPLOYED.lines().map(|line| {
        let is_example = |rest: &&str| !rest.starts_with([' ', '#']);
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        match rest.strip_prefix('#').filter(is_example) {
            Some(example) => format!("{indent}{example}\n"),
            None => format!("{line}\n"),
        }
    });
    lines.collect()
}

#[test]
fn the_file_to_copy_is_a_configuration_as_it_is_and_with_every_key() {
    let hash = bcrypt::hash("hunter2", 5).expect("a hash");
    let files = |text: &str| {
        let key = rcgen::generate_simple_self_signed(["h".to_owned()]).expect("a certificate");
        let files = Files::new(&[
            ("entrepot.yaml", text),
            ("corp-ca.pem", &key.cert.pem()),
            ("tls.crt", &key.cert.pem()),
            ("tls.key", &key.signing_key.serialize_pem()),
            ("config.json", "{\"auths\":{}}"),
            ("credentials.yaml", "lscr.io: { username: u, password: p }"),
            ("htpasswd", &format!("me:{hash}\n")),
        ]);
        let path = files.path("entrepot.yaml").display().to_string();
        load(&format!("-c {path}"), &[("DOCKERHUB_TOKEN", "s3cret")]).map(drop)
    };
    assert_eq!(files(DEPLOYED), Ok(()));
    let whole = deployed();
    assert_eq!(files(&whole), Ok(()), "{whole}");
    for key in known_keys() {
        let last = key.rsplit(['.', ']']).next().unwrap_or_default();
        let is_there = whole.lines().any(|line| {
            let key = format!("{last}:");
            line.match_indices(&key).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| [' ', '{'].contains(&c))
            })
        });
        assert!(is_there, "{key}");
    }
}

#[test]
fn the_example_is_a_configuration() {
    let key = rcgen::generate_simple_self_signed(["h".to_owned()]).expect("a certificate");
    let hash = bcrypt::hash("hunter2", 5).expect("a hash");
    let files = Files::new(&[
        ("entrepot.yaml", example()),
        ("clients.htpasswd", &format!("ci:{hash}\n")),
        ("corp-ca.pem", &key.cert.pem()),
        ("tls.crt", &key.cert.pem()),
        ("tls.key", &key.signing_key.serialize_pem()),
        (
            "credentials.yaml",
            "ghcr.io/my-org: { username: u, password: p }",
        ),
    ]);
    let variables = [("DOCKERHUB_TOKEN", "s3cret")];
    let path = files.path("entrepot.yaml").display().to_string();
    let config = load(&format!("-c {path}"), &variables).expect("well-formed");
    assert_eq!(config.upstream.upstreams.len(), 2);
}

#[test]
fn the_help_is_complete_and_its_usage_errors_are_errors() {
    let help = Arguments::command().render_long_help().to_string();
    for text in [
        "-d, --cache-dir",
        "-m, --cache-manifests[=<BOOL>]",
        "ENTREPOT_CONFIG_YAML",
        "64 bad usage",
    ] {
        assert!(help.contains(text), "{text}\n{help}");
    }
    for (arguments, is_error) in [
        ("--help", false),
        ("-v", false),
        ("--nope", true),
        ("-m no", true),
        ("scrub --nope", true),
        ("scrubs", true),
    ] {
        let arguments = std::iter::once("entrepot").chain(arguments.split(' '));
        let usage = Arguments::try_parse_from(arguments).expect_err("no arguments");
        assert_eq!(usage.use_stderr(), is_error, "{usage}");
    }
}
