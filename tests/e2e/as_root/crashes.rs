//! A mirror that dies at any step of a fill: what it leaves is removed at the next start, and nothing of it is wrong.

use crate::harness::mirror::Mirror;
use crate::harness::strace::Faults;
use crate::harness::upstream::Upstream;

/// The steps of a fill, with the faults that make it take them.
const STEPS: [(&str, &[&str]); 6] = [
    ("openat,openat2", &[]),
    ("mkdirat", &[]),
    ("pwritev,pwritev2", &[]),
    ("fsync,fdatasync", &[]),
    ("renameat,renameat2", &[]),
    // A file is removed only when it could not be kept.
    ("unlinkat", &["fdatasync:error=EIO"]),
];

/// More calls of one kind than a fill makes on one thread.
const CALLS_MAX: usize = 30;

#[test]
fn a_kill_at_any_system_call_of_a_fill_leaves_nothing_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let layer = &upstream.catalogue.official.image.layers[0];
    let fetch = |mirror: &Mirror| mirror.fetch(directory.path(), "library/official", layer);
    let mut mirror = upstream.mirror(directory.path());
    for (step, faults) in STEPS {
        for n in 1.. {
            assert!(n <= CALLS_MAX, "no end of {step}");
            let kill = format!("{step}:signal=KILL:when={n}");
            let faults: Vec<&str> = faults.iter().copied().chain([&*kill]).collect();
            mirror.empty_cache();
            let injected = Faults::inject(directory.path(), mirror.pid(), &faults);
            let fetched = fetch(&mirror);
            assert!(
                fetched.is_none_or(|digest| digest == layer.digest),
                "{kill}"
            );
            let killed = mirror.wait_until_idle_or_ended();
            injected.end();
            // Whatever is there has the right bytes, or the list of it fails.
            mirror.stored_blobs();
            if !killed {
                assert!(n > 1, "{step} is no step of a fill");
                break;
            }
            mirror = upstream.mirror(directory.path());
            assert_eq!(
                mirror.ingest_files(),
                Vec::<std::path::PathBuf>::new(),
                "{kill}"
            );
            assert_eq!(fetch(&mirror).as_ref(), Some(&layer.digest), "{kill}");
            mirror.wait_until_idle();
            assert_eq!(mirror.stored_blobs(), [&*layer.digest], "{kill}");
        }
    }
}
