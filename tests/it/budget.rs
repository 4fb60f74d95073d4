//! The cache stays within its budget, whatever is pulled through it and whatever strangers delete.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;

use crate::harness::client::Request;
use crate::harness::content::{KIB, MIB, bytes, sha256};
use crate::harness::gate::Gate;
use crate::harness::mirror::Mirror;
use crate::harness::upstream::Body;
use crate::harness::world::World;

fn target(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

async fn world(max_size: usize) -> World {
    World::with(|setup| setup.max_size(max_size)).await
}

/// The value of a metric without labels, or with the labels in `name`.
async fn metric(mirror: &Mirror, name: &str) -> u64 {
    let text = mirror.metrics().await;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.map_or("0", str::trim);
    value
        .parse()
        .unwrap_or_else(|_| panic!("{name} is a number: {value}"))
}

async fn wait_for_metric(mirror: &Mirror, name: &str, expected: u64) {
    while metric(mirror, name).await != expected {
        tokio::task::yield_now().await;
    }
}

/// Waits until no fill is under way, and everything that goes on behind one is done.
async fn wait_until_quiet(mirror: &Mirror) {
    wait_for_metric(mirror, "entrepot_inflight_fills ", 0).await;
}

/// How long a [`Watch`] waits between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// All files below a directory, with their sizes in bytes.
fn files_below(directory: &Path, found: &mut BTreeMap<PathBuf, u64>) {
    // A directory or a file may go while it is looked at.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => files_below(&entry.path(), found),
            Ok(metadata) => {
                found.insert(entry.path(), metadata.len());
            }
            Err(_) => {}
        }
    }
}

/// What all files below a directory have together, in bytes.
fn bytes_below(directory: &Path) -> u64 {
    let mut files = BTreeMap::new();
    files_below(directory, &mut files);
    files.values().sum()
}

/// The most that was ever seen in a directory, in bytes, while this lives.
struct Watch {
    stop: mpsc::Sender<()>,
    watching: thread::JoinHandle<[u64; 2]>,
}

impl Watch {
    /// Watches what is stored and what is on its way.
    fn start(directory: &Path) -> Self {
        let (stop, stopped) = mpsc::channel();
        let directory = directory.to_owned();
        let watching = thread::spawn(move || {
            let (mut most, mut before) = ([0; 2], BTreeMap::new());
            // It looks as often as leaves the processor to those it looks at.
            while stopped.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                let mut files = BTreeMap::new();
                files_below(&directory, &mut files);
                // A look takes its time; only what the next one finds again was there at one moment.
                if files == before {
                    for (most, part) in most.iter_mut().zip(["v1/blobs", "v1/ingest"]) {
                        let part = directory.join(part);
                        let below = files.iter().filter(|(path, _)| path.starts_with(&part));
                        *most = below.map(|(_, bytes)| bytes).sum::<u64>().max(*most);
                    }
                }
                before = files;
            }
            most
        });
        Self { stop, watching }
    }

    fn end(self) -> [u64; 2] {
        drop(self.stop);
        self.watching.join().expect("it watches")
    }
}

