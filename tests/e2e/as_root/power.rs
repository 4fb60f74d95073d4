//! F26: power that fails. What had not reached the disk is gone. The disk is a file here, and what is in that file at some
//! moment is what a machine finds on it that had no time to write the rest.

use std::fs;
use std::path::Path;

use crate::harness::digest;
use crate::harness::gate::Gate;
use crate::harness::mirror::{BINARY, Mirror};
use crate::harness::process::{
    command, command_with_own_mounts, daemon_with_own_mounts, free_port, run,
};
use crate::harness::upstream::{EXAMPLE, Upstream};

const MIB: u64 = 1 << 20;

/// Mounts the file system in the file `$1` at `$2`, and becomes what the rest says.
const MOUNT_AND_RUN: &str = r#"mount -o loop "$1" "$2" && shift 2 && exec "$@""#;

/// A file with an empty file system.
fn make_disk(path: &Path) {
    fs::File::create(path).unwrap().set_len(128 * MIB).unwrap();
    run(command("mkfs.ext4").args(["-q", "-F"]).arg(path));
}

/// The digests that a disk has under final names, each hashed; a file that is not what it is called is told with a `!`,
/// unless its times say that it was never verified, so that it is before it is served.
fn blobs_on(disk: &Path, directory: &Path) -> Vec<String> {
    const LIST: &str = r#"mount -o loop "$1" "$2" && cd "$2" || exit 1
        find v1/blobs -type f 2>/dev/null | while read -r file; do
            echo "$(sha256sum <"$file" | cut -d' ' -f1) ${file##*/}"
        done"#;
    let mount = directory.join("look");
    fs::create_dir_all(&mount).unwrap();
    let listed = run(command_with_own_mounts("sh")
        .args(["-c", LIST, "sh"])
        .args([disk, &mount]));
    let digests = listed.lines().map(|line| {
        let (found, named) = line.split_once(' ').unwrap();
        assert_eq!(found, named, "wrong bytes under a final name");
        format!("sha256:{named}")
    });
    digests.collect()
}

#[test]
fn power_that_fails_at_any_moment_leaves_no_wrong_byte_and_takes_nothing_that_was_stored() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let layer = upstream.catalogue.oci.image.layers[0].clone();
    let gate = Gate::start(upstream.example().port(), layer.size / 2);
    let disk = directory.path().join("disk");
    make_disk(&disk);
    let cache = directory.path().join("cache");
    fs::create_dir(&cache).unwrap();
    let port = free_port();
    let mut runner = daemon_with_own_mounts("sh");
    runner
        .args(["-c", MOUNT_AND_RUN, "sh"])
        .args([&disk, &cache])
        .args([
            "env",
            "-i",
            "ENTREPOT_CONFIG_YAML=cache: { min_free: 0% }",
            BINARY,
        ])
        .arg(format!("--cache-dir={}", cache.display()))
        .arg(format!("--port={port}"))
        .args(upstream.flags_for_example_at(&gate.url()));
    let mut mirror = Mirror::started(&mut runner, directory.path(), port, cache);
    let snapshot = |name: &str| {
        let copy = directory.path().join(name);
        fs::copy(&disk, &copy).unwrap();
        let found = blobs_on(&copy, directory.path());
        fs::remove_file(copy).unwrap();
        found
    };
    let received = directory.path().join("received");
    std::thread::scope(|scope| {
        let url = format!(
            "{}/v2/team/oci/blobs/{}?ns={EXAMPLE}",
            mirror.url(),
            layer.digest
        );
        let client = scope.spawn(|| {
            run(command("curl")
                .args(["--silent", "--fail", "--output"])
                .arg(&received)
                .arg(url))
        });
        gate.wait_until_reached();
        assert_eq!(snapshot("middle"), Vec::<String>::new());
        gate.open();
        client.join().unwrap();
        assert_eq!(digest::of_file(&received), layer.digest);
        // Verified and sent, and perhaps not yet stored: it is there whole, or not at all.
        snapshot("sent");
    });
    mirror.wait_until_idle();
    assert_eq!(snapshot("stored"), [&*layer.digest]);
    mirror.kill();
}
