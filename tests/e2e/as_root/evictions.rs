//! A mirror that dies at any step of an eviction, and one whose disk a stranger fills.

use std::fs;
use std::path::Path;

use crate::harness::digest;
use crate::harness::images::Layer;
use crate::harness::mirror::Mirror;
use crate::harness::process::{command, run};
use crate::harness::strace::Faults;
use crate::harness::upstream::Upstream;

const MIB: u64 = 1 << 20;

/// How many old blobs there are, of a MiB each.
const N_OLD: u8 = 6;

/// The steps of an eviction, and of the fill that it makes room for.
const STEPS: [&str; 4] = [
    "unlinkat",
    "openat,openat2",
    "fsync,fdatasync",
    "renameat,renameat2",
];

/// More calls of one kind than both make on one thread.
const CALLS_MAX: usize = 40;

/// Blobs that nobody has used for years, in a cache that may be in use.
fn put_old_blobs(cache: &Path) {
    for n in 0..N_OLD {
        let content = vec![n; usize::try_from(MIB).unwrap()];
        let named = digest::of_bytes(&content);
        let hex = digest::hex(&named);
        let shard = cache.join("v1/blobs/sha256").join(&hex[..2]);
        fs::create_dir_all(&shard).unwrap();
        fs::write(shard.join(hex), content).unwrap();
    }
    age(cache);
}

/// Makes all blobs ones that nobody has used for years. Whoever looked at them used them as far as the kernel knows.
fn age(cache: &Path) {
    run(command("find").arg(cache.join("v1/blobs")).args([
        "-type",
        "f",
        "-exec",
        "touch",
        "-a",
        "-d",
        "1970-01-12",
        "{}",
        "+",
    ]));
}

/// Bytes under final names.
fn stored_bytes(mirror: &Mirror) -> u64 {
    let blobs = mirror.cache().join("v1/blobs");
    let sizes = run(command("find")
        .arg(blobs)
        .args(["-type", "f", "-printf", "%s\n"]));
    sizes.lines().map(|size| size.parse::<u64>().unwrap()).sum()
}

/// The flags of a mirror whose cache is configured with `keys`.
fn flags(directory: &Path, upstream: &Upstream, keys: &str) -> Vec<String> {
    let file = directory.join("entrepot.yaml");
    fs::write(&file, format!("cache: {{ {keys} }}\n")).unwrap();
    let mut flags = upstream.flags();
    flags.push(format!("--config={}", file.display()));
    flags
}

#[test]
fn a_kill_at_any_system_call_of_an_eviction_leaves_nothing_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let layer: &Layer = &upstream.catalogue.official.image.layers[0];
    // The old ones fit, and two or three of them have to go for one more.
    let max_size = u64::from(N_OLD) * MIB + MIB / 2;
    let keys = format!("min_free: 0%, max_size: {max_size}B");
    let flags = flags(directory.path(), &upstream, &keys);
    let cache = directory.path().join("cache");
    let fetch = |mirror: &Mirror| mirror.fetch(directory.path(), "library/official", layer);
    let known = format!("entrepot_cache_objects{{kind=\"blob\"}} {N_OLD}");
    // The mirror looks through what it starts on, so every round begins with a start.
    let start = || {
        if cache.exists() {
            fs::remove_dir_all(&cache).unwrap();
        }
        put_old_blobs(&cache);
        let mut mirror = Mirror::start(directory.path(), &flags);
        mirror.wait_for_metric(&known);
        mirror
    };
    for step in STEPS {
        for n in 1.. {
            assert!(n <= CALLS_MAX, "no end of {step}");
            let mut mirror = start();
            let kill = format!("{step}:signal=KILL:when={n}");
            let injected = Faults::inject(directory.path(), mirror.pid(), &[&kill]);
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
                assert!(n > 1, "{step} is no step of an eviction");
                break;
            }
            age(&cache);
            let mut mirror = Mirror::start(directory.path(), &flags);
            assert_eq!(
                mirror.ingest_files(),
                Vec::<std::path::PathBuf>::new(),
                "{kill}"
            );
            assert_eq!(fetch(&mirror).as_ref(), Some(&layer.digest), "{kill}");
            mirror.wait_until_idle();
            mirror.wait_until(|mirror| stored_bytes(mirror) <= max_size);
            assert!(mirror.stored_blobs().contains(&layer.digest), "{kill}");
        }
    }
}

#[test]
fn a_disk_that_a_stranger_fills_is_given_way_to() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let oci = upstream.catalogue.oci.image.layers[0].clone();
    let official = upstream.catalogue.official.image.layers[0].clone();
    let room = 4 * oci.size;
    let keys = "max_size: 100%, min_free: 25%";
    let flags = flags(directory.path(), &upstream, keys);
    let mut mirror = Mirror::start_on_own_filesystem(directory.path(), &flags, room);
    let pulled = |mirror: &mut Mirror, repository: &str, layer: &Layer, is_kept: bool| {
        let fetched = mirror.fetch(directory.path(), repository, layer);
        assert_eq!(fetched.as_ref(), Some(&layer.digest));
        mirror.wait_until_idle();
        assert_eq!(mirror.stored_blobs().contains(&layer.digest), is_kept);
    };
    pulled(&mut mirror, "library/official", &official, true);
    // Of four quarters the stranger takes three and a half: what was pulled just now stays, and nothing is added.
    let ballast = mirror.cache().join("ballast");
    fs::write(
        &ballast,
        vec![1; usize::try_from(room / 8 * 7 - official.size).unwrap()],
    )
    .unwrap();
    pulled(&mut mirror, "team/oci", &oci, false);
    assert!(mirror.log().contains("cache.min_free"), "{}", mirror.log());
    assert_eq!(mirror.storage_errors(), 0, "it is no failure");
    fs::remove_file(&ballast).unwrap();
    pulled(&mut mirror, "team/oci", &oci, true);
}
