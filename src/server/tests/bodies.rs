//! Bodies that end well, badly, or not at all.

use super::*;

/// What a client gets whose body breaks off after ten of a hundred bytes.
#[track_caller]
fn check_short(answer: &str, case: &str) {
    assert_eq!(statuses(answer), ["200"], "{case}");
    assert!(answer.contains("content-length: 100\r\n"), "{case}");
    assert!(!answer.contains("chunked"), "{case}");
    assert!(answer.ends_with("\r\n\r\nsome bytes"), "{case}: {answer}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_short_and_ends_with_a_fin() {
    let mut server = start(Limits::default());
    for path in ["/broken", "/short", "/panicking"] {
        check_short(&server.exchange(get(path)).await, path);
        assert_eq!(server.end().await, (10, End::Failed), "{path}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_with_a_fin_whatever_the_client_has_sent() {
    let server = start(Limits::default());
    for more in [get("/next"), "x".repeat(200_000)] {
        let answer = server.exchange([get("/broken"), more].concat()).await;
        check_short(&answer, "/broken");
    }
    assert_eq!(server.seen(), ["GET /broken"; 2]);
}

#[tokio::test]
async fn a_body_that_would_be_longer_than_declared_is_not_sent_whole() {
    let mut server = start(Limits::default());
    let answer = server.exchange(get("/long")).await;
    assert!(answer.contains("content-length: 10\r\n"));
    assert!(answer.ends_with("\r\n\r\n"));
    assert_eq!(server.end().await, (0, End::Failed));
}

#[tokio::test]
async fn a_panic_costs_one_request_only() {
    let server = start(Limits::default());
    let mut other = server.connect().await;
    other.send(get("/slow")).await;
    server.toy.waiting.notified().await;
    for path in ["/panic", "/panic-at-once"] {
        let answer = server
            .exchange([get(path), get_and_close("/after")].concat())
            .await;
        assert_eq!(statuses(&answer), ["500", "200"], "{path}");
        assert!(answer.contains("\r\n\r\nPanicked"), "{path}");
    }
    server.toy.gate.notify_one();
    assert!(other.until("slow").await.starts_with("HTTP/1.1 200"));
    assert!(
        server
            .metrics
            .render()
            .contains("entrepot_panics_total 2\n")
    );
}

#[tokio::test]
async fn the_end_of_every_body_is_told_once() {
    let mut server = start(Limits::default());
    server.exchange(get_and_close("/")).await;
    assert_eq!(server.end().await, (5, End::Ended));
    server.exchange(get_and_close("/empty")).await;
    assert_eq!(server.end().await, (0, End::Ended));
    server.exchange(get("/broken")).await;
    assert_eq!(server.end().await, (10, End::Failed));
    assert!(server.ends.try_recv().is_err());
    let text = server.metrics.render();
    assert!(text.contains("entrepot_bodies_total{end=\"ended\"} 2\n"));
    assert!(text.contains("entrepot_bodies_total{end=\"failed\"} 1\n"));
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_body() {
    let mut server = start(Limits::default());
    let mut client = server.connect().await;
    client.send(get("/endless")).await;
    client.until("xxxx").await;
    drop(client);
    let (bytes, end) = server.end().await;
    assert!(bytes > 0);
    assert_eq!(end, End::Cancelled);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_wait_for_an_answer() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    client.send(get("/slow")).await;
    server.toy.waiting.notified().await;
    drop(client);
    server.shows("entrepot_connections 0").await;
    // Nobody waits any more, so this wakes the next who will.
    server.toy.gate.notify_one();
    let answer = server.exchange(get_and_close("/slow")).await;
    assert_eq!(statuses(&answer), ["200"]);
}
