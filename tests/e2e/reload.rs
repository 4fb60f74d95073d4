//! A configuration that changes under the running program.

use std::fs;
use std::path::Path;

use crate::harness::mirror::Mirror;
use crate::harness::process::{command, run};

/// Nobody listens there: whoever is asked for is not reached, which is another answer than being unknown.
const BEFORE: &str = "\
default_upstream: registry.example
upstreams: { registry.example: { endpoints: ['http://127.0.0.1:1'] } }
";

const AFTER: &str = "domain: mirror.example\n";

/// Replaces a file as one should: by another one.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

fn hang_up(mirror: &Mirror) {
    run(command("kill").args(["-HUP", &mirror.pid().to_string()]));
}

/// The status that a host name which nobody mapped is answered with.
fn status(mirror: &Mirror) -> String {
    run(command("curl")
        .args([
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ])
        .args(["--header", "Host: other.example"])
        .arg(format!("{}/v2/team/app/manifests/v1", mirror.url())))
}

#[test]
fn a_file_that_changes_counts_and_a_bad_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("entrepot.yaml");
    fs::write(&path, BEFORE).unwrap();
    let flag = format!("--config={}", path.display());
    let mut mirror = Mirror::start(directory.path(), &[flag]);
    assert_eq!(status(&mirror), "502");

    replace(&path, &format!("{AFTER}{BEFORE}"));
    mirror.wait_for_metric("entrepot_config_reloads_total{result=\"ok\"} 1");
    assert_eq!(status(&mirror), "404");

    replace(&path, "domian: a\nhosts: { a: b c }\n");
    mirror.wait_for_metric("entrepot_config_reloads_total{result=\"failed\"} 1");
    assert_eq!(status(&mirror), "404");
    let log = mirror.log();
    for words in [
        "did you mean domain?",
        "must be the name of a registry",
        "the one before stays",
    ] {
        assert!(log.contains(words), "no {words:?} in: {log}");
    }

    hang_up(&mirror);
    mirror.wait_for_metric("entrepot_config_reloads_total{result=\"failed\"} 2");
    replace(&path, BEFORE);
    mirror.wait_for_metric("entrepot_config_reloads_total{result=\"ok\"} 2");
    assert_eq!(status(&mirror), "502");
    hang_up(&mirror);
    mirror.wait_for_metric("entrepot_config_reloads_total{result=\"ok\"} 3");
}
