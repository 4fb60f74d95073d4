//! What a mirror leaves behind when it is killed or asked to end, and what becomes of it when its cache is taken away.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::digest;
use crate::harness::gate::Gate;
use crate::harness::images::Layer;
use crate::harness::mirror::Mirror;
use crate::harness::process::{Daemon, command, outcome, run};
use crate::harness::upstream::{EXAMPLE, Upstream};
use crate::skopeo;

/// A mirror whose upstream stops in the middle of the large layer, and a client that is waiting for the rest.
struct Interrupted {
    gate: Gate,
    mirror: Mirror,
    client: Daemon,
    received: PathBuf,
}

impl Interrupted {
    /// Starts the download and waits until `upstream_bytes` have come.
    fn start(directory: &Path, upstream: &Upstream, upstream_bytes: u64) -> Self {
        let gate = Gate::start(upstream.example().port(), upstream_bytes);
        let mirror = Mirror::start(directory, &upstream.flags_for_example_at(&gate.url()));
        let received = directory.join("received");
        let layer = &upstream.catalogue.large.image.layers[0];
        let client = Daemon::start(
            "client",
            command("curl")
                .args(["--silent", "--show-error", "--fail", "--output"])
                .arg(&received)
                .arg(layer_url(&mirror, layer)),
            directory,
        );
        gate.wait_until_reached();
        Self {
            gate,
            mirror,
            client,
            received,
        }
    }
}

fn layer_url(mirror: &Mirror, layer: &Layer) -> String {
    format!(
        "{}/v2/team/large/blobs/{}?ns={EXAMPLE}",
        mirror.url(),
        layer.digest
    )
}

#[test]
fn a_kill_during_a_fill_leaves_no_wrong_byte_and_the_next_pull_works() {
    let layer_bytes = 304 << 20;
    // At its beginning, in its middle, and when only what TLS adds is missing.
    for upstream_bytes in [2 << 20, layer_bytes / 2, layer_bytes] {
        let directory = tempfile::tempdir().unwrap();
        let upstream = Upstream::start(directory.path());
        let layer = &upstream.catalogue.large.image.layers[0];
        let mut interrupted = Interrupted::start(directory.path(), &upstream, upstream_bytes);
        interrupted.mirror.kill();
        assert_eq!(interrupted.mirror.stored_blobs(), Vec::<String>::new());
        interrupted.gate.open();

        let restarted = upstream.mirror(directory.path());
        let again = directory.path().join("again");
        run(command("curl")
            .args(["--silent", "--show-error", "--fail", "--output"])
            .arg(&again)
            .arg(layer_url(&restarted, layer)));
        assert_eq!(digest::of_file(&again), layer.digest);
        restarted.wait_until(|mirror| mirror.stored_blobs() == [layer.digest.as_str()]);
    }
}

#[test]
fn sigterm_lets_a_running_download_finish() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let layer = &upstream.catalogue.large.image.layers[0];
    let mut interrupted = Interrupted::start(directory.path(), &upstream, 8 << 20);

    interrupted.mirror.ask_to_stop();
    interrupted.gate.open();
    assert!(interrupted.client.wait().success());
    assert_eq!(digest::of_file(&interrupted.received), layer.digest);
    assert_eq!(interrupted.mirror.stop().code(), Some(0));
}

#[test]
fn a_restarted_mirror_serves_what_it_had_with_the_upstream_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let catalogue = upstream.catalogue.clone();
    let pull = |mirror: &Mirror| {
        let target = tempfile::tempdir_in(directory.path()).unwrap();
        skopeo::copy(
            &format!("{}/{EXAMPLE}/{}", mirror.host(), catalogue.oci.name),
            target.path(),
        );
        skopeo::assert_image(target.path(), &catalogue.oci.image);
    };
    let mut first = upstream.mirror(directory.path());
    pull(&first);
    first.stop();
    upstream.stop();
    pull(&upstream.mirror(directory.path()));
}

#[test]
fn a_cache_emptied_by_hand_costs_misses_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let tagged = &upstream.catalogue.docker;
    for _ in 0..2 {
        let target = tempfile::tempdir_in(directory.path()).unwrap();
        skopeo::copy(
            &format!("{}/{EXAMPLE}/{}", mirror.host(), tagged.name),
            target.path(),
        );
        skopeo::assert_image(target.path(), &tagged.image);
        assert_ne!(mirror.stored_blobs(), Vec::<String>::new());
        mirror.empty_cache();
    }
}

#[test]
fn a_cache_that_is_emptied_again_and_again_during_pulls_recovers_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let mut mirror = upstream.mirror(directory.path());
    let tagged = upstream.catalogue.docker.clone();
    let pull = |mirror: &Mirror| {
        let target = tempfile::tempdir_in(directory.path()).unwrap();
        let name = format!("{}/{EXAMPLE}/{}", mirror.host(), tagged.name);
        skopeo::copy(&name, target.path());
        skopeo::assert_image(target.path(), &tagged.image);
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let emptying = scope.spawn(|| {
            let mut n_times = 0;
            while !is_over.load(Ordering::Relaxed) {
                // What comes while it goes through makes it fail, which is none of the mirror's business.
                outcome(
                    command("find")
                        .arg(mirror.cache())
                        .args(["-mindepth", "1", "-delete"]),
                );
                n_times += 1;
            }
            n_times
        });
        for _ in 0..4 {
            pull(&mirror);
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(emptying.join().unwrap() > 4);
    });
    mirror.empty_cache();
    pull(&mirror);
    mirror.wait_until_idle();
    let n_blobs = tagged.image.blobs().count();
    mirror.wait_until(|mirror| mirror.stored_blobs().len() >= n_blobs);
    upstream.stop();
    pull(&mirror);
}
