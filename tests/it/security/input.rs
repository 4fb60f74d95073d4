//! C-1 to C-11: names, tags and digests.

use serde_json::json;

use crate::harness::client::Request;
use crate::harness::content::{Image, Manifest, OCI_IMAGE, OCI_INDEX, bytes, sha512};
use crate::harness::world::{Way, World};

/// Checks that every target, by every way in, is refused with `code` and without a trace.
async fn is_refused(rests: &[String], code: &str) {
    let world = World::new().await;
    let before = world.mirror.files();
    for rest in rests {
        for way in Way::ALL {
            let target = way.target(rest);
            let (status, found) = world.mirror.get(&target).await.outcome();
            assert_eq!((status, &*found), (400, code), "{target}");
            assert_eq!(world.mirror.head(&target).await.status, 400, "{target}");
        }
    }
    assert_eq!(world.upstream.connections(), 0);
    assert_eq!(world.mirror.files(), before);
}

/// The names as part of a manifest's and of a blob's target.
fn within_targets(names: &[&str]) -> Vec<String> {
    let digest = format!("sha256:{}", "a".repeat(64));
    let manifests = names.iter().map(|name| format!("{name}/manifests/v1"));
    let blobs = names.iter().map(|name| format!("{name}/blobs/{digest}"));
    manifests.chain(blobs).collect()
}

#[tokio::test]
async fn c1_a_name_never_leaves_its_place() {
    let names = [
        "..",
        ".",
        "../../etc",
        "a/../b",
        "a/./b",
        "a/..",
        "./a",
        "a//b",
        "/a",
        "a/",
        "a%5Cb",
        "a%00b",
        "%00",
        "a%0Ab",
        "a%0D%0AX:%20y",
        "a%20b",
        "a%3Fb",
        "a%23b",
        "a@b",
        "_dirs/a",
        "a/_manifests/b",
    ];
    is_refused(&within_targets(&names), "NAME_INVALID").await;
}

#[tokio::test]
async fn c2_what_is_decoded_once_is_judged_as_it_is() {
    let names = [
        "%2e%2e%2fetc",
        "a%2Fb",
        "a%2fb",
        "%2e%2e/a",
        "a/%2e%2e/b",
        "%252e%252e%252fetc",
        "a%252Fb",
        "a%",
        "a%zz",
        "a%c3%28",
    ];
    is_refused(&within_targets(&names), "NAME_INVALID").await;
}

#[tokio::test]
async fn c3_a_name_that_breaks_the_grammar_is_refused() {
    let long = "a/".repeat(150) + "a";
    let names = [
        "A", "a/B", "Team/app", "%C3%BC", "_x", "x_", "a..b", "a___b", "-a", "a-", "a.-b", "a:b",
        "a*", &long,
    ];
    is_refused(&within_targets(&names), "NAME_INVALID").await;
}

#[tokio::test]
async fn c1_bytes_that_no_target_may_have_are_refused() {
    let world = World::new().await;
    for name in [
        "a\\b", "a b", "a\u{fc}b", "a\0b", "a\tb", "a\"b", "a<b", "a^b",
    ] {
        let target = format!("/v2/{name}/manifests/v1");
        let mut connection = crate::harness::client::Connection::open(world.mirror.address).await;
        let request = Request::get(&target).header("Connection", "close");
        connection.write(&request.to_bytes()).await;
        let answer = connection.read_to_end().await;
        assert!(
            answer.starts_with(b"HTTP/1.1 400 "),
            "{name:?}: {}",
            answer.escape_ascii()
        );
    }
    assert_eq!(world.upstream.connections(), 0);
}

#[tokio::test]
async fn c4_a_tag_that_breaks_the_grammar_is_refused() {
    let long = "a".repeat(129);
    let tags = [
        &*long, ".a", "-a", "a%2Fb", "a%20b", "a+b", "a@b", "%C3%BC", "a%00", "%2e%2e", "a%0d",
        "a*",
    ];
    let rests = tags.map(|tag| format!("team/app/manifests/{tag}"));
    is_refused(&rests, "NAME_INVALID").await;
}

