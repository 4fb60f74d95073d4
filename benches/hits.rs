//! The inner loops of a hit: what is done once for each request, without sockets and files.
#![expect(clippy::expect_used, reason = "what is measured is known to be right")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use divan::{Bencher, black_box, black_box_drop};
use entrepot::cache::inner::Judge;
use entrepot::config::Config;
use entrepot::http::{Body, Caller};
use entrepot::metrics::Metrics;
use entrepot::oci::Namespace;
use entrepot::registry::inner;
use entrepot::upstream::Directory;
use hyper::header::{HeaderMap, HeaderValue, RANGE, USER_AGENT};
use hyper::{Request, Response, Uri};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What clients ask for: by containerd, by podman, and by a client of a default registry.
const TARGETS: [&str; 3] = [
    "/v2/library/nginx/manifests/1.27-alpine?ns=docker.io",
    "/v2/ghcr.io/org/app/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "/v2/org/app/manifests/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
];

fn main() {
    divan::main();
}

#[divan::bench(args = TARGETS)]
fn route(bencher: Bencher<'_, '_>, target: &str) {
    let config = Config::from_yaml("domain: mirror.example").expect("a configuration");
    let directory = Directory::new(&config.upstream);
    let target: Uri = target.parse().expect("a target");
    bencher.bench_local(|| inner::route(black_box(&target), &config.ways, &directory));
}

#[divan::bench(args = ["", "bytes=1048576-2097151", "bytes=-500"])]
fn range(bencher: Bencher<'_, '_>, range: &str) {
    let mut headers = HeaderMap::new();
    if !range.is_empty() {
        let value = HeaderValue::from_str(range).expect("a value");
        headers.insert(RANGE, value);
    }
    bencher.bench_local(|| inner::range(black_box(&headers), 1 << 30, DIGEST));
}

#[divan::bench]
fn freshness(bencher: Bencher<'_, '_>) {
    let config = Config::from_yaml("").expect("a configuration");
    let (judge, terms) = (Judge::default(), config.tags.usual);
    let checked = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let now = checked + Duration::from_mins(1);
    bencher.bench_local(|| judge.is_fresh(black_box("1.27-alpine"), checked, &terms, now));
}

#[divan::bench]
fn headers_of_a_manifest(bencher: Bencher<'_, '_>) {
    let namespace: Namespace = "docker.io".parse().expect("a namespace");
    let bytes = Bytes::from_static(b"{}");
    bencher.bench_local(|| {
        let manifest = inner::manifest(black_box(&namespace), DIGEST, OCI_IMAGE, bytes.clone());
        black_box_drop(manifest);
    });
}

/// Without anybody who reads the log: what is left of it when it is turned off.
#[divan::bench]
fn log(bencher: Bencher<'_, '_>) {
    let request = Request::get(TARGETS[0])
        .header(USER_AGENT, "containerd/1.6.20")
        .body(())
        .map(Arc::new)
        .expect("a request");
    let caller = Arc::new(Caller {
        peer: ([127, 0, 0, 1], 50_000).into(),
        listener: 0,
        is_encrypted: false,
        client: None,
    });
    let metrics = Metrics::new();
    bencher.bench_local(|| {
        let response = Response::new(Body::empty());
        inner::log(
            Arc::clone(black_box(&request)),
            Arc::clone(&caller),
            metrics.clone(),
            response,
        );
    });
}
