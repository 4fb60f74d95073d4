//! Thousands of clients that are only in the way, and one that wants something.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::harness::crowd::{Idle, Slow};
use crate::harness::digest;
use crate::harness::mirror::Mirror;
use crate::harness::numbers::{NumberedImage, Numbers};
use crate::harness::upstream::EXAMPLE;

/// Clients that rest, where there are descriptors enough.
const IDLE_MAX: usize = 10_000;

/// Clients that drip heads, and as many that read slowly.
const SLOW: usize = 1000;

/// Descriptors of the mirror for each of its connections: with fewer it takes fewer.
const DESCRIPTORS_EACH: u64 = 3;

/// Connections that are left for who wants something, and for one of each slow client that is being closed.
const SPARE: usize = SLOW + 100;

/// Memory of a connection, in bytes: two buffers of hyper, of 8 KiB each at first, and half of that once more for the
/// states of the connection and its task, its headers and its timer; a quarter is air. What is read slowly adds nothing:
/// it does not come through the process.
const CONNECTION_BYTES_MAX: u64 = 32 << 10;

/// Memory of a connection that is being closed, beside that: what still comes is read into it, and thrown away.
const CLOSING_BYTES: u64 = 16 << 10;

/// The layer that is read slowly. More than the kernel holds on its way, for each.
const LAYER_BYTES: u64 = 32 << 20;

/// How many requests are timed in a row, and how many such rows there are: the median of their 99th percentiles is not
/// that of what else this machine does.
const ROW: usize = 300;
const ROWS: usize = 5;

/// How often that is tried.
const TRIES: usize = 3;

/// What is no delay: a time slice, for which whoever wakes up waits behind anything else that this machine does.
const NOISE: Duration = Duration::from_millis(4);

/// Within this of its time limit a head is given up: the crowd looks once a second.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT_SEEN: Duration = Duration::from_secs(13);

/// Attempts to accept without descriptors after which it has to be clear that it pauses, and how long the pauses before
/// the last of them take: 5 ms, and twice as long each time.
const ATTEMPTS: u64 = 9;
const PAUSES: Duration = Duration::from_millis(5 * ((1 << (ATTEMPTS - 1)) - 1));

/// The 99th percentile of the time that a client of its own takes for a manifest by tag, connecting included.
fn healthy(mirror: &Mirror, image: &NumberedImage) -> Duration {
    let tag = &image.tag;
    let request = format!(
        "GET /v2/numbers/manifests/{tag}?ns={EXAMPLE} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n"
    );
    let one = || {
        let start = Instant::now();
        let mut stream = TcpStream::connect(mirror.host()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(&image.manifest), "{answer}");
        start.elapsed()
    };
    let row = |_| {
        let mut times: Vec<_> = (0..ROW).map(|_| one()).collect();
        times.sort();
        times[ROW * 99 / 100]
    };
    let mut rows: Vec<_> = (0..ROWS).map(row).collect();
    rows.sort();
    rows[ROWS / 2]
}

/// The same, once more where it is more than `most`: this machine has other things to do now and then, and what the mirror
/// is slow at stays.
fn healthy_within(most: Duration, mirror: &Mirror, image: &NumberedImage) -> Duration {
    let mut times = (0..TRIES).map(|_| healthy(mirror, image));
    let first = times.next().unwrap();
    if first < most {
        return first;
    }
    times.find(|time| *time < most).unwrap_or(first)
}

/// Lets this process, and whatever it starts, have as many descriptors as it may. Gives how many that is.
fn raise_descriptors() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    maximum.unwrap_or(u64::MAX)
}

