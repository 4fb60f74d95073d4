//! A disk that is full, fails, or takes no more writes: whoever pulls gets exact bytes all the same, nothing is left
//! behind, and the mirror keeps what it gets as soon as it can again.

use std::path::Path;

use crate::harness::gate::Gate;
use crate::harness::images::Layer;
use crate::harness::mirror::Mirror;
use crate::harness::process::{command, run};
use crate::harness::strace::Faults;
use crate::harness::upstream::Upstream;

const MIB: u64 = 1 << 20;

/// A layer of some MiB more than `small`, and where it is.
fn large(upstream: &Upstream) -> (&'static str, Layer) {
    ("team/oci", upstream.catalogue.oci.image.layers[0].clone())
}

/// A layer of one or two MiB, and where it is.
fn small(upstream: &Upstream) -> (&'static str, Layer) {
    let image = &upstream.catalogue.official.image;
    ("library/official", image.layers[0].clone())
}

/// `layer` comes exactly and is kept, or not; and nothing else is left.
fn is_pulled(mirror: &mut Mirror, directory: &Path, layer: &(&str, Layer), kept: bool) {
    let (repository, layer) = layer;
    let fetched = mirror.fetch(directory, repository, layer);
    assert_eq!(fetched.as_ref(), Some(&layer.digest));
    mirror.wait_until_idle();
    assert_eq!(mirror.ingest_files(), Vec::<std::path::PathBuf>::new());
    assert_eq!(mirror.stored_blobs().contains(&layer.digest), kept);
}

#[test]
fn a_blob_larger_than_the_disk_is_passed_through_and_smaller_ones_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let (large, small) = (large(&upstream), small(&upstream));
    let room = small.1.size + 4 * MIB;
    assert!(room < large.1.size);
    let mut mirror = Mirror::start_on_own_filesystem(directory.path(), &upstream.flags(), room);
    for _ in 0..2 {
        is_pulled(&mut mirror, directory.path(), &large, false);
    }
    assert!(mirror.storage_errors() > 0);
    is_pulled(&mut mirror, directory.path(), &small, true);
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_blob_stops_no_download() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let (repository, layer) = large(&upstream);
    let gate = Gate::start(upstream.example().port(), 4 * MIB);
    let flags = upstream.flags_for_example_at(&gate.url());
    // So little that no room is set aside for the blob beforehand.
    let room = layer.size * 3 / 2;
    let mut mirror = Mirror::start_on_own_filesystem(directory.path(), &flags, room);
    let ballast = mirror.cache().join("ballast");
    std::thread::scope(|scope| {
        let client = scope.spawn(|| mirror.fetch(directory.path(), repository, &layer));
        gate.wait_until_reached();
        run(command("sh")
            .args(["-c", r#"cat /dev/zero >"$1" 2>/dev/null || true"#, "sh"])
            .arg(&ballast));
        gate.open();
        assert_eq!(client.join().unwrap().as_ref(), Some(&layer.digest));
    });
    mirror.wait_until_idle();
    assert!(mirror.storage_errors() > 0);
    assert_eq!(mirror.ingest_files(), Vec::<std::path::PathBuf>::new());
    std::fs::remove_file(&ballast).unwrap();
    is_pulled(&mut mirror, directory.path(), &(repository, layer), true);
}

#[test]
fn a_disk_that_fails_at_any_step_stops_no_download() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let layer = large(&upstream);
    let mut mirror = upstream.mirror(directory.path());
    let faults = [
        "openat,openat2:error=ENOSPC",
        "openat,openat2:error=EMFILE",
        "fallocate:error=EDQUOT",
        "pwritev,pwritev2:error=EIO:when=1",
        "pwritev,pwritev2:error=ENOSPC:when=3",
        "pwritev,pwritev2:error=EDQUOT:when=8+",
        "fdatasync:error=EIO",
        "fdatasync:error=ENOSPC",
        "renameat,renameat2:error=EIO",
        "renameat,renameat2:error=EDQUOT",
    ];
    for fault in faults {
        let before = mirror.storage_errors();
        let injected = Faults::inject(directory.path(), mirror.pid(), &[fault]);
        is_pulled(&mut mirror, directory.path(), &layer, false);
        injected.end();
        assert!(mirror.storage_errors() > before, "{fault}");
        is_pulled(&mut mirror, directory.path(), &layer, true);
        mirror.empty_cache();
    }
}

#[test]
fn a_directory_that_cannot_be_made_durable_stops_no_download() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let (repository, layer) = small(&upstream);
    let mut mirror = upstream.mirror(directory.path());
    let injected = Faults::inject(directory.path(), mirror.pid(), &["fsync:error=EIO"]);
    let fetched = mirror.fetch(directory.path(), repository, &layer);
    assert_eq!(fetched.as_ref(), Some(&layer.digest));
    mirror.wait_until_idle();
    injected.end();
    assert!(mirror.storage_errors() > 0);
    is_pulled(&mut mirror, directory.path(), &(repository, layer), true);
}

#[test]
fn a_stored_blob_that_cannot_be_read_is_never_taken_for_whole() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let (repository, layer) = large(&upstream);
    let mut mirror = upstream.mirror(directory.path());
    let layer = (repository, layer);
    is_pulled(&mut mirror, directory.path(), &layer, true);
    for when in ["1+", "2+"] {
        let fault = format!("sendfile,pread64:error=EIO:when={when}");
        let injected = Faults::inject(directory.path(), mirror.pid(), &[&fault]);
        let fetched = mirror.fetch(directory.path(), repository, &layer.1);
        assert!(fetched.is_none_or(|digest| digest == layer.1.digest));
        injected.end();
    }
    is_pulled(&mut mirror, directory.path(), &layer, true);
}

#[test]
fn a_disk_that_turns_read_only_costs_misses_until_it_takes_writes_again() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let (first, second) = (large(&upstream), small(&upstream));
    let room = 4 * first.1.size;
    let mut mirror = Mirror::start_on_own_filesystem(directory.path(), &upstream.flags(), room);
    is_pulled(&mut mirror, directory.path(), &first, true);
    remount(&mirror, directory.path(), "ro");
    is_pulled(&mut mirror, directory.path(), &first, true);
    is_pulled(&mut mirror, directory.path(), &second, false);
    assert!(mirror.storage_errors() > 0);
    remount(&mirror, directory.path(), "rw");
    is_pulled(&mut mirror, directory.path(), &second, true);
}

/// Changes how the cache's own filesystem is mounted.
fn remount(mirror: &Mirror, directory: &Path, how: &str) {
    run(command("nsenter")
        .args(["--mount", &format!("--target={}", mirror.pid())])
        .args(["mount", "-o", &format!("remount,{how}")])
        .arg(directory.join("cache")));
}
