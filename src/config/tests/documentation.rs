//! `docs/configuration.md` and the help say what there is.

use clap::CommandFactory;

use super::*;

const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

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

#[test]
fn every_key_is_documented() {
    // The reader lists what it knows beside a key that it does not know.
    let probe = "\
zzzz: 1
listen: [{ address: '[::]:1', zzzz: 1 }]
cache: { zzzz: 1 }
manifests: { zzzz: 1, tags: [{ zzzz: 1 }] }
authentication: { zzzz: 1, rules: [{ zzzz: 1 }] }
upstreams: { a: { zzzz: 1, credentials: { username: u, password: p, zzzz: 1 }, tags: [{ zzzz: 1 }] } }
";
    let mut found = problems(load_yaml(probe, "", &[]));
    // What is missing is another matter.
    found.retain(|problem| problem.contains("zzzz"));
    assert_eq!(found.len(), 10, "{found:#?}");
    for problem in found {
        let (place, known) = problem
            .split_once("zzzz: is not a known key; known here: ")
            .expect("a list");
        let (_, path) = place.rsplit_once(": ").expect("a place");
        let path = path
            .replace("[0]", "[]")
            .replace("upstreams.a.", "upstreams.<name>.")
            // The rules are the same in both places.
            .replace("upstreams.<name>.tags[].", "manifests.tags[].");
        for key in known.split(", ") {
            let key = format!("`{path}{key}`");
            assert!(DOCUMENTATION.contains(&key), "{key}");
        }
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
        ("scrub", true),
    ] {
        let arguments = std::iter::once("entrepot").chain(arguments.split(' '));
        let usage = Arguments::try_parse_from(arguments).expect_err("no arguments");
        assert_eq!(usage.use_stderr(), is_error, "{usage}");
    }
}