/// Lets the mirror have so many descriptors from now on, without taking any away.
fn limit_descriptors(mirror: &Mirror, n: u64) {
    let pid = Pid::from_raw(mirror.pid().try_into().unwrap());
    let limit = Rlimit {
        current: Some(n),
        ..getrlimit(Resource::Nofile)
    };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

/// How often accepting failed for want of descriptors, as one of those knows who are connected.
fn without_descriptors(idle: &mut Idle) -> u64 {
    let page = idle.ask("/metrics");
    let line = r#"entrepot_accept_errors_total{reason="descriptors"} "#;
    let count = page.lines().find_map(|it| it.strip_prefix(line));
    count.map_or(0, |count| count.parse().unwrap())
}

fn connections(mirror: &Mirror) -> usize {
    let page = mirror.metrics();
    let mut lines = page.lines();
    let count = lines.find_map(|line| line.strip_prefix("entrepot_connections "));
    count.unwrap().parse().unwrap()
}

#[test]
fn whoever_rests_drips_and_dawdles_costs_the_others_nothing() {
    let descriptors = raise_descriptors();
    let room = usize::try_from(descriptors / DESCRIPTORS_EACH).unwrap();
    let n_idle = IDLE_MAX.min(room - 2 * SLOW - SPARE);
    let directory = tempfile::tempdir().unwrap();
    let upstream = Numbers::start(1, LAYER_BYTES);
    let image = &upstream.images()[0];
    let flags = [
        format!("--upstream={EXAMPLE}={}", upstream.url()),
        "--log-level=warn".to_owned(),
    ];
    let mut mirror = Mirror::start(directory.path(), &flags);
    let layer = format!("/v2/numbers/blobs/{}?ns={EXAMPLE}", image.layer_digest);
    let pull = |mirror: &Mirror| {
        let mut stream = TcpStream::connect(mirror.host()).unwrap();
        let request = format!("GET {layer} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(digest::of_bytes(&answer[head..]), image.layer_digest);
    };
    pull(&mirror);
    mirror.wait_until_idle();
    let started = Instant::now();
    let told = |what: String| eprintln!("{:6.1} s  {what}", started.elapsed().as_secs_f64());

    // The first time, everything is done for the first time.
    let alone = healthy(&mirror, image).min(healthy(&mirror, image));
    let most = 2 * alone.max(NOISE);
    told(format!("{alone:?} alone"));

    let memory = mirror.memory("VmRSS");
    let mut idle = Idle::come(mirror.port(), n_idle);
    let resting = mirror.memory("VmRSS") - memory;
    let each = resting / n_idle as u64;
    told(format!("{n_idle} rest, at {each} bytes each"));
    assert!(each <= CONNECTION_BYTES_MAX, "{each} bytes each");

    let slow = Slow::come(mirror.port(), SLOW, &layer);
    mirror.wait_until(|mirror| connections(mirror) > n_idle + 2 * SLOW);
    let beside = healthy_within(most, &mirror, image);
    told(format!(
        "{beside:?} beside {SLOW} that drip and {SLOW} that dawdle"
    ));
    mirror.wait_until(|_| slow.closed() >= SLOW);
    let still = healthy_within(most, &mirror, image);
    let (shortest, longest) = slow.waits();
    told(format!(
        "{still:?} when they come again, after {shortest:?} to {longest:?}"
    ));
    assert!(beside.max(still) < most, "{alone:?} alone");
    assert!(shortest >= HEAD_TIMEOUT && longest < HEAD_TIMEOUT_SEEN);
    let memory_most = SLOW as u64 * (3 * CONNECTION_BYTES_MAX + CLOSING_BYTES);
    let dawdling = mirror.memory("VmRSS") - memory - resting;
    let (ended, read) = slow.read();
    told(format!("{dawdling} bytes of memory, {read} read"));
    // Those that come again are there before all of the others have been closed.
    assert!(dawdling <= memory_most, "{dawdling} bytes");
    assert_eq!((ended, idle.connected()), (0, n_idle));

    let before = without_descriptors(&mut idle);
    let (ticks, since) = (mirror.cpu_ticks(), Instant::now());
    limit_descriptors(&mirror, 64);
    let mut waiting = TcpStream::connect(mirror.host()).unwrap();
    let request = b"GET /livez HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n";
    waiting.write_all(request).unwrap();
    while without_descriptors(&mut idle) < before + ATTEMPTS {
        waiting.set_nonblocking(true).unwrap();
        assert!(
            waiting.peek(&mut [0]).is_err(),
            "nobody can have accepted it"
        );
    }
    let (ticks, took) = (mirror.cpu_ticks() - ticks, since.elapsed());
    told(format!("{ATTEMPTS} attempts in {took:?}, {ticks} ticks"));
    assert!(took >= PAUSES, "{took:?} instead of {PAUSES:?}");
    limit_descriptors(&mirror, descriptors);
    waiting.set_nonblocking(false).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    told("answered".to_owned());

    drop((slow, idle));
    mirror.wait_until(|mirror| connections(mirror) <= 1);
    let after = healthy_within(most, &mirror, image);
    told(format!(
        "{after:?} afterwards, {} bytes",
        mirror.memory("VmRSS")
    ));
    assert!(after < most, "{after:?} afterwards");
    pull(&mirror);
    assert_eq!(upstream.body_bytes(), LAYER_BYTES);
    assert_eq!(mirror.stop().code(), Some(0));
}
