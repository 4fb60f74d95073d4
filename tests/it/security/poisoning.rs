//! C-51 to C-53: what neither an upstream nor a client can make the cache say.

use std::fs;

use serde_json::Value;

use crate::harness::client::Request;
use crate::harness::content::{Image, OCI_IMAGE, bytes, sha256};
use crate::harness::upstream::{Answer, Body};
use crate::harness::world::{REGISTRY, World};

const TAG: &str = "/v2/team/app/manifests/v1";
const HOUR: i64 = 60 * 60;

#[tokio::test]
async fn c51_an_old_tag_that_is_kept_up_is_bounded_and_visible_and_no_matter_of_digests() {
    let world = World::with_line("manifests: { ttl: 15m, stale_if_error: 1h }").await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    world.mirror.get(TAG).await.expect(200);
    // Whoever wants the old tag to stay keeps the upstream away.
    world.upstream.stop().await;
    world.mirror.clock.advance(HOUR);
    let answer = world.mirror.get(TAG).await;
    let warning = answer.header("Warning").unwrap_or_default();
    assert!(warning.starts_with("299 - "), "{answer:?}");
    let status = answer.header("Cache-Status").unwrap_or_default();
    assert!(status.starts_with("entrepot; hit; ttl=-"), "{answer:?}");
    assert_eq!(answer.expect(200), image.manifest.bytes);
    let metrics = world.mirror.metrics().await;
    let counted = metrics.lines().any(|line| {
        line.starts_with("entrepot_requests_total")
            && line.contains(REGISTRY)
            && line.contains("result=\"stale\"")
            && line.ends_with(" 1")
    });
    assert!(counted, "{metrics}");
    world.mirror.clock.advance(HOUR);
    world.mirror.get(TAG).await.expect_error(502, "UNAVAILABLE");
    let target = format!("/v2/team/app/manifests/{}", image.manifest.digest());
    assert_eq!(
        world.mirror.get(&target).await.expect(200),
        image.manifest.bytes
    );
}

#[tokio::test]
async fn c52_no_method_on_any_path_makes_a_tag_point_elsewhere() {
    let world = World::new().await;
    let (right, wrong) = (Image::new(1), Image::new(2));
    for tag in ["v1", "latest"] {
        world.upstream.put_image("team/app", tag, &right);
        world
            .mirror
            .get(&format!("/v2/team/app/manifests/{tag}"))
            .await
            .expect(200);
    }
    let digest = wrong.manifest.digest();
    let blob = sha256(&wrong.blobs[0]);
    let paths = [
        TAG.to_owned(),
        "/v2/team/app/manifests/latest".to_owned(),
        format!("/v2/team/app/manifests/latest?ns={REGISTRY}"),
        format!("/v2/{REGISTRY}/team/app/manifests/latest"),
        format!("/v2/team/app/manifests/{digest}"),
        format!("/v2/team/app/blobs/{blob}"),
        "/v2/team/app/blobs/uploads/".to_owned(),
        format!("/v2/team/app/blobs/uploads/?digest={blob}"),
        format!("/v2/team/app/blobs/uploads/?mount={blob}&from=other"),
        "/v2/team/app/blobs/uploads/1".to_owned(),
        "/v2/team/app/tags/list".to_owned(),
        format!("/v2/team/app/referrers/{digest}"),
        "/v2/".to_owned(),
        "/metrics".to_owned(),
        "/livez".to_owned(),
    ];
    // What was pulled is on its way to disk for a moment.
    let before = loop {
        let files = world.mirror.files();
        let n_below = |folder: &str| {
            let below = files.iter().filter(|(path, _)| path.starts_with(folder));
            below.count()
        };
        if n_below("v1/ingest") == 0 && n_below("v1/tags") == 2 && n_below("v1/manifests") == 1 {
            break files;
        }
        tokio::task::yield_now().await;
    };
    world.upstream.forget();
    for method in [
        "POST", "PUT", "PATCH", "DELETE", "PURGE", "MOVE", "COPY", "LINK", "OPTIONS",
    ] {
        for path in &paths {
            let length = wrong.manifest.bytes.len().to_string();
            let request = Request::new(method, path)
                .header("Content-Type", OCI_IMAGE)
                .header("Content-Length", length)
                .header("X-HTTP-Method-Override", "PUT");
            let mut connection =
                crate::harness::client::Connection::open(world.mirror.address).await;
            connection.write(&request.to_bytes()).await;
            connection.write(&wrong.manifest.bytes).await;
            let answered = connection.pull(method).await.expect("an answer");
            assert!((400..500).contains(&answered.status), "{method} {path}");
        }
    }
    assert_eq!(world.mirror.files(), before);
    assert!(world.upstream.log().is_empty(), "nothing is passed on");
    for tag in ["v1", "latest"] {
        let answer = world
            .mirror
            .get(&format!("/v2/team/app/manifests/{tag}"))
            .await;
        assert_eq!(answer.expect(200), right.manifest.bytes);
    }
}

