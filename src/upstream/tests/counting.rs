//! What the metrics say of requests to upstreams.

use super::*;

#[track_caller]
fn check(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.render();
    for expected in lines {
        assert!(
            text.lines().any(|line| line == *expected),
            "{expected} is not in\n{text}"
        );
    }
}

#[tokio::test]
async fn requests_bodies_and_retries_are_counted() {
    let metrics = Metrics::new();
    let fake = Fake::start(
        |seen| match (&*seen.method, seen.target.contains("/blobs/")) {
            ("HEAD", true) => reply(405, &[], ""),
            (_, true) => reply(200, &[], "0123456789"),
            (_, false) => reply(200, &[], "{}"),
        },
    )
    .await;
    let broken = Fake::start(|_| reply(503, &[], "sorry")).await;
    let upstreams = at("r.example", &[&broken.url(), &fake.url()]).counted(&metrics);
    let repository = upstreams.a_b("r.example");
    repository
        .get_manifest(&latest())
        .await
        .expect("a manifest");
    check(
        &metrics,
        &[
            r#"entrepot_upstream_requests_total{upstream="r.example",method="GET",code="503"} 1"#,
            r#"entrepot_upstream_requests_total{upstream="r.example",method="GET",code="200"} 1"#,
            r#"entrepot_upstream_ttfb_seconds_count{upstream="r.example"} 2"#,
            r#"entrepot_upstream_request_duration_seconds_count{upstream="r.example"} 2"#,
            // The manifest and the words of the broken one.
            r#"entrepot_upstream_bytes_total{upstream="r.example"} 7"#,
            r#"entrepot_upstream_retries_total{reason="next_endpoint"} 1"#,
        ],
    );
}

#[tokio::test]
async fn a_blob_is_counted_as_it_comes_and_is_over_when_nobody_reads_on() {
    let metrics = Metrics::new();
    let fake = Fake::start(|seen| match &*seen.method {
        "HEAD" => reply(405, &[], ""),
        _ => reply(200, &[], "0123456789"),
    })
    .await;
    let upstreams = at("r.example", &[&fake.url()]).counted(&metrics);
    let repository = upstreams.a_b("r.example");
    let digest = digest_of("0123456789");
    let blob = repository.get_blob(&digest, Extent::Whole).await;
    let mut blob = blob.expect("a blob");
    blob.chunk().await.expect("bytes").expect("some");
    check(
        &metrics,
        &[r#"entrepot_upstream_bytes_total{upstream="r.example"} 10"#],
    );
    let over = r#"entrepot_upstream_request_duration_seconds_count{upstream="r.example"} 1"#;
    assert!(!metrics.render().contains(over));
    drop(blob);
    check(&metrics, &[over]);

    repository.head_blob(&digest).await.expect("a size");
    check(
        &metrics,
        &[
            r#"entrepot_upstream_requests_total{upstream="r.example",method="HEAD",code="405"} 1"#,
            r#"entrepot_upstream_retries_total{reason="head_failed"} 1"#,
        ],
    );
}

#[tokio::test]
async fn a_connection_that_drops_counts_as_a_request_without_an_answer() {
    let metrics = Metrics::new();
    let address = raw(vec!["", ""]).await;
    let upstreams = at("r.example", &[&format!("http://{address}")]).counted(&metrics);
    let outcome = upstreams.a_b("r.example").get_manifest(&latest()).await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    check(
        &metrics,
        &[
            r#"entrepot_upstream_requests_total{upstream="r.example",method="GET",code="none"} 2"#,
            r#"entrepot_upstream_retries_total{reason="dropped"} 1"#,
        ],
    );
}

#[tokio::test]
async fn made_up_registries_share_one_label() {
    let metrics = Metrics::new();
    let proxy = raw(vec!["HTTP/1.1 502 Bad Gateway\r\n\r\n"; 2]).await;
    let mut setup = at("r.example", &["http://127.0.0.1:1"]);
    setup.config.proxies.all = format!("http://{proxy}");
    let upstreams = setup.counted(&metrics);
    for namespace in ["made-up-1.example.com", "made-up-2.example.com"] {
        let outcome = upstreams.a_b(namespace).get_manifest(&latest()).await;
        assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    }
    check(
        &metrics,
        &[r#"entrepot_upstream_requests_total{upstream="other",method="GET",code="none"} 2"#],
    );
    assert!(!metrics.render().contains("made-up"));
}
