//! Where a request ends (RFC 9112 section 6): nothing behind a doubtful end is ever read as a request.

use super::*;

/// Sends a head with these lines, a body that is a request, and looks at what the service saw.
async fn smuggle(method: &str, lines: &str, body: &str) -> (String, Vec<String>) {
    let server = start(Limits::default());
    let head = format!("{method} /outer HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n");
    let answer = server.exchange([&head, body].concat()).await;
    (answer, server.seen())
}

#[track_caller]
fn check_closed_after_one(answer: &str, case: &str) {
    assert_eq!(statuses(answer).len(), 1, "{case}: {answer}");
    assert!(answer.contains("connection: close\r\n"), "{case}: {answer}");
}

#[tokio::test]
async fn a_head_with_a_doubtful_end_is_refused() {
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: y\r\n Content-Length: 5\r\n",
        "X: y\rContent-Length: 5\r\n",
        "X: \0\r\n",
    ] {
        let (answer, seen) = smuggle("GET", lines, &get("/smuggled")).await;
        assert_eq!(statuses(&answer), ["400"], "{lines:?}");
        check_closed_after_one(&answer, lines);
        assert!(seen.is_empty(), "{lines:?}: {seen:?}");
    }
}

#[tokio::test]
async fn an_old_request_with_transfer_encoding_is_refused() {
    let server = start(Limits::default());
    let head = "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = server.exchange([head, &get("/smuggled")].concat()).await;
    assert_eq!(statuses(&answer), ["400"]);
    assert!(server.seen().is_empty());
}

/// RFC 9112 section 6.1 lets a server take the transfer coding for good if it closes afterwards, section 6.3 lets equal
/// lengths count as one.
#[tokio::test]
async fn a_length_said_twice_is_taken_with_care() {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
    ] {
        let (answer, seen) =
            smuggle("GET", lines, &["0\r\n\r\n", &get("/smuggled")].concat()).await;
        check_closed_after_one(&answer, lines);
        assert_eq!(seen, ["GET /outer"], "{lines:?}");
    }
}

/// RFC 9112 section 2.2: a recipient may take a single LF for the end of a line.
#[tokio::test]
async fn lines_may_end_with_a_line_feed_alone() {
    let server = start(Limits::default());
    let answer = server
        .exchange("GET / HTTP/1.1\nHost: a.example\nConnection: close\n\n")
        .await;
    assert_eq!(statuses(&answer), ["200"]);
}

#[tokio::test]
async fn a_body_is_never_read_as_a_request() {
    let inner = get("/smuggled");
    let length = format!("Content-Length: {}\r\n", inner.len());
    let chunked = "Transfer-Encoding: chunked\r\n";
    let chunk = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    for method in ["GET", "HEAD", "POST"] {
        for (lines, body) in [
            (length.as_str(), inner.clone()),
            // More than was announced: the surplus is behind a body, and the connection ends there.
            (&length, [inner.as_str(), &inner].concat()),
            ("Content-Length: 5\r\n", inner.clone()),
            ("Content-Length: 1000000\r\n", inner.clone()),
            (chunked, [chunk.as_str(), &inner].concat()),
            (chunked, inner.clone()),
            (chunked, format!("ffffffffffffffffff\r\n{inner}")),
            (chunked, format!("5;{}\r\n{inner}", "a".repeat(9000))),
        ] {
            let (answer, seen) = smuggle(method, lines, &body).await;
            check_closed_after_one(&answer, lines);
            assert_eq!(seen, [format!("{method} /outer")], "{lines:?} {body:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_comes_late_is_never_read_as_a_request() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    client
        .send("GET /outer HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\n")
        .await;
    client.until("hello").await;
    client.send(get("/smuggled")).await;
    assert_eq!(client.rest().await, "");
    assert_eq!(server.seen(), ["GET /outer"]);
}

#[tokio::test]
async fn nobody_is_told_to_go_on_with_a_body_that_is_not_wanted() {
    for method in ["GET", "PUT"] {
        let lines = "Content-Length: 1000\r\nExpect: 100-continue\r\n";
        let (answer, _) = smuggle(method, lines, "").await;
        assert_eq!(statuses(&answer), ["200"]);
        check_closed_after_one(&answer, lines);
    }
}

#[tokio::test]
async fn an_empty_body_keeps_the_connection() {
    let (answer, seen) = smuggle("POST", "Content-Length: 0\r\n", &get_and_close("/2")).await;
    assert_eq!(statuses(&answer), ["200", "200"]);
    assert_eq!(seen, ["POST /outer", "GET /2"]);
}
