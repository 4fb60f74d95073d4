//! The command line as a user meets it: what it answers when something is wrong, and with which status.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

use crate::harness::mirror::{Mirror, entrepot};
use crate::harness::process::outcome;

/// What the user asked for cannot be: `EX_USAGE` of `sysexits.h`.
const USAGE: i32 = 64;

/// What the user asked for is right, but this machine does not give it.
pub(crate) const FAILURE: i32 = 1;

/// Runs the binary with `arguments`, which must make it end by itself.
fn run<const N: usize>(arguments: [&str; N]) -> Output {
    outcome(entrepot().args(arguments))
}

/// `output` ended with `status`, and said each of `words` on standard error.
pub(crate) fn assert_refused(output: &Output, status: i32, words: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{message}");
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

/// A directory with `text` in a file, and that file.
fn file(name: &str, text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    (directory, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn version_names_the_program_and_its_version() {
    for flag in ["--version", "-v"] {
        let output = run([flag]);
        assert_eq!(output.status.code(), Some(0));
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, concat!("entrepot ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}

#[test]
fn help_names_every_flag() {
    let output = run(["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).unwrap();
    for flag in [
        "--cache-dir",
        "--port",
        "--cache-manifests",
        "--creds-file",
        "--ignore",
        "--config",
        "--log-level",
        "--log-format",
        "--upstream",
        "--upstream-ca",
        "--default-upstream",
        "--version",
        "--check-config",
    ] {
        assert!(said.contains(flag), "no {flag} in: {said}");
    }
}

#[test]
fn a_bad_flag_is_named_and_ends_with_64() {
    assert_refused(
        &run(["--cache-directory=/tmp"]),
        USAGE,
        &["--cache-directory", "--help"],
    );
    assert_refused(&run(["--port=http"]), USAGE, &["--port", "http"]);
    assert_refused(&run(["--port=65536"]), USAGE, &["--port", "65536"]);
    assert_refused(
        &run(["--cache-manifests=maybe"]),
        USAGE,
        &["--cache-manifests", "maybe"],
    );
    assert_refused(
        &run(["--log-format=xml"]),
        USAGE,
        &["--log-format", "xml", "json"],
    );
    assert_refused(&run(["--ignore=["]), USAGE, &["ignore", "["]);
    assert_refused(
        &run(["--upstream=registry.example.test"]),
        USAGE,
        &["--upstream"],
    );
    assert_refused(
        &run(["--upstream=registry.example.test=ftp://127.0.0.1"]),
        USAGE,
        &["ftp"],
    );
    assert_refused(&run(["pull"]), USAGE, &["pull"]);
}

#[test]
fn a_credentials_file_that_cannot_be_read_is_named_and_ends_with_64() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent.yaml");
    let output = run(["--creds-file", text(&absent)]);
    assert_refused(&output, USAGE, &[text(&absent)]);
}

#[test]
fn a_malformed_credentials_file_is_refused_with_line_and_key_but_without_its_secrets() {
    let (_directory, credentials) = file(
        "credentials.yaml",
        "ghcr.io:\n  username: somebody\n  pasword: correct-horse\n",
    );
    let output = run(["--creds-file", text(&credentials)]);
    assert_refused(
        &output,
        USAGE,
        &[&format!("{}:3:", text(&credentials)), "pasword"],
    );
    assert!(!String::from_utf8_lossy(&output.stderr).contains("correct-horse"));
}

#[test]
fn check_config_accepts_a_good_file_without_opening_a_port() {
    let taken = TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (directory, configuration) = file(
        "config.yaml",
        &format!("listen:\n  - address: \"[::]:{port}\"\nunknown_namespaces: deny\n"),
    );
    let cache = directory.path().join("cache");
    let output = run([
        "--check-config",
        "--config",
        text(&configuration),
        "--cache-dir",
        text(&cache),
    ]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!cache.exists());
}

#[test]
fn check_config_lists_every_problem_with_its_line_and_ends_with_64() {
    let (_directory, configuration) = file(
        "config.yaml",
        "unknown_namespaces: sometimes\ncache:\n  directroy: /tmp\ndefault_upstream: \"..\"\n",
    );
    for arguments in [
        &["--check-config", "--config", text(&configuration)][..],
        &["--config", text(&configuration)][..],
    ] {
        let output = outcome(entrepot().args(arguments));
        let at = |line: u32| format!("{}:{line}:", text(&configuration));
        let places = [at(1), at(3), at(4)];
        assert_refused(&output, USAGE, &places.each_ref().map(String::as_str));
        assert_refused(&output, USAGE, &["sometimes", "directroy", "\"..\""]);
    }
}

#[test]
fn a_cache_directory_below_a_file_is_named_and_ends_with_1() {
    let (_directory, path) = file("file", "");
    let cache = path.join("cache");
    let output = run(["--port=0", "--cache-dir", text(&cache)]);
    assert_refused(&output, FAILURE, &[text(&cache)]);
}

#[test]
fn a_port_in_use_is_named_and_ends_with_1() {
    let taken = TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let directory = tempfile::tempdir().unwrap();
    let output = run(["--port", &port, "--cache-dir", text(directory.path())]);
    assert_refused(&output, FAILURE, &[&format!("[::]:{port}")]);
}

#[test]
fn every_flag_is_also_a_variable() {
    let output = outcome(entrepot().env("ENTREPOT_PORT", "http"));
    assert_refused(&output, USAGE, &["http"]);
}

#[test]
fn sigterm_ends_an_idle_mirror_with_0() {
    let directory = tempfile::tempdir().unwrap();
    let mut mirror = Mirror::start(directory.path(), &[]);
    assert_eq!(mirror.stop().code(), Some(0));
}
