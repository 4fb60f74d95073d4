//! A2: manifests that are served.

use serde_json::json;

use crate::harness::content::{
    DOCKER_IMAGE, DOCKER_LIST, Image, Manifest, OCI_IMAGE, OCI_INDEX, bytes, sha512,
};
use crate::harness::upstream::Upstream;
use crate::harness::world::{State, World, everywhere};

/// Documents of the conformance suite's data sets, and such as real tools make.
fn documents() -> Vec<Manifest> {
    let image = Image::new(1).manifest;
    let inner = Manifest::index(OCI_INDEX, &[&image]);
    let empty = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "data": "e30=" });
    let foreign = json!({ "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "size": 1, "digest": format!("sha256:{}", "0".repeat(64)), "urls": ["https://x.example/"] });
    vec![
        image.clone(),
        Image::of_type(DOCKER_IMAGE, 2).manifest,
        Manifest::index(DOCKER_LIST, &[&Image::of_type(DOCKER_IMAGE, 2).manifest]),
        Manifest::index(OCI_INDEX, &[&inner, &image]),
        Manifest::index(OCI_INDEX, &[]),
        Manifest::json(
            OCI_INDEX,
            json!({ "manifests": [], "artifactType": "text/x" }),
        ),
        Manifest::json(OCI_IMAGE, json!({ "config": empty, "layers": [] })),
        Manifest::json(OCI_IMAGE, json!({ "config": empty, "layers": [foreign] })),
        Manifest::json(
            OCI_IMAGE,
            json!({ "config": empty, "layers": [empty], "subject": empty }),
        ),
        Manifest::json(
            OCI_IMAGE,
            json!({ "config": empty, "layers": [], "new": { "x": [1] } }),
        ),
        // No mediaType, and white space that nobody may touch.
        Manifest::new(
            OCI_INDEX,
            " {\r\n\t\"schemaVersion\": 2, \"manifests\" :[ ] }\n\n",
        ),
    ]
}

#[tokio::test]
async fn a2_1_a_tag_gives_the_bytes_and_their_description() {
    let image = Image::new(1);
    let digest = image.manifest.digest();
    let prepare = |upstream: &Upstream| upstream.put_image("team/app", "v1", &image);
    everywhere(prepare, async |mirror, way, _| {
        for reference in ["v1", &digest] {
            let target = way.target(&format!("team/app/manifests/{reference}"));
            let (get, head) = (mirror.get(&target).await, mirror.head(&target).await);
            let length = image.manifest.bytes.len().to_string();
            for answer in [&get, &head] {
                assert_eq!(answer.status, 200);
                assert_eq!(answer.header("Content-Type"), Some(OCI_IMAGE));
                assert_eq!(answer.header("Content-Length"), Some(&*length));
                assert_eq!(answer.header("Docker-Content-Digest"), Some(&*digest));
                assert_eq!(answer.header("ETag"), Some(&*format!("\"{digest}\"")));
            }
            assert_eq!(get.expect(200), image.manifest.bytes);
        }
    })
    .await;
}

#[tokio::test]
async fn a2_1_the_parameters_of_a_media_type_are_dropped() {
    let world = World::new().await;
    let mut image = Image::new(1);
    image.manifest.media_type = format!("{OCI_IMAGE}; charset=utf-8");
    world.upstream.put_image("team/app", "v1", &image);
    let answer = world.mirror.get("/v2/team/app/manifests/v1").await;
    assert_eq!(answer.header("Content-Type"), Some(OCI_IMAGE));
    answer.expect(200);
}

#[tokio::test]
async fn a2_2_a_first_head_tells_all_and_costs_one_request() {
    let image = Image::new(1);
    let digest = image.manifest.digest();
    for reference in ["v1", &digest] {
        let world = World::new().await;
        world.upstream.put_image("team/app", "v1", &image);
        let target = format!("/v2/team/app/manifests/{reference}");
        let head = world.mirror.head(&target).await;
        let length = image.manifest.bytes.len().to_string();
        assert_eq!(head.header("Content-Length"), Some(&*length));
        assert_eq!(head.header("Docker-Content-Digest"), Some(&*digest));
        assert_eq!(head.header("Content-Type"), Some(OCI_IMAGE));
        head.expect(200);
        // A2.19: and no blob is touched.
        assert_eq!(world.upstream.log().len(), 1, "{:?}", world.upstream.log());
    }
}

#[tokio::test]
async fn a2_4_a_manifest_may_be_asked_for_by_sha512() {
    let manifest = Image::new(1).manifest;
    let digest = sha512(&manifest.bytes);
    let prepare = |upstream: &Upstream| {
        upstream.put_manifest_as("team/app", &digest, &manifest);
    };
    everywhere(prepare, async |mirror, way, _| {
        let target = way.target(&format!("team/app/manifests/{digest}"));
        let head = mirror.head(&target).await;
        assert_eq!(head.header("Docker-Content-Digest"), Some(&*digest));
        let get = mirror.get(&target).await;
        assert_eq!(get.header("Docker-Content-Digest"), Some(&*digest));
        assert_eq!(get.expect(200), manifest.bytes);
    })
    .await;
}

#[tokio::test]
async fn a2_6_what_upstream_does_not_have_is_unknown() {
    let prepare = |upstream: &Upstream| upstream.put_image("team/app", "v1", &Image::new(1));
    everywhere(prepare, async |mirror, way, state| {
        if state == State::Down {
            return;
        }
        let absent = format!("sha256:{}", "0".repeat(64));
        let name_too = ["NAME_UNKNOWN", "MANIFEST_UNKNOWN"];
        for (rest, codes) in [
            ("team/app/manifests/v2".to_owned(), &name_too[1..]),
            (format!("team/app/manifests/{absent}"), &name_too[1..]),
            ("team/other/manifests/v1".to_owned(), &name_too[..]),
        ] {
            let target = way.target(&rest);
            let (status, code) = mirror.get(&target).await.outcome();
            assert_eq!(status, 404, "{target}");
            assert!(codes.contains(&&*code), "{target}: {code}");
            assert_eq!(mirror.head(&target).await.status, 404, "{target}");
        }
    })
    .await;
}

#[tokio::test]
async fn a2_8_a_manifest_of_almost_four_megabytes_is_served() {
    let annotations: serde_json::Map<_, _> = (0..390)
        .map(|n| (format!("key-{n}"), json!("x".repeat(10_000))))
        .collect();
    let manifest = Manifest::json(
        OCI_INDEX,
        json!({ "manifests": [], "annotations": annotations }),
    );
    let prepare = |upstream: &Upstream| {
        upstream.put_manifest("team/app", "large", &manifest);
    };
    everywhere(prepare, async |mirror, way, _| {
        let answer = mirror.get(&way.target("team/app/manifests/large")).await;
        assert_eq!(answer.expect(200), manifest.bytes);
    })
    .await;
}

#[tokio::test]
async fn a2_10_documents_come_through_unchanged() {
    let documents = documents();
    let prepare = |upstream: &Upstream| {
        for (n, document) in documents.iter().enumerate() {
            upstream.put_manifest("team/app", &format!("n{n}"), document);
        }
    };
    everywhere(prepare, async |mirror, way, _| {
        for (n, document) in documents.iter().enumerate() {
            for reference in [format!("n{n}"), document.digest()] {
                let target = way.target(&format!("team/app/manifests/{reference}"));
                let answer = mirror.get(&target).await;
                let media_type = answer.header("Content-Type");
                assert_eq!(media_type, Some(&*document.media_type), "{target}");
                assert_eq!(answer.expect(200), document.bytes, "{target}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a2_15_a_manifest_is_no_blob_and_a_layer_no_manifest() {
    let image = Image::new(1);
    let layer = bytes(9, 3000);
    let prepare = |upstream: &Upstream| {
        upstream.put_image("team/app", "v1", &image);
        upstream.put_blob("team/app", layer.clone());
    };
    everywhere(prepare, async |mirror, way, state| {
        if state == State::Down {
            return;
        }
        mirror
            .pull(|rest| way.target(rest), "team/app", "v1", &image)
            .await;
        let manifest = image.manifest.digest();
        let layer = crate::harness::content::sha256(&layer);
        let target = way.target(&format!("team/app/blobs/{layer}"));
        mirror.get(&target).await.expect(200);

        let as_blob = way.target(&format!("team/app/blobs/{manifest}"));
        assert_eq!(mirror.get(&as_blob).await.outcome().0, 404);
        assert_eq!(mirror.head(&as_blob).await.status, 404);
        let as_manifest = way.target(&format!("team/app/manifests/{layer}"));
        assert_eq!(mirror.get(&as_manifest).await.outcome().0, 404);
    })
    .await;
}
