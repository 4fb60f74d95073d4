//! One blob, asked for piece by piece: the way is found once.

use tokio::sync::oneshot;

use super::*;

const BLOB: &str = "0123456789";

/// What a server that does ranges answers.
fn piece(seen: &Seen) -> Reply {
    let Some(range) = &seen.range else {
        return reply(200, &[], BLOB);
    };
    let (first, last) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
        .expect("a closed range");
    let (first, last): (usize, usize) = (
        first.parse().expect("a number"),
        last.parse().expect("a number"),
    );
    let stated = format!("bytes {first}-{last}/{}", BLOB.len());
    reply(206, &[("content-range", &stated)], &BLOB[first..=last])
}

fn redirect(location: &str) -> Reply {
    // Quay says so of redirects to URLs that are good for ten minutes.
    let forever = ("cache-control", "max-age=31536000");
    reply(302, &[("location", location), forever], "<a>")
}

fn part(first: u64) -> Extent {
    Extent::Part {
        range: first..first + 2,
        total: BLOB.len() as u64,
    }
}

fn source(repository: &Repository) -> BlobSource {
    repository.blob(&digest_of(BLOB))
}

async fn read(stream: &mut BlobStream) -> Result<String, Error> {
    let mut content = Vec::new();
    while let Some(chunk) = stream.chunk().await? {
        content.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(content).expect("text"))
}

/// Asks for two bytes and compares them.
async fn pull(source: &BlobSource, first: u64) {
    let mut stream = source.get(part(first)).await.expect("a stream");
    let at = usize::try_from(first).expect("small");
    let content = read(&mut stream).await.expect("the part");
    assert_eq!(content, BLOB[at..at + 2]);
}

fn retries(metrics: &Metrics, reason: &str) -> usize {
    let name = format!("entrepot_upstream_retries_total{{reason=\"{reason}\"}} ");
    let text = metrics.render();
    let mut counts = text.lines().filter_map(|line| line.strip_prefix(&name));
    counts
        .next()
        .map_or(0, |count| count.parse().expect("a number"))
}

#[tokio::test]
async fn part_after_part_comes_over_one_connection() {
    const PART_BYTES: usize = 256 * 1024;
    const PARTS: usize = 50;
    let registry = Fake::start(|seen| {
        let range = seen.range.as_deref().expect("a range");
        let (first, last) = range["bytes=".len()..].split_once('-').expect("two ends");
        let stated = format!("bytes {first}-{last}/{}", PART_BYTES * PARTS);
        reply(206, &[("content-range", &stated)], &"x".repeat(PART_BYTES))
    })
    .await;
    let repository = at("r.example", &[&registry.url()]).repository();
    let source = source(&repository);
    // A task like that which drives the connection: it may have its turn before the connection can be used again.
    let (done, is_done) = oneshot::channel();
    spawn(async move {
        for part in 0..PARTS {
            let start = part * PART_BYTES;
            let extent = Extent::Part {
                range: start as u64..(start + PART_BYTES) as u64,
                total: (PART_BYTES * PARTS) as u64,
            };
            let mut stream = source.get(extent).await.expect("a stream");
            let mut left = PART_BYTES;
            while left > 0 {
                let chunk = stream.chunk().await.expect("the part");
                left -= chunk.expect("not the end").len();
            }
        }
        done.send(()).expect("somebody waits");
    });
    is_done.await.expect("no panic");
    assert_eq!(registry.connections(), 1);
}

#[tokio::test]
async fn the_registry_is_asked_once_for_any_number_of_parts() {
    let cdn = Fake::start(piece).await;
    let target = "/shard//docker/sha256%3Aabc/data?se=2024-07-17T23%3A35%3A00Z&sig=a%2Bb%3D";
    let location = format!("{}{target}", cdn.url());
    // registry.k8s.io: twice, and to another repository.
    let second = Fake::start(move |_| redirect(&location)).await;
    let location = format!("{}/v2/prod/images/b/blobs/x", second.url());
    let registry = Fake::start(move |seen| {
        if seen.shows(BASIC) {
            redirect(&location)
        } else {
            unauthorized("Basic")
        }
    })
    .await;
    let repository = at("r.example", &[&registry.url()])
        .with_credential()
        .repository();
    let blob = source(&repository);
    pull(&blob, 0).await;
    let clone = blob.clone();
    tokio::join!(pull(&blob, 2), pull(&blob, 4), pull(&clone, 6));
    let first_time = registry.seen().len();
    assert_eq!((first_time, second.seen().len()), (2, 1));
    assert_eq!(cdn.log(), vec![format!("GET {target}"); 4]);
    assert!(cdn.seen().iter().all(|seen| seen.authorization.is_none()));
    // A redirect is nothing to keep: the next fill asks for its own.
    pull(&source(&repository), 8).await;
    assert_eq!(registry.seen().len(), first_time + 1);
}

