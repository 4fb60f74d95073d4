//! Replicas with small disks and one bucket between them, in a real S3 server.
//!
//! The working set is eight times what each may keep. `ENTREPOT_REPLICAS_MIB=2048` makes it 2 GiB over 256 MiB of disk;
//! without that it is small enough to be tried each time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use crate::harness::digest;
use crate::harness::garage::Garage;
use crate::harness::mirror::Mirror;
use crate::harness::numbers::{NumberedImage, Numbers};
use crate::harness::upstream::EXAMPLE;

/// The working set, in MiB, where nobody says.
const SET_MIB: u64 = 256;

/// How much larger it is than the disk of a replica.
const RATIO: u64 = 8;

/// Images in it.
const IMAGES: u64 = 64;

/// Clients of one replica at a time, as of a node that pulls three layers.
const CLIENTS: usize = 3;

fn set_bytes() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a test may take is no configuration"
    )]
    let mib = std::env::var("ENTREPOT_REPLICAS_MIB");
    mib.map_or(SET_MIB, |mib| mib.parse().unwrap()) << 20
}

/// Starts a replica with an empty disk of an eighth of the working set.
fn replica(directory: &Path, name: &str, upstream: &Numbers, garage: &Garage) -> Mirror {
    let home = directory.join(name);
    std::fs::create_dir(&home).unwrap();
    let config = home.join("entrepot.yaml");
    let text = format!(
        "unknown_namespaces: deny\n\
         cache: {{ min_free: 0%, max_size: {}B, shared: {} }}\n\
         upstreams: {{ {EXAMPLE}: {{ endpoints: [\"{}\"] }} }}\n",
        set_bytes() / RATIO,
        garage.keys(),
        upstream.url()
    );
    std::fs::write(&config, text).unwrap();
    Mirror::start(&home, &[format!("--config={}", config.display())])
}

/// Asks for `path`; gives the digest of the body where it came whole with 200.
fn ask(mirror: &Mirror, method: &str, path: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{method} {path}: {error}");
    let mut stream = TcpStream::connect(mirror.host()).map_err(failed)?;
    let request = format!(
        "{method} /v2/numbers/{path}?ns={EXAMPLE} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut reader = BufReader::new(stream);
    let (mut status, mut length) = (String::new(), 0);
    reader.read_line(&mut status).map_err(failed)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).map_err(failed)?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse::<u64>().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    if !status.contains(" 200 ") {
        return Err(format!("{method} {path}: {status}"));
    }
    let (mut hash, mut came) = (digest::Running::new(), 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = reader.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            break;
        }
        came += n as u64;
        hash.update(&buffer[..n]);
    }
    if method == "GET" && came != length {
        return Err(format!("{method} {path}: {came} of {length} bytes"));
    }
    Ok(hash.finish())
}

/// Pulls an image as a client does.
fn pull(mirror: &Mirror, image: &NumberedImage) -> Result<(), String> {
    let manifest = digest::of_bytes(image.manifest.as_bytes());
    let config = digest::of_bytes(image.config.as_bytes());
    ask(mirror, "HEAD", &format!("manifests/{}", image.tag))?;
    let wanted = [
        (format!("manifests/{manifest}"), &manifest),
        (format!("blobs/{config}"), &config),
        (format!("blobs/{}", image.layer_digest), &image.layer_digest),
    ];
    for (path, digest) in wanted {
        let found = ask(mirror, "GET", &path)?;
        if found != *digest {
            return Err(format!("{path} hashes to {found}"));
        }
    }
    Ok(())
}

/// Pulls all `images` through each of `mirrors`, [`CLIENTS`] at a time. Gives what failed. `between` is called before
/// each pull with how many began already.
fn pull_all(
    mirrors: &[&Mirror],
    images: &[NumberedImage],
    between: impl Fn(usize) + Sync,
) -> Vec<String> {
    let (failed, begun) = (
        Mutex::new(Vec::new()),
        std::sync::atomic::AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for mirror in mirrors {
            for client in 0..CLIENTS {
                let (failed, begun, between) = (&failed, &begun, &between);
                scope.spawn(move || {
                    for image in images.iter().skip(client).step_by(CLIENTS) {
                        between(begun.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
                        if let Err(error) = pull(mirror, image) {
                            failed.lock().unwrap().push(error);
                        }
                    }
                });
            }
        }
    });
    failed.into_inner().unwrap()
}

/// What a replica says of the shared tier.
fn of_shared_tier(mirror: &Mirror) -> String {
    let metrics = mirror.metrics();
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("entrepot_shared_"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What a replica has on disk, in bytes.
fn on_disk(mirror: &Mirror) -> u64 {
    let metrics = mirror.metrics();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("entrepot_cache_bytes "));
    line.unwrap().parse().unwrap()
}

#[test]
fn replicas_with_small_disks_share_a_working_set_in_a_bucket() {
    let directory = tempfile::tempdir().unwrap();
    let set = set_bytes();
    let upstream = Numbers::start(IMAGES, set / IMAGES);
    let mut garage = Garage::start(directory.path());
    let none: [String; 0] = [];
    let started = Instant::now();
    let told = |what: &str| eprintln!("{:6.1} s  {what}", started.elapsed().as_secs_f64());

    let mut first = replica(directory.path(), "first", &upstream, &garage);
    let mut second = replica(directory.path(), "second", &upstream, &garage);
    assert_eq!(
        pull_all(&[&first, &second], upstream.images(), |_| {}),
        none
    );
    let sent = upstream.body_bytes();
    told(&format!(
        "two replicas have served {} MiB each; upstream sent {} MiB",
        set >> 20,
        sent >> 20
    ));
    assert!(sent <= 2 * set + (1 << 20), "at most once each: {sent}");
    for mirror in [&mut first, &mut second] {
        mirror.wait_until_uploaded();
        told(&of_shared_tier(mirror));
        let bytes = on_disk(mirror);
        assert!(bytes <= set / RATIO, "{bytes}");
    }
    assert_eq!(
        pull_all(&[&first, &second], upstream.images(), |_| {}),
        none
    );
    told(&format!(
        "and again; upstream sent {} MiB more",
        (upstream.body_bytes() - sent) >> 20
    ));
    assert_eq!(
        upstream.body_bytes(),
        sent,
        "what was evicted comes from the bucket"
    );

    upstream.stop();
    let third = replica(directory.path(), "third", &upstream, &garage);
    assert_eq!(pull_all(&[&third], upstream.images(), |_| {}), none);
    told("a third with an empty disk has served all of it, with upstream stopped");
    assert_eq!(upstream.body_bytes(), sent);

    upstream.resume();
    let fourth = replica(directory.path(), "fourth", &upstream, &garage);
    let killing = Mutex::new(&mut garage);
    let failed = pull_all(&[&fourth], upstream.images(), |begun| {
        if begun == 20 {
            killing.lock().unwrap().kill();
        }
    });
    assert_eq!(failed, none);
    told(&format!(
        "the S3 server was killed in the middle of a fourth: no pull failed; upstream sent {} MiB",
        (upstream.body_bytes() - sent) >> 20
    ));
    assert!(upstream.body_bytes() > sent);
    assert!(fourth.metrics().contains("\nentrepot_shared_up 0\n"));
}
