//! Sizes, ranges, bodies that break off.

use tokio::sync::Notify;

use super::*;

const BLOB: &str = "0123456789";

async fn rest(
    repository: &Repository,
    from: u64,
    total: Option<u64>,
) -> Result<(u64, String), Error> {
    let extent = Extent::Rest { from, total };
    let mut stream = repository.get_blob(&digest_of(BLOB), extent).await?;
    let mut content = Vec::new();
    while let Some(chunk) = stream.chunk().await? {
        content.extend_from_slice(&chunk);
    }
    Ok((stream.offset(), String::from_utf8(content).expect("text")))
}

#[tokio::test]
async fn the_rest_of_a_blob_is_asked_for_by_a_closed_range_where_its_size_is_known() {
    let fake = Fake::start(|_| reply(206, &[("content-range", "bytes 4-9/10")], "456789")).await;
    let repository = at("r.example", &[&fake.url()]).repository();
    let expected = (4, "456789".to_owned());
    assert_eq!(
        rest(&repository, 4, Some(10)).await.expect("the rest"),
        expected
    );
    assert_eq!(
        rest(&repository, 4, None).await.expect("the rest"),
        expected
    );
    let ranges: Vec<_> = fake
        .seen()
        .into_iter()
        .filter_map(|seen| seen.range)
        .collect();
    assert_eq!(ranges, ["bytes=4-9", "bytes=4-"]);
}

#[tokio::test]
async fn a_server_of_closed_ranges_only_is_understood() {
    let fake = Fake::start(|seen| match seen.range.as_deref() {
        Some("bytes=4-9") => reply(206, &[("content-range", "bytes 4-9/10")], "456789"),
        _ => reply(416, &[("content-range", "bytes */10")], ""),
    })
    .await;
    let repository = at("r.example", &[&fake.url()]).repository();
    let got = rest(&repository, 4, None).await.expect("the rest");
    assert_eq!(got, (4, "456789".to_owned()));
}

#[tokio::test]
async fn a_server_without_ranges_starts_at_the_first_byte() {
    let fake = Fake::start(|_| reply(200, &[("etag", "\"e\"")], BLOB)).await;
    let repository = at("r.example", &[&fake.url()]).repository();
    let got = rest(&repository, 4, Some(10)).await.expect("all of it");
    assert_eq!(got, (0, BLOB.to_owned()));
    let stream = repository
        .get_blob(&digest_of(BLOB), Extent::Whole)
        .await
        .expect("a blob");
    assert_eq!(
        (stream.total(), stream.validator()),
        (Some(10), Some("\"e\""))
    );
    assert_eq!(fake.seen()[1].range, None);
}

#[tokio::test]
async fn a_part_that_was_not_asked_for_is_refused() {
    for (status, headers) in [
        (206, &[("content-range", "bytes 3-9/10")][..]),
        (206, &[("content-range", "bytes 4-9/*")]),
        (206, &[("content-range", "bytes 4-10/11")]),
        (206, &[]),
        (200, &[("content-encoding", "gzip")]),
        (204, &[]),
        (416, &[]),
    ] {
        let fake = Fake::start(move |_| reply(status, headers, "3456789")).await;
        let repository = at("r.example", &[&fake.url()]).repository();
        let refused = rest(&repository, 4, Some(10)).await;
        assert!(
            matches!(refused, Err(Error::Protocol(_))),
            "{headers:?} {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_end() {
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234";
    let part = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4-9/10\r\n\r\n4567";
    let address = raw(vec![short, part]).await;
    let repository = at("r.example", &[&format!("http://{address}")]).repository();
    for from in [0, 4] {
        let broken = rest(&repository, from, None).await;
        assert!(matches!(broken, Err(Error::Unavailable(_))), "{broken:?}");
    }
}

#[tokio::test]
async fn silence_ends_a_body_and_a_wait_for_headers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let repository = at("r.example", &[&url]).repository();
    let started = Arc::new(Notify::new());
    let signal = Arc::clone(&started);
    spawn(async move {
        let (mut first, _) = listener.accept().await.expect("a connection");
        read_head(&mut first).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234";
        first.write_all(head).await.expect("sent");
        let (mut second, _) = listener.accept().await.expect("a connection");
        read_head(&mut second).await;
        signal.notify_one();
        std::future::pending::<()>().await;
        drop((first, second));
    });
    let mut stream = repository
        .get_blob(&digest_of(BLOB), Extent::Whole)
        .await
        .expect("a blob");
    assert_eq!(stream.chunk().await.expect("bytes").expect("some"), "01234");
    // From here on nothing comes, so the clock may run ahead.
    tokio::time::pause();
    let silent = stream.chunk().await;
    assert!(
        matches!(silent, Err(Error::TimedOut(Silence::Body))),
        "{silent:?}"
    );
    tokio::time::resume();

    let reference = latest();
    let ask = repository.get_manifest(&reference);
    let pause = async {
        started.notified().await;
        tokio::time::pause();
    };
    let (silent, ()) = tokio::join!(ask, pause);
    assert!(
        matches!(silent, Err(Error::TimedOut(Silence::Headers))),
        "{silent:?}"
    );
}

#[tokio::test]
async fn the_size_of_a_blob_is_that_of_its_head() {
    let fake = Fake::start(|_| reply(200, &[], BLOB)).await;
    let repository = at("r.example", &[&fake.url()]).repository();
    let size = repository
        .head_blob(&digest_of(BLOB))
        .await
        .expect("a size");
    assert_eq!(size, 10);
    assert_eq!(fake.seen()[0].method, "HEAD");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn where_head_fails_the_first_byte_is_asked_for_and_head_no_more() {
    let by_range = |seen: &Seen| match seen.range.as_deref() {
        Some("bytes=0-0") => reply(206, &[("content-range", "bytes 0-0/10")], "0"),
        _ => reply(200, &[], BLOB),
    };
    let cdn = Fake::start(move |seen| match &*seen.method {
        "HEAD" => reply(403, &[], ""),
        _ => by_range(seen),
    })
    .await;
    let location = cdn.url();
    let presigned = Fake::start(move |_| reply(307, &[("location", &location)], "")).await;
    let headless = Fake::start(move |seen| match &*seen.method {
        "HEAD" => reply(405, &[], ""),
        _ => by_range(seen),
    })
    .await;
    let rangeless = Fake::start(|seen| match &*seen.method {
        "HEAD" => reply(405, &[], ""),
        _ => reply(200, &[], BLOB),
    })
    .await;
    for fake in [presigned, headless, rangeless] {
        let repository = at("r.example", &[&fake.url()]).repository();
        for _ in 0..2 {
            let size = repository
                .head_blob(&digest_of(BLOB))
                .await
                .expect("a size");
            assert_eq!(size, 10);
        }
        let methods: Vec<_> = fake.seen().into_iter().map(|seen| seen.method).collect();
        assert_eq!(methods, ["HEAD", "GET", "GET"]);
    }
}

#[tokio::test]
async fn a_blob_that_is_missing_is_asked_for_once() {
    let fake = Fake::start(|_| reply(404, &[], "<html>")).await;
    let repository = at("r.example", &[&fake.url()]).repository();
    let missing = repository.head_blob(&digest_of(BLOB)).await;
    assert!(matches!(missing, Err(Error::NotFound)), "{missing:?}");
    assert_eq!(fake.seen().len(), 1);
}