#[tokio::test]
async fn a_signature_that_expires_in_the_middle_costs_one_more_request() {
    for status in [400, 401, 403, 404, 410] {
        let good = Arc::new(AtomicUsize::new(0));
        let now = Arc::clone(&good);
        let cdn = Fake::start(move |seen| {
            let signed = format!("/x?sig={}", now.load(Ordering::SeqCst));
            if seen.target == signed {
                piece(seen)
            } else {
                reply(status, &[], "<Error>Request has expired</Error>")
            }
        })
        .await;
        let (now, url) = (Arc::clone(&good), cdn.url());
        let registry = Fake::start(move |_| {
            let signature = now.load(Ordering::SeqCst);
            redirect(&format!("{url}/x?sig={signature}"))
        })
        .await;
        let metrics = Metrics::new();
        let upstreams = at("r.example", &[&registry.url()]).counted(&metrics);
        let blob = source(&upstreams.a_b("r.example"));
        pull(&blob, 0).await;
        pull(&blob, 2).await;
        good.store(1, Ordering::SeqCst);
        pull(&blob, 4).await;
        pull(&blob, 6).await;
        assert_eq!(registry.seen().len(), 2, "{status}");
        assert_eq!(cdn.seen().len(), 5, "{status}");
        assert_eq!(retries(&metrics, "redirect_refused"), 1, "{status}");
    }
}

#[tokio::test]
async fn a_registry_may_lead_to_another_host_every_time() {
    let is_over = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&is_over);
    let first = Fake::start(
        move |seen| match (now.load(Ordering::SeqCst), seen.target.as_str()) {
            (0, "/x?verify=first") => piece(seen),
            _ => reply(403, &[], ""),
        },
    )
    .await;
    let second = Fake::start(|seen| match seen.target.as_str() {
        "/y?verify=second" => piece(seen),
        _ => reply(403, &[], ""),
    })
    .await;
    let locations = Mutex::new(vec![
        format!("{}/y?verify=second", second.url()),
        format!("{}/x?verify=first", first.url()),
    ]);
    let registry = Fake::start(move |_| {
        let location = locations.lock().expect("no panic").pop();
        redirect(&location.expect("asked twice"))
    })
    .await;
    let blob = source(&at("r.example", &[&registry.url()]).repository());
    pull(&blob, 0).await;
    is_over.store(1, Ordering::SeqCst);
    for first in [2, 4, 6, 8] {
        pull(&blob, first).await;
    }
    assert_eq!((first.seen().len(), second.seen().len()), (2, 4));
}

#[tokio::test]
async fn where_the_host_it_led_to_is_down_the_registry_is_asked_again() {
    let once = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/10\r\n\
                Content-Length: 2\r\n\r\n01";
    let trouble = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    // It says so; it hangs up, twice; it is gone.
    for then in [vec![trouble], vec!["", ""], vec![]] {
        let bad = raw([vec![once], then].concat()).await;
        let good = Fake::start(piece).await;
        let locations = Mutex::new(vec![good.url(), format!("http://{bad}/")]);
        let registry = Fake::start(move |_| {
            let location = locations.lock().expect("no panic").pop();
            redirect(&location.expect("asked twice"))
        })
        .await;
        let metrics = Metrics::new();
        let upstreams = at("r.example", &[&registry.url()]).counted(&metrics);
        let blob = source(&upstreams.a_b("r.example"));
        pull(&blob, 0).await;
        pull(&blob, 2).await;
        pull(&blob, 4).await;
        assert_eq!((registry.seen().len(), good.seen().len()), (2, 2));
        assert_eq!(retries(&metrics, "redirect_failed"), 1);
    }
}

