//! A6: what the client accepts decides whether it is served, never what.

use crate::harness::client::Request;
use crate::harness::content::{DOCKER_IMAGE, DOCKER_LIST, Image, OCI_IMAGE, OCI_INDEX};
use crate::harness::upstream::Upstream;
use crate::harness::world::{World, everywhere};

fn prepare(upstream: &Upstream) {
    upstream.put_image("team/app", "v1", &Image::new(1));
}

#[tokio::test]
async fn a6_whoever_takes_the_stored_type_gets_it() {
    let manifest = Image::new(1).manifest;
    let accepted: &[&[&str]] = &[
        &[],
        &["*/*"],
        &["application/*"],
        &[OCI_IMAGE],
        &["application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"],
        &["application/vnd.oci.image.manifest.v1+json;q=0.5, text/html"],
        &[DOCKER_IMAGE, DOCKER_LIST, OCI_IMAGE, OCI_INDEX],
        &["Application/Vnd.OCI.Image.Manifest.v1+json"],
        &["application/vnd.docker.distribution.manifest.v2+json, */*"],
    ];
    everywhere(prepare, async |mirror, way, _| {
        for lines in accepted {
            let request = Request::get(&way.target("team/app/manifests/v1"));
            let request = lines
                .iter()
                .fold(request, |request, line| request.header("Accept", line));
            let answer = mirror.send(request).await;
            assert_eq!(answer.header("Content-Type"), Some(OCI_IMAGE), "{lines:?}");
            assert_eq!(answer.expect(200), manifest.bytes, "{lines:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a6_whoever_takes_only_others_is_told_there_is_none() {
    everywhere(prepare, async |mirror, way, _| {
        for accepted in [
            DOCKER_IMAGE,
            "application/vnd.oci.image.index.v1+json, text/html",
        ] {
            let target = way.target("team/app/manifests/v1");
            let request = Request::get(&target).header("Accept", accepted);
            mirror
                .send(request)
                .await
                .expect_error(404, "MANIFEST_UNKNOWN");
        }
        mirror
            .get(&way.target("team/app/manifests/v1"))
            .await
            .expect(200);
    })
    .await;
}

#[tokio::test]
async fn a6_a_digest_names_its_bytes_whatever_is_accepted() {
    let manifest = Image::new(1).manifest;
    everywhere(prepare, async |mirror, way, _| {
        let target = way.target(&format!("team/app/manifests/{}", manifest.digest()));
        for accepted in [DOCKER_IMAGE, OCI_IMAGE, "text/html"] {
            let request = Request::get(&target).header("Accept", accepted);
            assert_eq!(mirror.send(request).await.expect(200), manifest.bytes);
        }
    })
    .await;
}

#[tokio::test]
async fn a6_upstream_is_always_asked_in_the_same_words() {
    let world = World::new().await;
    prepare(&world.upstream);
    for (n, accepted) in [DOCKER_IMAGE, OCI_IMAGE, "*/*"].into_iter().enumerate() {
        for method in ["HEAD", "GET"] {
            let target = format!("/v2/team/app/manifests/other-{n}-{method}");
            let request = Request::new(method, &target).header("Accept", accepted);
            world.mirror.send(request).await;
        }
    }
    let log = world.upstream.log();
    let first = log[0].header("Accept").expect("an Accept");
    for media_type in [OCI_IMAGE, OCI_INDEX, DOCKER_IMAGE, DOCKER_LIST] {
        assert!(first.contains(media_type), "{first}");
    }
    // Schema 1, which some registries make out of anything, has another digest than what was pushed.
    assert!(!first.contains("distribution.manifest.v1"), "{first}");
    for request in &log {
        assert_eq!(request.header("Accept"), Some(first), "{request:?}");
    }
}
