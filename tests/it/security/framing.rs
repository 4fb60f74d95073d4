//! C-33 to C-37: where one request ends and the next begins, and how long it may take.

use crate::harness::client::{Connection, Request};
use crate::harness::clock;
use crate::harness::mirror::Mirror;
use crate::harness::world::World;

/// Sends `head` and then two requests: one that would be smuggled, and one that ends the connection. Gives the
/// statuses of what comes back.
async fn statuses(mirror: &Mirror, head: &str) -> Vec<String> {
    let smuggled = Request::get("/v2/smuggled/app/manifests/v1").to_bytes();
    let last = Request::get("/v2/")
        .header("Connection", "close")
        .to_bytes();
    let mut connection = Connection::open(mirror.address).await;
    let all = [head.as_bytes(), &smuggled, &last].concat();
    connection.write(&all).await;
    let answers = connection.read_to_end().await;
    answers
        .windows(12)
        .filter(|twelve| twelve.starts_with(b"HTTP/1.1 "))
        .map(|twelve| String::from_utf8_lossy(&twelve[9..]).into_owned())
        .collect()
}

const GET: &str = "GET /v2/ HTTP/1.1\r\nHost: mirror.test\r\n";

#[tokio::test]
async fn c33_a_request_with_two_ways_to_read_it_ends_the_connection() {
    let world = World::new().await;
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "Content-Length: +5\r\n\r\n",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 0x5\r\n\r\n",
        "Content-Length: 5 5\r\n\r\n",
        "Content-Length: 99999999999999999999999\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n",
        "X-Folded: a\r\n b\r\n\r\n",
        "X Space: a\r\n\r\n",
        "X-Space : a\r\n\r\n",
        ": nameless\r\n\r\n",
        "X-Nul: a\0b\r\n\r\n",
        "X-Return: a\rb\r\n\r\n",
    ] {
        let statuses = statuses(&world.mirror, &format!("{GET}{lines}")).await;
        assert_eq!(statuses, ["400"], "{lines:?}");
    }
    assert_eq!(world.upstream.connections(), 0);
}

#[tokio::test]
async fn c33_chunks_whose_size_is_none_end_the_connection() {
    let world = World::new().await;
    for chunks in [
        "fffffffffffffffff\r\n",
        "-1\r\n",
        "0x5\r\n",
        "zz\r\n",
        "\r\n",
    ] {
        let head = format!("{GET}Transfer-Encoding: chunked\r\n\r\n{chunks}");
        let statuses = statuses(&world.mirror, &head).await;
        // The answer may be out before the body is looked at; but nothing follows it.
        assert!(statuses.len() <= 1, "{chunks:?}: {statuses:?}");
    }
    assert_eq!(world.upstream.connections(), 0);
}

#[tokio::test]
async fn c33_length_and_chunks_together_smuggle_nothing() {
    let world = World::new().await;
    // RFC 9112 section 6.3: the chunks count, and the connection should end.
    let head = format!("{GET}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    let found = statuses(&world.mirror, &head).await;
    assert!(found.len() <= 3 && !found.is_empty(), "{found:?}");
    let old = "GET /v2/ HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let found = statuses(&world.mirror, old).await;
    assert_eq!(found.len(), 1, "{found:?}");
}

#[tokio::test]
async fn c34_the_body_of_a_get_is_never_a_request() {
    let world = World::new().await;
    let hidden = Request::get("/v2/hidden/app/manifests/v1").to_bytes();
    let hidden = String::from_utf8(hidden).expect("text");
    for method in ["GET", "HEAD"] {
        let length = hidden.len();
        let with_length = format!(
            "{method} /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{hidden}"
        );
        let chunked = format!(
            "{method} /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
             {length:x}\r\n{hidden}\r\n0\r\n\r\n"
        );
        for head in [with_length, chunked] {
            let statuses = statuses(&world.mirror, &head).await;
            // What follows the body is not smuggled: it may be answered. What is in it may not.
            let skipped = statuses == ["200", "404", "200"];
            assert!(skipped || statuses == ["200"], "{method}: {statuses:?}");
        }
    }
    assert!(world.upstream.requests("GET", "/v2/hidden/*").is_empty());
}

#[tokio::test]
async fn c35_no_other_protocol_is_switched_to() {
    let world = World::new().await;
    for (connection, upgrade) in [
        ("Upgrade", "websocket"),
        ("upgrade, x", "h2c"),
        ("Upgrade, HTTP2-Settings", "h2c"),
        ("Upgrade", "TLS/1.0"),
    ] {
        let request = Request::get("/v2/")
            .header("Connection", connection)
            .header("Upgrade", upgrade)
            .header("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA");
        world.mirror.send(request).await.expect(200);
    }
    let mut connection = Connection::open(world.mirror.address).await;
    connection.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let answer = connection.read_to_end().await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 "),
        "{}",
        answer.escape_ascii()
    );
}

