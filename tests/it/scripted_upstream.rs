//! The harness against itself: the scripted upstream does what its script says, and the client tells what it saw.

use std::net::SocketAddr;

use crate::harness::client::{Connection, Ending, Request};
use crate::harness::content::{Image, KIB, bytes};
use crate::harness::gate::Gate;
use crate::harness::upstream::{Answer, Body, Declared, End, Guard, Upstream};

fn address(upstream: &Upstream) -> SocketAddr {
    upstream.host().parse().expect("an address")
}

#[tokio::test]
async fn by_default_it_is_a_registry() {
    let upstream = Upstream::start().await;
    let image = Image::new(1);
    upstream.put_image("team/app", "v1", &image);
    let get = |path: &str| Request::get(path).send(address(&upstream));

    assert_eq!(get("/v2/").await.status, 200);
    let manifest = get("/v2/team/app/manifests/v1").await;
    let digest = image.manifest.digest();
    assert_eq!(manifest.header("docker-content-digest"), Some(&*digest));
    assert_eq!(manifest.expect(200), image.manifest.bytes);
    let digest = upstream.put_blob("team/app", bytes(7, 2048));
    let blob = format!("/v2/team/app/blobs/{digest}");
    assert_eq!(get(&blob).await.expect(200), bytes(7, 2048));
    assert_eq!(get("/v2/team/app/manifests/v2").await.status, 404);
    assert_eq!(get("/v2/team/other/manifests/v1").await.status, 404);

    let head = Request::head(&blob).send(address(&upstream)).await;
    assert_eq!(head.header("content-length"), Some("2048"));
    let part = Request::get(&blob).header("Range", "bytes=2000-");
    let part = part.send(address(&upstream)).await;
    assert_eq!(part.header("content-range"), Some("bytes 2000-2047/2048"));
    assert_eq!(part.expect(206), bytes(7, 2048).slice(2000..));

    assert_eq!(upstream.requests("GET", &blob).len(), 2);
    assert_eq!(upstream.body_bytes(&blob), 2048 + 48);
}

#[tokio::test]
async fn bodies_follow_their_script() {
    let upstream = Upstream::start().await;
    let content = bytes(1, 200 * KIB);
    let get = |body: Body| {
        let digest = upstream.put_blob("a", body);
        Request::get(&format!("/v2/a/blobs/{digest}")).send(address(&upstream))
    };

    let cut = get(Body::new(content.clone()).cut_at(1000, End::Fin, 1)).await;
    assert_eq!((cut.ending, cut.body.len()), (Ending::Short, 1000));
    let reset = get(Body::new(content.clone()).cut_at(1000, End::Rst, 1)).await;
    assert_eq!(reset.ending, Ending::Reset);
    let wrong = get(Body::new(content.clone()).wrong_byte_at(5)).await;
    assert_eq!(wrong.body[6..], content[6..]);
    assert_ne!(wrong.body[5], content[5]);
    let short = get(Body::new(content.clone()).declare(Declared::Bytes(300 * 1024))).await;
    assert_eq!((short.ending, short.body.len()), (Ending::Short, 200 * KIB));
    let open = get(Body::new(content.clone()).declare(Declared::Nothing)).await;
    assert_eq!(open.header("content-length"), None);
    assert_eq!(open.expect(200), content);
    let dripped = get(Body::new(content.clone()).drip(1000)).await;
    assert_eq!(dripped.expect(200), content);
}

#[tokio::test]
async fn a_stalled_body_waits_for_its_gate() {
    let upstream = Upstream::start().await;
    let (before, within) = (Gate::closed(), Gate::closed());
    let body = Body::new(bytes(1, 3000))
        .after(&before)
        .stall_at(1000, &within);
    let digest = upstream.put_blob("a", body);
    let pull = async {
        let path = format!("/v2/a/blobs/{digest}");
        let mut pull = Request::get(&path).open(address(&upstream)).await;
        let first = pull.read(1000).await;
        within.open();
        let rest = pull.finish().await.expect(200);
        [first, rest].concat()
    };
    let open = async {
        before.reached().await;
        before.open();
        within.reached().await;
    };
    let (content, ()) = tokio::join!(pull, open);
    assert_eq!(content, bytes(1, 3000));
}

#[tokio::test]
async fn a_raw_answer_is_sent_as_it_is_and_the_connection_ends() {
    let upstream = Upstream::start().await;
    upstream.answer("/v2/a/*", Answer::raw("HTTP/1.1 200 OK\r\n"));
    let mut connection = Connection::open(address(&upstream)).await;
    connection.write(&Request::get("/v2/a/x").to_bytes()).await;
    assert_eq!(connection.read_to_end().await, "HTTP/1.1 200 OK\r\n");
}

#[tokio::test]
async fn a_stopped_upstream_refuses_and_a_resumed_one_answers() {
    let upstream = Upstream::start().await;
    upstream.stop().await;
    let refused = tokio::net::TcpStream::connect(address(&upstream)).await;
    assert!(refused.is_err());
    upstream.resume().await;
    let ping = Request::get("/v2/").send(address(&upstream)).await;
    ping.expect(200);
}

#[tokio::test]
async fn a_guarded_registry_wants_a_token_for_the_repository() {
    let upstream = Upstream::start().await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    let guard = Guard::bearer(&upstream.url("/token"), "registry.test");
    guard.stand(&upstream, &upstream, "/token");
    let manifest = Request::get("/v2/team/app/manifests/v1");

    let refused = manifest.clone().send(address(&upstream)).await;
    let expected = format!(
        r#"Bearer realm="{}",service="registry.test",scope="repository:team/app:pull""#,
        upstream.url("/token")
    );
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("www-authenticate"), Some(&*expected));

    let token = Request::get("/token?scope=repository:team/app:pull");
    token.send(address(&upstream)).await.expect(200);
    let with_token = manifest.header("Authorization", "Bearer token-1");
    with_token
        .clone()
        .send(address(&upstream))
        .await
        .expect(200);
    let other =
        Request::get("/v2/team/other/manifests/v1").header("Authorization", "Bearer token-1");
    assert_eq!(other.send(address(&upstream)).await.status, 401);
    guard.revoke();
    assert_eq!(
        with_token.clone().send(address(&upstream)).await.status,
        401
    );
}

#[tokio::test]
async fn several_requests_go_over_one_connection() {
    let upstream = Upstream::start().await;
    let mut connection = Connection::open(address(&upstream)).await;
    for _ in 0..3 {
        connection.write(&Request::get("/v2/").to_bytes()).await;
        let pull = connection.pull("GET").await.expect("an answer");
        let (answer, kept) = pull.finish_and_keep().await;
        answer.expect(200);
        connection = kept;
    }
    assert_eq!(upstream.connections(), 1);
    assert_eq!(upstream.log().len(), 3);
}
