//! A3: blobs that upstream sends as it should. What becomes of the others is in `concurrent_pulls` and `faults`.

use crate::harness::client::Request;
use crate::harness::content::{KIB, MIB, bytes, sha256, sha512};
use crate::harness::gate::Gate;
use crate::harness::upstream::{Answer, Body, Declared, Upstream};
use crate::harness::world::{World, everywhere};

#[tokio::test]
async fn a3_1_a_blob_is_its_bytes_and_their_description() {
    let content = bytes(1, 200 * KIB);
    let (short, long) = (sha256(&content), sha512(&content));
    let prepare = |upstream: &Upstream| {
        upstream.put_blob("team/app", content.clone());
        upstream.put_blob_as("team/app", &long, content.clone());
    };
    everywhere(prepare, async |mirror, way, _| {
        for digest in [&short, &long] {
            let target = way.target(&format!("team/app/blobs/{digest}"));
            // HEAD first: where it is cold, it must not need the bytes.
            let (head, get) = (mirror.head(&target).await, mirror.get(&target).await);
            for answer in [&head, &get] {
                let length = content.len().to_string();
                assert_eq!(answer.status, 200);
                assert_eq!(answer.header("Content-Length"), Some(&*length));
                assert_eq!(answer.header("Docker-Content-Digest"), Some(&**digest));
                assert_eq!(answer.header("ETag"), Some(&*format!("\"{digest}\"")));
                assert_eq!(answer.header("Accept-Ranges"), Some("bytes"));
                let media_type = answer.header("Content-Type");
                assert_eq!(media_type, Some("application/octet-stream"));
            }
            assert_eq!(get.expect(200), content);
        }
    })
    .await;
}

#[tokio::test]
async fn a3_2_a_first_head_costs_no_body() {
    let world = World::new().await;
    let digest = world.upstream.put_blob("team/app", bytes(1, MIB));
    let target = format!("/v2/team/app/blobs/{digest}");
    world.mirror.head(&target).await.expect(200);
    assert_eq!(world.upstream.body_bytes("*"), 0);
}

#[tokio::test]
async fn a3_3_what_upstream_does_not_have_is_unknown() {
    let world = World::new().await;
    world.upstream.put_blob("team/app", bytes(1, 10));
    let absent = format!("sha256:{}", "0".repeat(64));
    let target = format!("/v2/team/app/blobs/{absent}");
    for _ in 0..2 {
        assert_eq!(world.mirror.head(&target).await.status, 404);
        world
            .mirror
            .get(&target)
            .await
            .expect_error(404, "BLOB_UNKNOWN");
    }
}

#[tokio::test]
async fn a3_4_the_smallest_blobs_are_whole() {
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let object = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let prepare = |upstream: &Upstream| {
        assert_eq!(upstream.put_blob("team/app", ""), empty);
        assert_eq!(upstream.put_blob("team/app", "{}"), object);
    };
    everywhere(prepare, async |mirror, way, _| {
        for (digest, content) in [(empty, ""), (object, "{}")] {
            let target = way.target(&format!("team/app/blobs/{digest}"));
            let length = content.len().to_string();
            let head = mirror.head(&target).await;
            assert_eq!(head.header("Content-Length"), Some(&*length));
            let get = mirror.get(&target).await;
            assert_eq!(get.header("Content-Length"), Some(&*length));
            assert_eq!(get.header("Docker-Content-Digest"), Some(digest));
            assert_eq!(get.expect(200), content);
        }
    })
    .await;
}