#[tokio::test]
async fn c36_a_target_has_a_limit() {
    let world = World::new().await;
    let of = |length: usize| format!("/v2/team/app/manifests/{}", "a".repeat(length - 23));
    world
        .mirror
        .get(&of(8000))
        .await
        .expect_error(400, "NAME_INVALID");
    for length in [8300, 12_000, 15_000] {
        let answer = Request::get(&of(length)).send(world.mirror.address).await;
        assert_eq!(answer.status, 414, "{length}: {answer:?}");
    }
    assert_eq!(world.upstream.connections(), 0);
}

#[tokio::test]
async fn c36_a_head_has_a_limit() {
    let world = World::new().await;
    let long = Request::get("/v2/").header("X-Long", "a".repeat(17 * 1024));
    assert_eq!(long.send(world.mirror.address).await.status, 431);
    let plain = Request::get("/v2/");
    let many = (0..120).fold(plain, |request, n| request.header(&format!("X-{n}"), "a"));
    assert_eq!(many.send(world.mirror.address).await.status, 431);
    let usual = Request::get("/v2/").header("X-Long", "a".repeat(7 * 1024));
    usual.send(world.mirror.address).await.expect(200);
}

#[tokio::test]
async fn c37_a_head_that_takes_too_long_ends_the_connection() {
    let world = World::new().await;
    for begun in [
        "",
        "GET",
        "GET /v2/ HTTP/1.1\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Dri",
    ] {
        let mut slow = Connection::open(world.mirror.address).await;
        slow.write(begun.as_bytes()).await;
        // The mirror has taken the slow one when it answers another that came after it.
        world.mirror.get("/v2/").await.expect(200);
        let ending = slow.read_to_end();
        let time = async {
            for _ in 0..2 {
                world.mirror.get("/v2/").await.expect(200);
            }
            clock::pass(61).await;
        };
        tokio::join!(ending, time);
    }
}

#[tokio::test]
async fn c37_a_head_that_drips_is_not_waited_for_either() {
    let world = World::new().await;
    let mut slow = Connection::open(world.mirror.address).await;
    slow.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n").await;
    world.mirror.get("/v2/").await.expect(200);
    // A byte now and then does not start the time anew.
    for _ in 0..6 {
        slow.write(b"X: y\r\n").await;
        clock::pass(2).await;
        world.mirror.get("/v2/").await.expect(200);
    }
    slow.write(b"\r\n").await;
    let answer = slow.read_to_end().await;
    assert!(
        !answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        answer.escape_ascii()
    );
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let world = World::new().await;
    let mut connection = Connection::open(world.mirror.address).await;
    connection.write(&Request::get("/v2/").to_bytes()).await;
    let pull = connection.pull("GET").await.expect("an answer");
    let (answer, connection) = pull.finish_and_keep().await;
    answer.expect(200);
    clock::pass(600).await;
    assert!(connection.read_to_end().await.is_empty());
}