/// Deletes every third file below a directory.
fn delete_some(directory: &Path, n: &Cell<usize>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            delete_some(&path, n);
        } else {
            n.set(n.get() + 1);
            if n.get().is_multiple_of(3) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// F31.
#[tokio::test]
async fn twenty_clients_pull_a_set_five_times_the_budget() {
    const BUDGET: usize = 5 * MIB;
    const BLOBS: u64 = 25;
    const PULLS: usize = 5;
    let world = world(BUDGET).await;
    let contents: Vec<Bytes> = (0..BLOBS).map(|seed| bytes(seed, MIB)).collect();
    let put = |content: &Bytes| target(&world.upstream.put_blob("team/app", content.clone()));
    let targets: Vec<String> = contents.iter().map(put).collect();
    let directory = world.mirror.directory.path().to_owned();
    let watch = Watch::start(&directory);
    let n_pulls = Cell::new(0_usize);
    let client = |seed: u64| {
        let (world, contents, targets) = (&world, &contents, &targets);
        let (n_pulls, directory) = (&n_pulls, &directory);
        async move {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..PULLS {
                // Popular ones and others, as in life.
                let at = random
                    .usize(0..contents.len())
                    .min(random.usize(0..contents.len()));
                let answer = world.mirror.get(&targets[at]).await;
                assert_eq!(answer.expect(200), contents[at]);
                // Time passes, or everything would be too young to go.
                world.mirror.clock.advance(10);
                n_pulls.set(n_pulls.get() + 1);
                if n_pulls.get().is_multiple_of(30) {
                    delete_some(directory, &Cell::new(0));
                }
            }
        }
    };
    join_all((0..20).map(client)).await;
    wait_until_quiet(&world.mirror).await;
    let [stored, on_the_way] = watch.end();
    eprintln!("at most {stored} bytes were stored and {on_the_way} on their way, of {BUDGET}");
    assert!(stored <= BUDGET as u64, "{stored} were stored");
    assert!(
        stored + on_the_way <= 2 * BUDGET as u64,
        "{on_the_way} were on their way"
    );
    let evicted = metric(
        &world.mirror,
        "entrepot_cache_evicted_total{reason=\"max_size\"} ",
    )
    .await;
    assert!(evicted > 0, "something had to go");
    assert!(metric(&world.mirror, "entrepot_cache_bytes ").await <= BUDGET as u64);
}

/// F33.
#[tokio::test]
async fn what_was_stored_lately_stays_and_what_is_not_kept_is_served() {
    let world = world(MIB).await;
    let contents = [bytes(1, 700 * KIB), bytes(2, 700 * KIB)];
    let [first, second] = contents
        .clone()
        .map(|content| world.upstream.put_blob("team/app", content));
    let get = async |digest: &str, content: &Bytes| {
        let answer = world.mirror.get(&target(digest)).await;
        assert_eq!(answer.expect(200), content);
        wait_until_quiet(&world.mirror).await;
    };
    get(&first, &contents[0]).await;
    get(&second, &contents[1]).await;
    assert!(world.mirror.has(&first) && !world.mirror.has(&second));
    world.mirror.clock.advance(61);
    get(&second, &contents[1]).await;
    assert!(!world.mirror.has(&first) && world.mirror.has(&second));
}

/// F33.
#[tokio::test]
async fn clients_of_a_blob_that_is_not_kept_share_its_fill() {
    let world = world(MIB).await;
    let kept = world.upstream.put_blob("team/app", bytes(1, 700 * KIB));
    world.mirror.get(&target(&kept)).await.expect(200);
    wait_until_quiet(&world.mirror).await;
    let content = bytes(2, 700 * KIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(500 * KIB, &gate);
    let digest = world.upstream.put_blob("team/app", body);
    let target = target(&digest);
    let pulls = join_all((0..5).map(|_| world.mirror.get(&target)));
    let open = async {
        gate.reached().await;
        gate.open();
    };
    for answer in tokio::join!(pulls, open).0 {
        assert_eq!(answer.expect(200), content);
    }
    assert_eq!(world.upstream.requests("GET", &target).len(), 1);
    wait_until_quiet(&world.mirror).await;
    assert!(world.mirror.has(&kept) && !world.mirror.has(&digest));
}

/// F33.
#[tokio::test]
async fn a_blob_larger_than_the_budget_passes_through() {
    let world = world(MIB).await;
    let small = world.upstream.put_blob("team/app", bytes(1, 500 * KIB));
    world.mirror.get(&target(&small)).await.expect(200);
    wait_until_quiet(&world.mirror).await;
    world.mirror.clock.advance(3600);
    let content = bytes(2, 2 * MIB);
    let large = world.upstream.put_blob("team/app", content.clone());
    for _ in 0..2 {
        let answer = world.mirror.get(&target(&large)).await;
        let status = answer.header("Cache-Status").map(str::to_owned);
        assert_eq!(
            status.as_deref(),
            Some("entrepot; fwd=bypass; detail=no-room")
        );
        assert_eq!(answer.expect(200), content);
    }
    assert!(
        world.mirror.has(&small),
        "nothing goes for what does not fit anyway"
    );
    assert!(!world.mirror.has(&large));
    assert_eq!(
        bytes_below(&world.mirror.directory.path().join("v1/ingest")),
        0
    );
}

/// F31.
#[tokio::test]
async fn a_reader_of_an_evicted_blob_reads_it_to_its_end() {
    let world = world(10 * MIB).await;
    let content = bytes(1, 8 * MIB);
    let digest = world.upstream.put_blob("team/app", content.clone());
    world.mirror.get(&target(&digest)).await.expect(200);
    wait_until_quiet(&world.mirror).await;
    let mut pull = Request::get(&target(&digest))
        .open(world.mirror.address)
        .await;
    let first = pull.read(1000).await;
    world.mirror.clock.advance(61);
    let other = world.upstream.put_blob("team/app", bytes(2, 8 * MIB));
    world.mirror.get(&target(&other)).await.expect(200);
    wait_until_quiet(&world.mirror).await;
    assert!(!world.mirror.has(&digest), "it had to go");
    let rest = pull.finish().await.expect(200);
    assert_eq!([first, rest].concat(), content);
    world.mirror.clock.advance(61);
    assert_eq!(
        world.mirror.get(&target(&digest)).await.expect(200),
        content
    );
}

/// Lets a stored blob be last used so long ago.
fn age(mirror: &Mirror, digest: &str, by: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the time of the file system is the system's"
    )]
    let then = SystemTime::now() - by;
    let file = fs::File::open(mirror.path_of(digest)).expect("it is stored");
    file.set_times(FileTimes::new().set_accessed(then))
        .expect("it is ours");
}

