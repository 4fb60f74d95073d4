//! Whom the cache directory belongs to: whoever can write to it may start there, as containers are run.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::command_line::{FAILURE, assert_refused};
use crate::harness::mirror::{BINARY, Mirror};
use crate::harness::process::{command, free_port, outcome};
use crate::harness::upstream::Upstream;

/// Who runs the mirror: nobody on this machine, as `--user 1000:1000` is nobody in an image.
const USER: u32 = 1000;

/// The group of the volume.
const GROUP: u32 = 2000;

/// `program`, run by that user, who is also in the group.
fn as_user(mut command: Command, program: &Path) -> Command {
    command
        .args([
            format!("--reuid={USER}"),
            format!("--regid={USER}"),
            format!("--groups={GROUP}"),
        ])
        .arg(program);
    command
}

/// The binary where anybody may run it: the directory it was built in may be closed.
fn binary_for_all(directory: &Path) -> io::Result<PathBuf> {
    let copy = directory.join("entrepot");
    fs::copy(BINARY, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

#[test]
fn a_volume_of_root_that_the_group_may_write_to_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let layer = &upstream.catalogue.official.image.layers[0];
    let binary = binary_for_all(directory.path()).unwrap();
    // An emptyDir with `fsGroup`: it belongs to root, and what is made in it to the group.
    let cache = directory.path().join("cache");
    fs::create_dir(&cache).unwrap();
    chown(&cache, Some(0), Some(GROUP)).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o2770)).unwrap();
    let port = free_port();
    let mut run = as_user(Command::new("setpriv"), &binary);
    run.env_clear()
        .env("ENTREPOT_CONFIG_YAML", "cache: { min_free: 0% }")
        .arg(format!("--cache-dir={}", cache.display()))
        .arg(format!("--port={port}"))
        .args(upstream.flags());
    let mut mirror = Mirror::started(&mut run, directory.path(), port, cache.clone());
    let fetched = mirror.fetch(directory.path(), "library/official", layer);
    assert_eq!(fetched.as_ref(), Some(&layer.digest));
    mirror.wait_until_idle();
    assert_eq!(mirror.stored_blobs(), [&*layer.digest]);
    let ours = fs::metadata(cache.join("v1")).unwrap();
    assert_eq!((ours.uid(), ours.gid()), (USER, GROUP));
    assert_eq!(ours.permissions().mode() & 0o007, 0, "it is nobody else's");

    // Root is not the owner of what lies there, and says so rather than leave files that the mirror does not use.
    let output = outcome(command(BINARY).arg("scrub").arg("-d").arg(&cache));
    assert_refused(&output, FAILURE, &["uid 1000", "uid 0"]);
}

#[test]
fn a_directory_that_the_user_may_not_write_to_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let binary = binary_for_all(directory.path()).unwrap();
    let cache = directory.path().join("cache");
    fs::create_dir(&cache).unwrap();
    let mut run = as_user(command("setpriv"), &binary);
    run.env_clear()
        .arg("--port=0")
        .arg(format!("--cache-dir={}", cache.display()));
    let output = outcome(&mut run);
    assert_refused(&output, FAILURE, &[cache.to_str().unwrap(), "uid 1000"]);
}