#[tokio::test]
async fn a_host_that_refuses_from_the_start_is_asked_twice() {
    let cdn = Fake::start(|_| reply(403, &[], "")).await;
    let location = cdn.url();
    let registry = Fake::start(move |_| redirect(&location)).await;
    let blob = source(&at("r.example", &[&registry.url()]).repository());
    for asked in [2, 4] {
        let refused = blob.get(part(0)).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
        assert_eq!((registry.seen().len(), cdn.seen().len()), (asked, asked));
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_sends_back_to_the_registry() {
    let short = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/10\r\n\
                 Content-Length: 2\r\n\r\n0";
    let bad = raw(vec![short]).await;
    let good = Fake::start(piece).await;
    let locations = Mutex::new(vec![good.url(), format!("http://{bad}/")]);
    let registry = Fake::start(move |_| {
        let location = locations.lock().expect("no panic").pop();
        redirect(&location.expect("asked twice"))
    })
    .await;
    let blob = source(&at("r.example", &[&registry.url()]).repository());
    let mut stream = blob.get(part(0)).await.expect("a stream");
    let broken = read(&mut stream).await;
    assert!(matches!(broken, Err(Error::Unavailable(_))), "{broken:?}");
    for first in [0, 2] {
        pull(&blob, first).await;
    }
    assert_eq!((registry.seen().len(), good.seen().len()), (2, 2));
}

#[tokio::test]
async fn another_size_is_refused_wherever_it_comes_from() {
    let is_other = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&is_other);
    let cdn = Fake::start(move |seen| match now.load(Ordering::SeqCst) {
        0 => piece(seen),
        _ => reply(206, &[("content-range", "bytes 2-3/11")], "23"),
    })
    .await;
    let location = cdn.url();
    let registry = Fake::start(move |_| redirect(&location)).await;
    let blob = source(&at("r.example", &[&registry.url()]).repository());
    pull(&blob, 0).await;
    is_other.store(1, Ordering::SeqCst);
    let refused = blob.get(part(2)).await;
    assert!(matches!(refused, Err(Error::Protocol(_))), "{refused:?}");
    is_other.store(0, Ordering::SeqCst);
    pull(&blob, 2).await;
    assert_eq!(registry.seen().len(), 2);
}

#[tokio::test]
async fn a_place_at_the_registry_itself_is_asked_without_a_credential_once() {
    // Artifact Registry gives it to anybody; others want to know who asks.
    for is_open in [true, false] {
        let registry = Fake::start(move |seen| {
            let is_shown = seen.shows(BASIC);
            match seen.target.as_str() {
                "/artifacts-downloads/x?y" if is_open || is_shown => piece(seen),
                _ if is_shown => redirect("/artifacts-downloads/x?y"),
                _ => unauthorized("Basic"),
            }
        })
        .await;
        let setup = at("r.example", &[&registry.url()]).with_credential();
        let blob = source(&setup.repository());
        for first in [0, 2, 4] {
            pull(&blob, first).await;
        }
        let seen = registry.seen();
        let bare = seen.iter().filter(|seen| seen.authorization.is_none());
        let asked: Vec<_> = bare.map(|seen| seen.target.starts_with("/v2/")).collect();
        if is_open {
            assert_eq!((asked, seen.len()), (vec![true, false, false], 5));
        } else {
            assert_eq!((asked, seen.len()), (vec![true, false], 8));
        }
    }
}

#[tokio::test]
async fn the_endpoint_that_gave_something_is_asked_first() {
    let empty = Fake::start(|_| reply(404, &[], "")).await;
    let silent = raw(vec![
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/10\r\n\r\n",
    ])
    .await;
    let full = Fake::start(piece).await;
    let silent = format!("http://{silent}");
    let endpoints = [empty.url(), silent, full.url()];
    let endpoints = endpoints.each_ref().map(String::as_str);
    let blob = source(&at("r.example", &endpoints).repository());
    let mut stream = blob.get(part(0)).await.expect("a stream");
    let broken = read(&mut stream).await;
    assert!(matches!(broken, Err(Error::Unavailable(_))), "{broken:?}");
    // Now that the second gave nothing, it is the turn of the third.
    for first in [0, 2, 4] {
        pull(&blob, first).await;
    }
    assert_eq!((empty.seen().len(), full.seen().len()), (1, 3));
}

#[tokio::test]
async fn blobs_wait_for_each_other_and_manifests_for_nobody() {
    let fake = Fake::start(|seen| {
        if seen.target.contains("/blobs/") {
            piece(seen)
        } else {
            reply(200, &[], "{}")
        }
    })
    .await;
    let upstreams = at("r.example", &[&fake.url()]).upstreams();
    let blob = source(&upstreams.a_b("r.example"));
    let mut streams = Vec::new();
    let busy = loop {
        match blob.get_if_free(part(0)).await {
            Ok(stream) => streams.push(stream),
            Err(error) => break error,
        }
    };
    assert!(matches!(busy, Error::Busy { .. }), "{busy:?}");
    assert_eq!((streams.len(), fake.seen().len()), (32, 32));

    let repository = upstreams.a_b("r.example");
    let manifest = repository.get_manifest(&latest()).await;
    manifest.expect("a manifest");
    repository
        .head_blob(&digest_of(BLOB))
        .await
        .expect("a size");

    tokio::time::pause();
    let busy = repository.get_blob(&digest_of(BLOB), part(0)).await;
    assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
    tokio::time::resume();

    let leave = async { drop(streams.pop()) };
    tokio::join!(pull(&blob, 0), leave);
    // What was read to its end is no longer in anybody's way.
    let last = streams.last_mut().expect("31 of them");
    read(last).await.expect("the part");
    tokio::join!(pull(&blob, 0), pull(&blob, 2));
}
