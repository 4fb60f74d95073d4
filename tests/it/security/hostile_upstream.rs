//! C-38 to C-40: an upstream that sends without end.

use crate::harness::clock;
use crate::harness::content::{OCI_INDEX, bytes, sha256};
use crate::harness::upstream::{Answer, Body, Guard};
use crate::harness::world::World;

const MANIFEST: &str = "/v2/team/app/manifests/v1";

#[tokio::test]
async fn c38_headers_have_a_limit() {
    let long = format!(
        "HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n",
        "a".repeat(1_000_000)
    );
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Many: a\r\n".repeat(10_000));
    let endless_line = "HTTP/1.1 200 OK\r\nX-Endless: ".to_owned();
    for (head, endless) in [
        (long, None),
        (many, None),
        (endless_line, Some("a".repeat(1000))),
    ] {
        let world = World::new().await;
        let mut answer = Answer::raw(head);
        if let Some(more) = endless {
            answer = answer.body(Body::new(more).endlessly());
        }
        world.upstream.answer("/v2/*", answer);
        world
            .mirror
            .get(MANIFEST)
            .await
            .expect_error(502, "UNAVAILABLE");
        let blob = format!("/v2/team/app/blobs/{}", sha256(b"x"));
        world
            .mirror
            .get(&blob)
            .await
            .expect_error(502, "UNAVAILABLE");
    }
}

#[tokio::test]
async fn c38_interim_answers_without_end_are_not_listened_to_for_ever() {
    let world = World::new().await;
    let interim = Body::new("HTTP/1.1 100 Continue\r\n\r\n").endlessly();
    world
        .upstream
        .answer("/v2/*", Answer::raw("").body(interim));
    let time = async {
        world.upstream.wait_until(1, "GET", MANIFEST).await;
        clock::pass(25).await;
    };
    let (answer, ()) = tokio::join!(world.mirror.get(MANIFEST), time);
    assert!(matches!(answer.status, 502 | 504), "{answer:?}");
}

#[tokio::test]
async fn c38_trailers_without_end_are_not_listened_to_for_ever() {
    let world = World::new().await;
    let content = bytes(1, 1000);
    let digest = sha256(&content);
    let blob = format!("/v2/team/app/blobs/{digest}");
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n";
    let head = [head.as_bytes(), &content, b"\r\n0\r\n"].concat();
    let trailers = Body::new("X-Trailer: a\r\n").endlessly();
    world
        .upstream
        .answer(&blob, Answer::raw(head).body(trailers));
    let time = async {
        world.upstream.wait_until(1, "GET", &blob).await;
        clock::pass(61).await;
    };
    let (answer, ()) = tokio::join!(world.mirror.get(&blob), time);
    assert!(answer.status == 200 || answer.status >= 500, "{answer:?}");
    assert!(answer.status != 200 || content.starts_with(&answer.body));
}

#[tokio::test]
async fn c38_an_answer_that_is_no_http_is_a_502() {
    for raw in [
        "",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: x",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    ] {
        let world = World::new().await;
        world.upstream.answer("/v2/*", Answer::raw(raw));
        let answer = world.mirror.get(MANIFEST).await;
        assert!((500..600).contains(&answer.status), "{raw:?}: {answer:?}");
        let blob = format!("/v2/team/app/blobs/{}", sha256(b"x"));
        let answer = world.mirror.get(&blob).await;
        assert!((500..600).contains(&answer.status), "{raw:?}: {answer:?}");
    }
}

#[tokio::test]
async fn c39_a_bomb_is_not_unpacked() {
    let world = World::new().await;
    let packed = Answer::ok(OCI_INDEX, bytes(1, 1000)).header("Content-Encoding", "gzip");
    world.upstream.answer(MANIFEST, packed);
    let answer = world.mirror.get(MANIFEST).await;
    assert_eq!(answer.status, 502);
}

#[tokio::test]
async fn c40_a_token_without_end_is_not_taken() {
    let world = World::new().await;
    let guard = Guard::bearer(&world.upstream.url("/token"), "x").issuing(|_, _| {
        let endless = Body::new("a".repeat(64 * 1024)).endlessly();
        Answer::ok("application/json", endless)
    });
    guard.stand(&world.upstream, &world.upstream, "/token");
    world
        .mirror
        .get(MANIFEST)
        .await
        .expect_error(502, "UNAVAILABLE");
    let sent = world.upstream.body_bytes("/token");
    assert!(sent < 16 * 1024 * 1024, "{sent}");
}

#[tokio::test]
async fn c40_an_error_without_end_is_not_read() {
    for status in [401, 403, 404, 429, 500] {
        let world = World::new().await;
        let endless = Body::new("a".repeat(64 * 1024)).endlessly();
        world
            .upstream
            .answer("/v2/*", Answer::status(status).body(endless));
        let answer = world.mirror.get(MANIFEST).await;
        assert!(answer.status >= 400, "{status}: {answer:?}");
        let sent = world.upstream.body_bytes("*");
        assert!(sent < 16 * 1024 * 1024, "{status}: {sent}");
    }
}

#[tokio::test]
async fn f14_a_token_answer_that_is_none_is_a_502() {
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"token":""}"#,
        r#"{"token":7}"#,
        "<html>",
        r#"{"token":"a\nb"}"#,
    ] {
        let world = World::new().await;
        let guard = Guard::bearer(&world.upstream.url("/token"), "x")
            .issuing(move |_, _| Answer::ok("application/json", body));
        guard.stand(&world.upstream, &world.upstream, "/token");
        world
            .mirror
            .get(MANIFEST)
            .await
            .expect_error(502, "UNAVAILABLE");
    }
    for status in [500, 503] {
        let world = World::new().await;
        let guard = Guard::bearer(&world.upstream.url("/token"), "x")
            .issuing(move |_, _| Answer::status(status));
        guard.stand(&world.upstream, &world.upstream, "/token");
        world
            .mirror
            .get(MANIFEST)
            .await
            .expect_error(502, "UNAVAILABLE");
    }
}
