//! A9: nothing can be written here.

use crate::harness::answers::check_common;
use crate::harness::client::{Connection, Request};
use crate::harness::world::{Way, World};

fn targets() -> Vec<(&'static str, String)> {
    let digest = format!("sha256:{}", "a".repeat(64));
    let upload = "team/app/blobs/uploads/0f3a".to_owned();
    vec![
        ("POST", "team/app/blobs/uploads/".to_owned()),
        ("PATCH", upload.clone()),
        ("PUT", upload.clone()),
        ("DELETE", upload.clone()),
        ("PUT", "team/app/manifests/v1".to_owned()),
        ("PUT", format!("team/app/manifests/{digest}")),
        ("DELETE", format!("team/app/manifests/{digest}")),
        ("DELETE", "team/app/manifests/v1".to_owned()),
        ("DELETE", format!("team/app/blobs/{digest}")),
        ("POST", "team/app/manifests/v1".to_owned()),
        ("PATCH", format!("team/app/blobs/{digest}")),
        ("DELETE", "team/app/tags/v1".to_owned()),
        ("PUT", "_catalog".to_owned()),
        ("POST", String::new()),
        ("DELETE", "../../etc/manifests/x".to_owned()),
        ("PURGE", format!("team/app/blobs/{digest}")),
    ]
}

#[tokio::test]
async fn a9_every_write_is_refused() {
    let world = World::new().await;
    let before = world.mirror.files();
    for (method, rest) in targets() {
        for way in Way::ALL {
            let target = way.target(&rest);
            let answer = world.mirror.send(Request::new(method, &target)).await;
            assert_eq!(
                answer.header("Allow"),
                Some("GET, HEAD"),
                "{method} {target}"
            );
            answer.expect_error(405, "UNSUPPORTED");
        }
    }
    assert_eq!(world.upstream.connections(), 0);
    assert_eq!(world.mirror.files(), before);
}

#[tokio::test]
async fn a9_a_mount_or_a_whole_upload_is_refused() {
    let world = World::new().await;
    let digest = format!("sha256:{}", "a".repeat(64));
    for query in [
        format!("mount={digest}&from=team/other"),
        format!("digest={digest}"),
    ] {
        let target = format!("/v2/team/app/blobs/uploads/?{query}");
        let answer = world.mirror.send(Request::new("POST", &target)).await;
        answer.expect_error(405, "UNSUPPORTED");
    }
    assert_eq!(world.upstream.connections(), 0);
}

#[tokio::test]
async fn a9_the_body_of_a_write_is_not_waited_for() {
    let world = World::new().await;
    for expecting in [false, true] {
        let request = Request::new("PUT", "/v2/team/app/manifests/v1");
        let mut request = request.header("Content-Length", "1073741824");
        if expecting {
            request = request.header("Expect", "100-continue");
        }
        // None of the body is sent, and yet there is an answer.
        let answer = request.send(world.mirror.address).await;
        check_common("PUT", "/v2/", &answer);
        answer.expect_error(405, "UNSUPPORTED");
    }
}

#[tokio::test]
async fn a9_no_continue_is_sent_for_a_write() {
    let world = World::new().await;
    let mut connection = Connection::open(world.mirror.address).await;
    let request = Request::new("POST", "/v2/team/app/blobs/uploads/")
        .header("Content-Length", "1000")
        .header("Expect", "100-continue")
        .header("Connection", "close");
    connection.write(&request.to_bytes()).await;
    let answer = connection.read_to_end().await;
    assert!(
        answer.starts_with(b"HTTP/1.1 405"),
        "{}",
        answer.escape_ascii()
    );
}

#[tokio::test]
async fn a9_the_body_of_a_write_is_never_taken_for_a_request() {
    let world = World::new().await;
    let mut connection = Connection::open(world.mirror.address).await;
    let hidden = Request::get("/v2/team/app/manifests/hidden").to_bytes();
    let write = Request::new("PUT", "/v2/team/app/manifests/v1")
        .header("Content-Length", hidden.len().to_string());
    let next = Request::get("/v2/").header("Connection", "close");
    let all = [write.to_bytes(), hidden, next.to_bytes()].concat();
    connection.write(&all).await;
    let answers = connection.read_to_end().await;
    let statuses: Vec<_> = answers
        .windows(12)
        .filter(|twelve| twelve.starts_with(b"HTTP/1.1 "))
        .map(|twelve| &twelve[9..])
        .collect();
    // The body was skipped, or the connection closed over it.
    let skipped = statuses == [b"405", b"200"];
    assert!(
        skipped || statuses == [b"405"],
        "{}",
        answers.escape_ascii()
    );
    assert_eq!(world.upstream.connections(), 0);
}

#[tokio::test]
async fn a9_other_methods_are_not_proxied() {
    let world = World::new().await;
    let address = world.upstream.host();
    for (method, target) in [
        ("OPTIONS", "/v2/"),
        ("OPTIONS", "*"),
        ("TRACE", "/v2/"),
        ("CONNECT", &*address),
        ("PROPFIND", "/v2/team/app/manifests/v1"),
    ] {
        let answer = Request::new(method, target)
            .send(world.mirror.address)
            .await;
        assert!(
            matches!(answer.status, 400 | 405 | 501),
            "{method}: {answer:?}"
        );
    }
    assert_eq!(world.upstream.connections(), 0);
}