#[tokio::test]
async fn a3_5_bytes_flow_while_the_rest_is_on_its_way() {
    let world = World::new().await;
    let content = bytes(1, 4 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(MIB, &gate);
    let digest = world.upstream.put_blob("team/app", body);
    let target = format!("/v2/team/app/blobs/{digest}");

    let mut pull = Request::get(&target).open(world.mirror.address).await;
    let first = pull.read(MIB - 128 * KIB).await;
    gate.open();
    let rest = pull.finish().await.expect(200);
    assert_eq!([first, rest].concat(), content);
}

#[tokio::test]
async fn a3_10_a_blob_of_undeclared_length_is_served_whole() {
    for declared in [Declared::Nothing, Declared::Chunked] {
        let world = World::new().await;
        let content = bytes(1, 300 * KIB);
        let body = Body::new(content.clone()).declare(declared);
        let digest = world.upstream.put_blob("team/app", body);
        let target = format!("/v2/team/app/blobs/{digest}");
        for _ in 0..2 {
            assert_eq!(world.mirror.get(&target).await.expect(200), content);
        }
    }
}

#[tokio::test]
async fn a3_12_a_client_that_takes_gzip_gets_the_bytes_as_they_are() {
    let content = bytes(1, 100 * KIB);
    let digest = sha256(&content);
    let prepare = |upstream: &Upstream| {
        upstream.put_blob("team/app", content.clone());
    };
    everywhere(prepare, async |mirror, way, _| {
        let target = way.target(&format!("team/app/blobs/{digest}"));
        let encodings = "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5";
        let request = Request::get(&target).header("Accept-Encoding", encodings);
        assert_eq!(mirror.send(request).await.expect(200), content);
    })
    .await;
}

#[tokio::test]
async fn a3_12_upstream_is_asked_for_the_bytes_as_they_are() {
    let world = World::new().await;
    let digest = world.upstream.put_blob("team/app", bytes(1, 100));
    let blob = format!("/v2/team/app/blobs/{digest}");
    for target in [&*blob, "/v2/team/app/manifests/v1"] {
        world.mirror.head(target).await;
        let request = Request::get(target).header("Accept-Encoding", "gzip");
        world.mirror.send(request).await;
    }
    for request in world.upstream.log() {
        assert_eq!(
            request.header("Accept-Encoding"),
            Some("identity"),
            "{request:?}"
        );
    }
}

#[tokio::test]
async fn a3_13_an_encoded_blob_is_not_taken() {
    for encoding in ["gzip", "x-gzip", "zstd", "gzip, identity"] {
        let world = World::new().await;
        let content = bytes(1, 100 * KIB);
        let digest = sha256(&content);
        let encoded = Body::new(content).header("Content-Encoding", encoding);
        world.upstream.put_blob_as("team/app", &digest, encoded);
        let target = format!("/v2/team/app/blobs/{digest}");
        world
            .mirror
            .get(&target)
            .await
            .expect_error(502, "UNAVAILABLE");
        assert!(!world.mirror.has(&digest));
    }
}

#[tokio::test]
async fn a3_13_identity_is_no_encoding() {
    let world = World::new().await;
    let content = bytes(1, 100);
    let body = Body::new(content.clone()).header("Content-Encoding", "identity");
    let digest = world.upstream.put_blob("team/app", body);
    let target = format!("/v2/team/app/blobs/{digest}");
    assert_eq!(world.mirror.get(&target).await.expect(200), content);
}

#[tokio::test]
async fn a_blob_is_stored_once_for_all_its_repositories() {
    let content = bytes(1, 100 * KIB);
    let digest = sha256(&content);
    let prepare = |upstream: &Upstream| {
        upstream.put_blob("team/app", content.clone());
        upstream.put_blob("team/other", content.clone());
    };
    everywhere(prepare, async |mirror, way, state| {
        for name in ["team/app", "team/other"] {
            let target = way.target(&format!("{name}/blobs/{digest}"));
            assert_eq!(mirror.get(&target).await.expect(200), content, "{state:?}");
        }
        mirror.wait_until_stored(&digest).await;
    })
    .await;
}

#[tokio::test]
async fn f11_a_page_is_no_blob() {
    let world = World::new().await;
    let digest = sha256(&bytes(1, 5000));
    let target = format!("/v2/team/app/blobs/{digest}");
    let page = Answer::ok("text/html", "<html>Please log in.</html>");
    world.upstream.answer(&target, page);
    let answer = world.mirror.get(&target).await;
    let is_whole = answer.status == 200 && answer.body.starts_with(b"<html>");
    assert!(!is_whole || answer.ending != crate::harness::client::Ending::Complete);
    assert!(!world.mirror.has(&digest));
}
