//! Requests that are as they should be, and those that name no host or are too large.

use std::net::Ipv6Addr;

use super::*;

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.send(get("/")).await;
        assert!(
            client
                .until("hello")
                .await
                .starts_with("HTTP/1.1 200 OK\r\n")
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start(Limits::default());
    let pipeline = [get("/1"), get("/empty"), get("/3"), get_and_close("/4")].concat();
    let answer = server.exchange(pipeline).await;
    assert_eq!(statuses(&answer), ["200"; 4]);
    assert_eq!(server.seen(), ["GET /1", "GET /empty", "GET /3", "GET /4"]);
}

#[tokio::test]
async fn the_answer_to_a_head_has_the_length_and_no_body() {
    let mut server = start(Limits::default());
    for path in ["/", "/endless"] {
        let request = get_and_close(path).replacen("GET", "HEAD", 1);
        let answer = server.exchange(request).await;
        let length = if path == "/" { 5 } else { ENDLESS };
        assert!(
            answer.contains(&format!("content-length: {length}\r\n")),
            "{answer}"
        );
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        assert_eq!(server.end().await, (0, End::Ended));
    }
}

#[tokio::test]
async fn the_service_learns_who_asks_and_where() {
    let any = bind((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
    let port = any.local_addr().unwrap().port();
    let local = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let server = start_on(vec![local, any], Limits::default());
    let mut client = Client(
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap(),
    );
    let own = client.0.local_addr().unwrap();
    client.send(get_and_close("/caller")).await;
    let answer = client.rest().await;
    assert!(answer.ends_with(&format!("\r\n\r\n1 {own}")), "{answer}");
    let answer = server.exchange(get_and_close("/caller")).await;
    assert!(answer.contains("\r\n\r\n0 127.0.0.1:"), "{answer}");
}

#[tokio::test]
async fn an_old_client_gets_an_answer_and_the_end() {
    let server = start(Limits::default());
    let answer = server.exchange("GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"));
    assert!(answer.ends_with("hello"));
}

#[tokio::test]
async fn the_administrative_pages_never_reach_the_service() {
    let server = start(Limits::default());
    let pipeline = [get("/livez"), get("/readyz"), get_and_close("/metrics")].concat();
    let answer = server.exchange(pipeline).await;
    assert_eq!(statuses(&answer), ["200"; 3]);
    assert!(answer.contains("entrepot_connections 1\n"), "{answer}");
    assert!(answer.contains(Metrics::CONTENT_TYPE));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_request_without_one_sound_host_is_refused_and_the_connection_closed() {
    let server = start(Limits::default());
    for head in [
        "GET /v2/ HTTP/1.1\r\n",
        "GET /v2/ HTTP/1.1\r\nHost:\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n",
        "GET http://a.example/v2/ HTTP/1.1\r\nHost: b.example\r\n",
        "GET /livez HTTP/1.1\r\n",
    ] {
        let answer = server.exchange(format!("{head}\r\n{}", get("/next"))).await;
        assert_eq!(statuses(&answer), ["400"], "{head}");
        assert!(answer.contains("connection: close\r\n"), "{head}");
        assert!(answer.ends_with("BadHost"), "{head}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_target_over_its_limit_is_refused() {
    let server = start(Limits::default());
    let longest = format!("/{}", "a".repeat(Limits::TARGET_BYTES - 1));
    let answer = server.exchange(get_and_close(&longest)).await;
    assert_eq!(statuses(&answer), ["200"]);
    let answer = server.exchange(get(&format!("{longest}a"))).await;
    assert_eq!(statuses(&answer), ["414"]);
    assert!(answer.contains("connection: close\r\n"));
}

#[tokio::test]
async fn a_head_over_its_limit_is_refused_whatever_follows() {
    let server = start(Limits::default());
    let long = "a".repeat(Limits::HEAD_BYTES);
    let many = "X: y\r\n".repeat(Limits::HEADERS + 1);
    for head in [
        format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a.example\r\n{many}\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        // Much more than anybody reads before answering.
        format!("GET / HTTP/1.1\r\nX: {}", long.repeat(20)),
    ] {
        let answer = server.exchange(head).await;
        assert_eq!(statuses(&answer), ["431"]);
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn an_upgrade_is_ignored() {
    let server = start(Limits::default());
    let upgrade = "GET /1 HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let answer = server
        .exchange([upgrade, &get_and_close("/2")].concat())
        .await;
    assert_eq!(statuses(&answer), ["200", "200"]);
    assert_eq!(server.seen(), ["GET /1", "GET /2"]);
}

#[tokio::test]
async fn no_tunnel_opens() {
    let server = start(Limits::default());
    let connect = "CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n";
    let answer = server.exchange([connect, &get("/inside")].concat()).await;
    assert_eq!(statuses(&answer), ["405"]);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn http2_is_not_spoken() {
    let server = start(Limits::default());
    let answer = server.exchange("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(answer, "");
}
