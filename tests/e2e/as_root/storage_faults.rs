//! A disk that is full, fails, or takes no more writes: whoever pulls gets exact bytes all the same, nothing is left
//! behind, and the mirror keeps what it gets as soon as it can again.

use std::path::Path;

use crate::harness::gate::Gate;
use crate::harness::images::Layer;
use crate::harness::mirror::Mirror;
use crate::harness::process::{command, outcome, run};
use crate::harness::registry::blob_bytes;
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
    // That there is no room for it is known beforehand, and no failure.
    assert_eq!(mirror.storage_errors(), 0);
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
        "openat,openat2:error=ENFILE",
        "openat,openat2:error=ENAMETOOLONG",
        "openat,openat2:error=EACCES",
        "openat,openat2:error=EPERM",
        "fallocate:error=EDQUOT",
        "pwritev,pwritev2:error=EIO:when=1",
        "pwritev,pwritev2:error=ENOSPC:when=3",
        "pwritev,pwritev2:error=EDQUOT:when=8+",
        "pwritev,pwritev2:error=EFBIG:when=2+",
        "fdatasync:error=EIO",
        "fdatasync:error=ENOSPC",
        "renameat,renameat2:error=EIO",
        "renameat,renameat2:error=EDQUOT",
        "renameat,renameat2:error=EROFS",
        "renameat,renameat2:error=EPERM",
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
fn a_stored_blob_whose_first_byte_cannot_be_read_is_fetched_anew() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let layer = large(&upstream);
    let mut mirror = upstream.mirror(directory.path());
    is_pulled(&mut mirror, directory.path(), &layer, true);
    let before = mirror.storage_errors();
    let injected = Faults::inject(directory.path(), mirror.pid(), &["pread64:error=EIO"]);
    is_pulled(&mut mirror, directory.path(), &layer, true);
    injected.end();
    assert!(mirror.storage_errors() > before);
    is_pulled(&mut mirror, directory.path(), &layer, true);
}

#[test]
fn a_stored_blob_that_cannot_be_read_in_the_middle_is_kept_no_longer() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let layer = large(&upstream);
    let mut mirror = upstream.mirror(directory.path());
    is_pulled(&mut mirror, directory.path(), &layer, true);
    upstream.restart();
    for fault in [
        "sendfile:error=EIO:when=2+",
        "sendfile:error=ESTALE:when=2+",
    ] {
        let before = mirror.storage_errors();
        let injected = Faults::inject(directory.path(), mirror.pid(), &[fault]);
        let fetched = mirror.fetch(directory.path(), layer.0, &layer.1);
        assert_eq!(fetched, None, "{fault}");
        mirror.wait_until(|mirror| mirror.stored_blobs().is_empty());
        injected.end();
        assert!(mirror.storage_errors() > before, "{fault}");
        mirror.wait_until(|mirror| mirror.log().contains(r#"end="unreadable""#));
        assert!(!mirror.log().contains(r#"end="cancelled""#), "{fault}");
        is_pulled(&mut mirror, directory.path(), &layer, true);
    }
    let asked = upstream.stop().example;
    assert_eq!(blob_bytes(&asked, &layer.1.digest), 2 * layer.1.size);
}

#[test]
fn a_process_without_descriptors_waits_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let layer = large(&upstream);
    let mut mirror = upstream.mirror(directory.path());
    is_pulled(&mut mirror, directory.path(), &layer, true);
    for error in ["EMFILE", "ENFILE", "ENOMEM"] {
        let fault = format!("accept,accept4:error={error}");
        let injected = Faults::inject(directory.path(), mirror.pid(), &[&fault]);
        let before = mirror.cpu_ticks();
        let url = format!("{}/livez", mirror.url());
        let unanswered = outcome(command("curl").args(["--silent", "--max-time", "1", &url]));
        assert!(!unanswered.status.success(), "{error}");
        let ticks = mirror.cpu_ticks() - before;
        assert!(
            ticks < 25,
            "{error}: {ticks} hundredths of a second in one second"
        );
        injected.end();
        is_pulled(&mut mirror, directory.path(), &layer, true);
    }
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
    // Whoever takes mirrors out for their disks takes out those that still answer.
    assert!(mirror.is_ready_and_alive());
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
