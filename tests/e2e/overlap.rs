//! Two mirrors on one directory, as while one takes over from the other.

use std::path::PathBuf;

use crate::harness::gate::Gate;
use crate::harness::mirror::Mirror;
use crate::harness::upstream::Upstream;

#[test]
fn two_mirrors_on_one_directory_do_not_harm_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let layer = &upstream.catalogue.oci.image.layers[0];
    let start = |gate: &Gate| {
        Mirror::start(
            directory.path(),
            &upstream.flags_for_example_at(&gate.url()),
        )
    };
    let gates = [0; 2].map(|_| Gate::start(upstream.example().port(), 4 << 20));
    let own = [0; 2].map(|_| tempfile::tempdir().unwrap());
    let fetch = |mirror: &Mirror, n: usize| mirror.fetch(own[n].path(), "team/oci", layer);

    let mut old = start(&gates[0]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| fetch(&old, 0));
        gates[0].wait_until_reached();
        // What passed the gate may still be on its way.
        old.wait_until(|old| old.ingest_files().len() == 1);
        let growing = old.ingest_files();

        let mut new = start(&gates[1]);
        assert_eq!(new.ingest_files(), growing, "it is in use");
        let second = scope.spawn(move || {
            let fetched = fetch(&new, 1);
            new.wait_until_idle();
            (new, fetched)
        });
        gates[1].wait_until_reached();
        old.wait_until(|old| old.ingest_files().len() == 2);
        for gate in &gates {
            gate.open();
        }
        assert_eq!(first.join().unwrap().as_ref(), Some(&layer.digest));
        let (mut new, fetched) = second.join().unwrap();
        assert_eq!(fetched.as_ref(), Some(&layer.digest));
        assert_eq!(new.stop().code(), Some(0));
    });
    old.wait_until_idle();
    assert_eq!(old.ingest_files(), Vec::<PathBuf>::new());
    assert_eq!(old.stored_blobs(), [&*layer.digest]);
    assert_eq!(fetch(&old, 0).as_ref(), Some(&layer.digest), "a hit");
    assert_eq!(old.stop().code(), Some(0));
}
