//! `entrepot node` as an init container runs it.

use std::fs;

use crate::command_line::{FAILURE, assert_refused};
use crate::harness::mirror::entrepot;
use crate::harness::process::outcome;

#[test]
fn a_node_is_set_up_verified_and_left_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let config = root.path().join("etc/containerd");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "version = 2\n").unwrap();
    let node = |arguments: &[&str]| {
        outcome(
            entrepot()
                .arg("node")
                .args(arguments)
                .arg("--root")
                .arg(root.path()),
        )
    };
    let mirror = ["--mirror", "http://127.0.0.1:5000"];

    assert_refused(
        &node(&["install", "--mirror", "127.0.0.1"]),
        FAILURE,
        &["--mirror", "http://"],
    );
    // That containerd does not look there yet is told, but ends no pod.
    let installed = node(&[&["install"], &mirror[..]].concat());
    assert_refused(&installed, 0, &["_default/hosts.toml", "add config_path"]);
    assert_refused(
        &node(&[&["verify"], &mirror[..]].concat()),
        FAILURE,
        &["add config_path"],
    );
    assert_refused(
        &node(&[&["install"], &mirror[..]].concat()),
        0,
        &["nothing to change"],
    );
    assert_refused(&node(&["remove", "--dry-run"]), 0, &["would remove"]);
    assert!(config.join("certs.d/_default/hosts.toml").exists());
    assert_refused(&node(&["remove"]), 0, &["remove"]);
    assert!(!config.join("certs.d").exists());
}
