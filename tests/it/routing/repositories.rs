//! What of a registry may be pulled.

use crate::harness::content::{Image, sha256};
use crate::harness::mirror::Setup;
use crate::harness::upstream::Upstream;

#[tokio::test]
async fn what_is_not_let_through_is_not_known_and_not_asked_for() {
    let upstream = Upstream::start().await;
    let image = Image::new(1);
    for name in ["team/app", "team/secret", "other/app"] {
        upstream.put_image(name, "v1", &image);
    }
    let mirror = Setup::new()
        .upstream_with(
            "registry.example",
            &upstream,
            "repositories: [\"team/**\", \"!team/secret\"]",
        )
        .start()
        .await;
    let digest = image.manifest.digest();
    let blob = sha256(&image.blobs[0]);
    for name in ["team/secret", "other/app", "team"] {
        for rest in [
            "manifests/v1",
            &format!("manifests/{digest}"),
            &format!("blobs/{blob}"),
            "tags/list",
            &format!("referrers/{digest}"),
        ] {
            for target in [
                format!("/v2/{name}/{rest}"),
                format!("/v2/{name}/{rest}?ns=registry.example"),
                format!("/v2/registry.example/{name}/{rest}"),
            ] {
                let answer = mirror.get(&target).await;
                assert_eq!(answer.status, 404, "{target}: {answer:?}");
                answer.expect_error(404, "NAME_UNKNOWN");
            }
        }
    }
    assert_eq!(upstream.connections(), 0);
    let target = |rest: &str| format!("/v2/{rest}");
    mirror.pull(target, "team/app", "v1", &image).await;
    // What is stored by now changes nothing for the others.
    let answer = mirror.get(&format!("/v2/team/secret/blobs/{blob}")).await;
    answer.expect_error(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn a_registry_that_may_not_be_asked_is_passed_over_by_a_search() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let image = Image::new(1);
    first.put_image("team/app", "v1", &Image::new(2));
    second.put_image("team/app", "v1", &image);
    let mirror = Setup::new()
        .upstream_with("first.example", &first, "repositories: [\"!team/**\"]")
        .upstream("second.example", &second)
        .searching("[first.example, second.example]")
        .start()
        .await;
    let answer = mirror.get("/v2/team/app/manifests/v1").await;
    assert_eq!(answer.expect(200), image.manifest.bytes);
    assert_eq!(first.connections(), 0);
}