#[tokio::test]
async fn what_was_used_last_survives_a_restart() {
    let mut world = world(5 * MIB).await;
    let digests: Vec<String> = (0..4)
        .map(|seed| world.upstream.put_blob("team/app", bytes(seed, MIB)))
        .collect();
    for digest in &digests {
        world.mirror.get(&target(digest)).await.expect(200);
        world.mirror.wait_until_stored(digest).await;
    }
    world.mirror.stop().await;
    for (n, digest) in (1..).zip(&digests) {
        age(&world.mirror, digest, Duration::from_hours(n));
    }
    let mirror = world.mirror.start_again().await;
    wait_for_metric(&mirror, "entrepot_cache_objects{kind=\"blob\"} ", 4).await;
    // The last one, which nobody has used for longest, is used now; and that is remembered on disk.
    mirror.get(&target(&digests[3])).await.expect(200);
    let used = fs::metadata(mirror.path_of(&digests[3])).expect("it is stored");
    let used = used
        .accessed()
        .expect("a time")
        .elapsed()
        .expect("not in the future");
    assert!(used < Duration::from_mins(1), "{used:?}");
    let more = world.upstream.put_blob("team/app", bytes(9, 2 * MIB));
    mirror.get(&target(&more)).await.expect(200);
    wait_until_quiet(&mirror).await;
    assert!(!mirror.has(&digests[2]), "this one was used least lately");
    assert!(mirror.has(&digests[3]) && mirror.has(&more));
}

#[tokio::test]
async fn a_cache_that_is_too_large_at_the_start_is_made_smaller() {
    let mut large = world(10 * MIB).await;
    let digests: Vec<String> = (0..8)
        .map(|seed| large.upstream.put_blob("team/app", bytes(seed, MIB)))
        .collect();
    for digest in &digests {
        large.mirror.get(&target(digest)).await.expect(200);
        large.mirror.wait_until_stored(digest).await;
        age(&large.mirror, digest, Duration::from_hours(1));
    }
    large.mirror.stop().await;
    let setup = crate::harness::mirror::Setup::new().max_size(4 * MIB);
    let setup = setup.upstream(crate::harness::world::REGISTRY, &large.upstream);
    let mirror = setup.start_on(Arc::clone(&large.mirror.directory)).await;
    // Down to the low water, nine tenths.
    wait_for_metric(&mirror, "entrepot_cache_objects{kind=\"blob\"} ", 3).await;
    assert_eq!(
        bytes_below(&mirror.directory.path().join("v1/blobs")),
        3 * MIB as u64
    );
}

#[tokio::test]
async fn what_a_stranger_deletes_makes_room() {
    let world = world(4 * MIB).await;
    let digests: Vec<String> = (0..4)
        .map(|seed| world.upstream.put_blob("team/app", bytes(seed, MIB)))
        .collect();
    for digest in &digests[..3] {
        world.mirror.get(&target(digest)).await.expect(200);
        wait_until_quiet(&world.mirror).await;
        fs::remove_file(world.mirror.path_of(digest)).expect("it is stored");
        // Asked for again, it is a miss, and counts once.
        world.mirror.get(&target(digest)).await.expect(200);
        wait_until_quiet(&world.mirror).await;
    }
    assert_eq!(
        metric(&world.mirror, "entrepot_cache_bytes ").await,
        3 * MIB as u64
    );
    assert_eq!(
        metric(
            &world.mirror,
            "entrepot_cache_evicted_total{reason=\"max_size\"} "
        )
        .await,
        0
    );
}

/// F34.
#[tokio::test]
async fn a_clock_that_jumps_keeps_nothing_for_ever() {
    const YEAR: i64 = 365 * 24 * 3600;
    let world = world(2 * MIB).await;
    let digests: Vec<String> = (0..3)
        .map(|seed| {
            world
                .upstream
                .put_blob("team/app", bytes(seed, 3 * MIB / 2))
        })
        .collect();
    // A year ahead, and back again.
    world.mirror.clock.advance(YEAR);
    world.mirror.get(&target(&digests[0])).await.expect(200);
    wait_until_quiet(&world.mirror).await;
    world.mirror.clock.advance(-YEAR);
    for digest in &digests[1..] {
        world.mirror.get(&target(digest)).await.expect(200);
        wait_until_quiet(&world.mirror).await;
        assert!(world.mirror.has(digest));
        world.mirror.clock.advance(61);
    }
    assert_eq!(sha256(&bytes(0, 3 * MIB / 2)), digests[0]);
    assert!(!world.mirror.has(&digests[0]));
}
