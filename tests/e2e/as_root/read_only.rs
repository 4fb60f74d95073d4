//! A filesystem that takes no writes, which takes a mount to have.

use std::path::Path;
use std::process::Command;

use crate::command_line::{FAILURE, assert_refused};
use crate::harness::process::{command_with_own_mounts, outcome};

/// A run of the binary whose cache directory is on a filesystem that takes no writes, whoever asks.
fn entrepot_on_a_read_only_filesystem(directory: &Path) -> Command {
    const MOUNT_AND_RUN: &str =
        r#"mount -t tmpfs -o ro tmpfs "$1" && exec "$2" --port=0 --cache-dir="$1""#;
    let mut command = command_with_own_mounts("sh");
    command
        .args(["-c", MOUNT_AND_RUN, "sh"])
        .arg(directory)
        .arg(env!("CARGO_BIN_EXE_entrepot"));
    command
}

#[test]
fn a_cache_directory_that_cannot_be_written_is_named_and_ends_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let output = outcome(&mut entrepot_on_a_read_only_filesystem(directory.path()));
    assert_refused(&output, FAILURE, &[directory.path().to_str().unwrap()]);
}