#[tokio::test]
async fn c4_a_tag_may_have_all_the_grammar_allows() {
    let world = World::new().await;
    let image = Image::new(1);
    let long = "a".repeat(128);
    for tag in [
        &*long,
        "_",
        "_a-.",
        "RELEASE.2024-01-01T00-00-00Z",
        "0",
        "a..b",
        "sha256-abc.sig",
    ] {
        world.upstream.put_image("team/app", tag, &image);
        let target = format!("/v2/team/app/manifests/{tag}");
        assert_eq!(
            world.mirror.get(&target).await.expect(200),
            image.manifest.bytes
        );
    }
    // Case matters.
    let lower = "/v2/team/app/manifests/release.2024-01-01t00-00-00z";
    world
        .mirror
        .get(lower)
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn c5_c6_a_digest_that_is_none_is_refused_before_it_is_a_path() {
    let digests = [
        format!("sha256:{}", "A".repeat(64)),
        format!("sha256:{}aB", "a".repeat(62)),
        format!("sha256:{}", "a".repeat(63)),
        format!("sha256:{}", "a".repeat(65)),
        format!("sha256:{}", "a".repeat(128)),
        format!("sha512:{}", "a".repeat(64)),
        format!("sha256:{}g", "a".repeat(63)),
        format!("SHA256:{}", "a".repeat(64)),
        format!("Sha256:{}", "a".repeat(64)),
        format!("md5:{}", "a".repeat(32)),
        format!("sha1:{}", "a".repeat(40)),
        format!("blake3:{}", "a".repeat(64)),
        format!("sha256+b64u:{}", "a".repeat(43)),
        format!("sha256:{}:", "a".repeat(64)),
        "sha256:".to_owned(),
        ":".to_owned(),
        "sha256:baddigeststring".to_owned(),
    ];
    let manifests = digests
        .iter()
        .map(|digest| format!("team/app/manifests/{digest}"));
    let blobs = digests
        .iter()
        .map(|digest| format!("team/app/blobs/{digest}"));
    let rests: Vec<String> = manifests.chain(blobs).collect();
    is_refused(&rests, "DIGEST_INVALID").await;
}

#[tokio::test]
async fn c6_a_digest_has_no_escapes() {
    let digests = [
        format!("sha256:{}%00", "a".repeat(63)),
        "sha256:..%2F..%2Fx".to_owned(),
    ];
    let rests = digests.map(|digest| format!("team/app/manifests/{digest}"));
    is_refused(&rests, "NAME_INVALID").await;
}

#[tokio::test]
async fn c6_what_follows_blobs_without_a_colon_is_no_digest() {
    is_refused(&["team/app/blobs/latest".to_owned()], "DIGEST_INVALID").await;
    is_refused(
        &[format!("team/app/blobs/{}", "a".repeat(64))],
        "DIGEST_INVALID",
    )
    .await;
}

#[tokio::test]
async fn c7_a_digest_is_checked_with_its_own_algorithm() {
    let world = World::new().await;
    let content = bytes(1, 5000);
    let short = world.upstream.put_blob("team/app", content.clone());
    let get = async |digest: &str| {
        let target = format!("/v2/team/app/blobs/{digest}");
        world.mirror.get(&target).await
    };
    assert_eq!(get(&short).await.expect(200), content);
    // The same bytes under a sha512 that is not theirs, though its first half is the hexadecimal that is stored.
    let hex = short.trim_start_matches("sha256:");
    let wrong = format!("sha512:{hex}{hex}");
    world
        .upstream
        .put_blob_as("team/app", &wrong, content.clone());
    let answer = get(&wrong).await;
    assert_ne!((answer.status, &answer.body), (200, &content));
    // And under the one that is.
    let right = sha512(&content);
    world
        .upstream
        .put_blob_as("team/app", &right, content.clone());
    assert_eq!(get(&right).await.expect(200), content);
}

#[tokio::test]
async fn c9_an_index_of_a_million_entries_harms_nobody() {
    let world = World::new().await;
    let entries = "1,".repeat(1_000_000);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{entries}1]}}"#);
    let manifest = Manifest::new(OCI_INDEX, index);
    world.upstream.put_manifest("team/app", "v1", &manifest);
    let answer = world.mirror.get("/v2/team/app/manifests/v1").await;
    assert_eq!(answer.expect(200), manifest.bytes);
}

#[tokio::test]
async fn c10_c11_what_a_manifest_names_is_not_fetched() {
    let world = World::new().await;
    let elsewhere = crate::harness::upstream::Upstream::start().await;
    let layer = |digest: &str| {
        json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 1,
            "digest": digest, "urls": [elsewhere.url("/layer")] })
    };
    let digests = ["sha256:../../x", "", "sha256:zz", "../../../etc/passwd"];
    let layers: Vec<_> = digests.iter().map(|digest| layer(digest)).collect();
    let manifest = Manifest::json(OCI_IMAGE, json!({ "config": layers[0], "layers": layers }));
    world.upstream.put_manifest("team/app", "v1", &manifest);
    for _ in 0..2 {
        let answer = world.mirror.get("/v2/team/app/manifests/v1").await;
        assert_eq!(answer.expect(200), manifest.bytes);
    }
    assert_eq!(elsewhere.connections(), 0);
    assert!(
        world
            .upstream
            .requests("GET", "/v2/team/app/blobs/*")
            .is_empty()
    );
}
