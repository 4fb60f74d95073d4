//! C-16: the Host header, and what proxies add.

use crate::harness::client::{Connection, Request};
use crate::harness::content::Image;
use crate::harness::world::World;

async fn world() -> World {
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    world
}

#[tokio::test]
async fn c16_two_hosts_are_one_too_many() {
    let world = world().await;
    let request = Request::get("/v2/team/app/manifests/v1")
        .header("Host", "a.example")
        .header("Host", "b.example");
    assert_eq!(request.send(world.mirror.address).await.status, 400);
    assert_eq!(world.upstream.connections(), 0);
}

#[tokio::test]
async fn c16_a_target_that_names_another_host_than_the_header_is_refused() {
    let world = world().await;
    let target = "http://other.example/v2/team/app/manifests/v1";
    let answer = Request::get(target).send(world.mirror.address).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(world.upstream.connections(), 0);
}

#[tokio::test]
async fn c16_a_target_that_names_the_same_host_is_served() {
    let world = world().await;
    let target = "http://mirror.test/v2/team/app/manifests/v1";
    Request::get(target)
        .send(world.mirror.address)
        .await
        .expect(200);
}

#[tokio::test]
async fn c16_forwarded_headers_change_nothing() {
    let world = world().await;
    let elsewhere = crate::harness::upstream::Upstream::start().await;
    let host = elsewhere.host();
    let request = Request::get("/v2/team/app/manifests/v1")
        .header("X-Forwarded-Host", &host)
        .header("X-Forwarded-Proto", "https")
        .header("Forwarded", format!("host=\"{host}\""))
        .header("X-Registry", &host)
        .header("X-Original-URL", "/v2/team/other/manifests/v1");
    world.mirror.send(request).await.expect(200);
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn c16_the_host_is_never_dialled() {
    let world = world().await;
    let elsewhere = crate::harness::upstream::Upstream::start().await;
    for host in [
        &*elsewhere.host(),
        "169.254.169.254",
        "a.b.c.example",
        "[::1]",
        "",
    ] {
        let request = Request::get("/v2/team/app/manifests/v1").header("Host", host);
        let answer = request.send(world.mirror.address).await;
        assert!(matches!(answer.status, 200 | 400), "{host}: {answer:?}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn c16_a_host_that_is_none_is_refused() {
    let world = world().await;
    for host in ["a b", "a/b", "user@host", "a\u{fc}"] {
        let request = Request::get("/v2/team/app/manifests/v1").header("Host", host);
        let answer = request
            .header("Connection", "close")
            .send(world.mirror.address)
            .await;
        assert!(matches!(answer.status, 200 | 400), "{host}: {answer:?}");
    }
    // HTTP/1.1 without one (RFC 9112 section 3.2).
    let mut connection = Connection::open(world.mirror.address).await;
    let request = b"GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n";
    connection.write(request).await;
    let answer = connection.read_to_end().await;
    assert!(
        answer.starts_with(b"HTTP/1.1 400"),
        "{}",
        answer.escape_ascii()
    );
}
