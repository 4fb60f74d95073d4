//! The commands beside the mirror: what a container's health check, a chart's test and the rest of a pod run.

use std::fs;

use crate::command_line::{FAILURE, assert_refused};
use crate::harness::mirror::{Mirror, entrepot};
use crate::harness::process::{Daemon, free_port, outcome, run};
use crate::harness::upstream::{EXAMPLE, Upstream};

#[test]
fn health_is_that_of_the_mirror_of_the_same_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let mut mirror = Mirror::start(directory.path(), &[]);
    let port = mirror.host().rsplit_once(':').unwrap().1.to_owned();
    let health = || outcome(entrepot().env("ENTREPOT_PORT", &port).arg("health"));
    let before = health();
    assert_eq!(before.status.code(), Some(0));
    mirror.stop();
    assert_refused(&health(), FAILURE, &["readyz", "refused"]);
}

#[test]
fn an_image_that_comes_whole_is_healthy_and_one_that_is_not_there_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let pull = |image: &str| {
        let mut command = entrepot();
        command.args(["health", "--mirror", &mirror.url(), "--pull", image]);
        outcome(&mut command)
    };
    for name in [
        &upstream.catalogue.multi.name,
        &upstream.catalogue.docker.name,
    ] {
        let pulled = pull(&format!("{EXAMPLE}/{name}"));
        let said = String::from_utf8_lossy(&pulled.stderr);
        assert!(pulled.status.success(), "{said}");
        assert!(said.contains("every one of them right"), "{said}");
    }
    assert!(
        pull("official:1.0").status.success(),
        "what names no registry is Docker Hub's"
    );
    let missing = pull(&format!("{EXAMPLE}/team/missing:1"));
    assert_refused(&missing, FAILURE, &["404", "MANIFEST_UNKNOWN"]);
}

#[test]
fn what_is_no_mirror_is_not_healthy() {
    let refused = |url: &str, words: &[&str]| {
        let output = outcome(entrepot().args(["health", "--mirror", url]));
        assert_refused(&output, FAILURE, words);
    };
    refused("https://mirror", &["https://mirror", "http://"]);
    refused(&format!("http://127.0.0.1:{}", free_port()), &["refused"]);
}

#[test]
fn hold_ends_by_a_signal_or_after_its_time() {
    run(entrepot().args(["hold", "--for", "1ms"]));
    let directory = tempfile::tempdir().unwrap();
    let mut hold = Daemon::start("hold", entrepot_alone().arg("hold"), directory.path());
    let caught = || {
        let status = fs::read_to_string(format!("/proc/{}/status", hold.pid())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        u64::from_str_radix(mask.unwrap().trim(), 16).unwrap()
    };
    // SIGTERM is number 15.
    while caught() & 1 << 14 == 0 {
        std::thread::yield_now();
    }
    assert_eq!(hold.stop().code(), Some(0));
}

/// The binary itself, not a `timeout` that runs it.
fn entrepot_alone() -> std::process::Command {
    let mut command = std::process::Command::new(crate::harness::mirror::BINARY);
    command.env_clear();
    command
}
