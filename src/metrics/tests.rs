//! What the text says after what happened.

use std::time::Duration;

use super::*;

#[track_caller]
fn check_line(metrics: &Metrics, expected: &str) {
    let text = metrics.render();
    assert!(
        text.lines().any(|line| line == expected),
        "{expected} is not in\n{text}"
    );
}

#[test]
fn every_event_shows_under_its_name() {
    let metrics = Metrics::new();
    metrics.answered(&Answered {
        upstream: "docker.io",
        kind: "tag",
        result: "hit",
        source: Some("cache"),
        bytes: 7,
        took: Duration::from_secs(1),
    });
    let mut request = metrics.upstream_request("ghcr.io", "HEAD");
    request.answered(200);
    request.received(4);
    request.received(5);
    drop(request);
    metrics.upstream_retry("connect");
    metrics.storage_error("publish");
    metrics.digest_mismatch("other");
    metrics.cache_bytes(4096);
    metrics.cache_objects("blob", 3);
    metrics.evicted("min_free", 100);
    metrics.cache_oldest_seconds(60);
    metrics.accept_error("descriptors");
    metrics.body("cancelled");
    metrics.panic();
    for line in [
        r#"entrepot_requests_total{upstream="docker.io",kind="tag",result="hit"} 1"#,
        r#"entrepot_request_duration_seconds_bucket{le="1.0",kind="tag"} 1"#,
        r#"entrepot_served_bytes_total{upstream="docker.io",source="cache"} 7"#,
        r#"entrepot_upstream_requests_total{upstream="ghcr.io",method="HEAD",code="200"} 1"#,
        r#"entrepot_upstream_ttfb_seconds_count{upstream="ghcr.io"} 1"#,
        r#"entrepot_upstream_request_duration_seconds_count{upstream="ghcr.io"} 1"#,
        r#"entrepot_upstream_bytes_total{upstream="ghcr.io"} 9"#,
        r#"entrepot_upstream_retries_total{reason="connect"} 1"#,
        r#"entrepot_storage_errors_total{op="publish"} 1"#,
        "entrepot_cache_bytes 4096",
        r#"entrepot_cache_objects{kind="blob"} 3"#,
        r#"entrepot_cache_evicted_total{reason="min_free"} 1"#,
        r#"entrepot_cache_evicted_bytes_total{reason="min_free"} 100"#,
        "entrepot_cache_oldest_seconds 60",
        r#"entrepot_digest_mismatch_total{upstream="other"} 1"#,
        r#"entrepot_accept_errors_total{reason="descriptors"} 1"#,
        r#"entrepot_bodies_total{end="cancelled"} 1"#,
        "entrepot_panics_total 1",
        concat!(
            r#"entrepot_build_info{version=""#,
            env!("CARGO_PKG_VERSION"),
            r#""} 1"#
        ),
        "# EOF",
    ] {
        check_line(&metrics, line);
    }
}

#[test]
fn a_gauge_counts_what_is_there() {
    let metrics = Metrics::new();
    let fill = metrics.fill();
    let (first, second) = (metrics.connection(), metrics.connection());
    check_line(&metrics, "entrepot_inflight_fills 1");
    check_line(&metrics, "entrepot_fill_waiters 0");
    check_line(&metrics, "entrepot_connections 2");
    drop((fill, first));
    check_line(&metrics, "entrepot_inflight_fills 0");
    check_line(&metrics, "entrepot_connections 1");
    check_line(&metrics, "entrepot_connections_accepted_total 2");
    drop(second);
}

#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::new();
    metrics.upstream_request("a\"b\\c\nd", "GET").received(1);
    check_line(
        &metrics,
        r#"entrepot_upstream_bytes_total{upstream="a\"b\\c\nd"} 1"#,
    );
}

#[test]
fn a_request_is_over_when_nobody_reads_on() {
    let metrics = Metrics::new();
    let mut request = metrics.upstream_request("u", "GET");
    request.answered(200);
    request.received(7);
    let open = r#"entrepot_upstream_request_duration_seconds_count{upstream="u"} 1"#;
    assert!(!metrics.render().contains(open));
    check_line(&metrics, r#"entrepot_upstream_bytes_total{upstream="u"} 7"#);
    drop(request);
    check_line(&metrics, open);
}

#[test]
fn statuses_that_do_not_exist_share_one_label() {
    let metrics = Metrics::new();
    for code in [742, 0] {
        metrics.upstream_request("u", "GET").answered(code);
    }
    check_line(
        &metrics,
        r#"entrepot_upstream_requests_total{upstream="u",method="GET",code="other"} 2"#,
    );
    drop(metrics.upstream_request("u", "GET"));
    check_line(
        &metrics,
        r#"entrepot_upstream_requests_total{upstream="u",method="GET",code="none"} 1"#,
    );
}