#[tokio::test]
async fn c53_nothing_but_what_hashes_right_is_kept_and_a_tag_record_holds_a_digest() {
    let world = World::new().await;
    let image = Image::new(1);
    let content = bytes(9, 20_000);
    let digest = sha256(&content);
    let target = format!("/v2/team/app/blobs/{digest}");
    let page = Answer::ok("text/html", "<html>log in here</html>");
    let encoded = Answer::ok(OCI_IMAGE, image.manifest.bytes.clone());
    let partial = Body::new(content.clone()).wrong_byte_at(19_999);
    for (path, answer) in [
        (TAG, page.clone()),
        (TAG, Answer::ok("application/json", "{\"errors\":[]}")),
        (TAG, encoded.header("Content-Encoding", "gzip")),
        (&*target, page.clone()),
        (
            &*target,
            Answer::ok("application/octet-stream", content.slice(..19_000)),
        ),
        (&*target, Answer::ok("application/octet-stream", partial)),
    ] {
        world.upstream.answer(path, answer);
        let got = world.mirror.get(path).await;
        let is_whole = got.status == 200 && got.body.len() == content.len();
        assert!(!is_whole, "{path}: {got:?}");
        world.upstream.behave();
        for (file, size) in world.mirror.files() {
            let is_shelved = ["v1/blobs", "v1/private", "v1/tags", "v1/manifests"]
                .iter()
                .any(|shelf| file.starts_with(shelf));
            assert!(!is_shelved, "{path}: {file:?} with {size} bytes");
        }
    }
    // What is right is kept: bytes by what they hash to, and of the tag no more than a digest.
    world.upstream.put_image("team/app", "v1", &image);
    world.upstream.put_blob("team/app", content.clone());
    let tag = "/v2/team/app/manifests/v1";
    while world.mirror.get(tag).await.status != 200 {
        // It did not have the tag a moment ago, as far as it said.
        world.mirror.clock.advance(3);
    }
    assert_eq!(world.mirror.get(&target).await.expect(200), content);
    world.mirror.wait_until_stored(&digest).await;
    world
        .mirror
        .wait_until_stored(&image.manifest.digest())
        .await;
    let mut world = world;
    world.mirror.stop().await;
    let mut tags = 0;
    for (file, _) in world.mirror.files() {
        let bytes = fs::read(world.mirror.directory.path().join(&file)).expect("a file");
        if file.starts_with("v1/blobs") {
            let name = file
                .file_name()
                .and_then(|name| name.to_str())
                .expect("a name");
            assert_eq!(sha256(&bytes), format!("sha256:{name}"));
        } else if file.starts_with("v1/tags") {
            let record: Value = serde_json::from_slice(&bytes).expect("JSON");
            assert!(
                record.to_string().contains(&image.manifest.digest()),
                "{record}"
            );
            assert!(!record.to_string().contains("layers"), "{record}");
            tags += 1;
        }
    }
    assert_eq!(tags, 1);
}
