//! Artifact Registry and what stands before it: relative redirects, refusals at the token endpoint.

use super::{mirror_of, pulls};
use crate::harness::content::{Image, sha256};
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Guard, Seen, Upstream};

const GAR: &str = "europe-west1-docker.pkg.dev";

#[tokio::test]
async fn p25_gar_relative_302() {
    let gar = Upstream::start().await;
    let image = Image::new(1);
    gar.put_image("project/repo/app", "v1", &image);
    let download = format!(
        "/artifacts-downloads/namespaces/project/repositories/repo/downloads/{}",
        "A".repeat(1000)
    );
    for blob in &image.blobs {
        gar.put_file(&format!("{download}/{}", sha256(blob)), blob.clone());
    }
    gar.rule(move |request: &Seen| {
        let (_, kind, digest) = request.parts()?;
        let location = format!("{download}/{digest}");
        (kind == "blobs").then(|| Answer::redirect(302, &location))
    });
    let guard = Guard::bearer(&gar.url("/v2/token"), GAR);
    guard.stand(&gar, &gar, "/v2/token");
    let mirror = mirror_of(GAR, &gar).await;
    pulls(&mirror, GAR, "project/repo/app", &image).await;
}

#[tokio::test]
async fn p26_gar_token_403() {
    let gar = Upstream::start().await;
    let image = Image::new(1);
    gar.put_image("project/open/app", "v1", &image);
    let guard = Guard::bearer(&gar.url("/v2/token"), GAR).issuing(|request, token| {
        let body = serde_json::json!({ "token": token, "expires_in": 300 });
        if request.query("scope") == ["repository:project/open/app:pull"] {
            Answer::ok("application/json", body.to_string())
        } else {
            Answer::error(403, "DENIED")
        }
    });
    guard.stand(&gar, &gar, "/v2/token");
    let mirror = mirror_of(GAR, &gar).await;
    let closed = format!("/v2/project/closed/app/manifests/v1?ns={GAR}");
    mirror.get(&closed).await.expect_error(401, "UNAUTHORIZED");
    // One repository's refusal is not the host's.
    pulls(&mirror, GAR, "project/open/app", &image).await;
    mirror.get(&closed).await.expect_error(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn the_next_endpoint_is_asked_when_one_is_in_trouble() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let image = Image::new(1);
    second.put_image("org/app", "v1", &image);
    let urls = [first.url(""), second.url("")];
    for status in [500, 502, 503, 429] {
        first.behave();
        first.answer("/v2/*", Answer::status(status));
        let setup = Setup::new().endpoints("registry.example", &urls, "");
        pulls(&setup.start().await, "registry.example", "org/app", &image).await;
    }
    first.stop().await;
    let setup = Setup::new().endpoints("registry.example", &urls, "");
    pulls(&setup.start().await, "registry.example", "org/app", &image).await;
}

#[tokio::test]
async fn an_endpoint_that_has_it_is_the_only_one_asked() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let image = Image::new(1);
    first.put_image("org/app", "v1", &image);
    let urls = [first.url(""), second.url("")];
    let setup = Setup::new().endpoints("registry.example", &urls, "");
    pulls(&setup.start().await, "registry.example", "org/app", &image).await;
    assert_eq!(second.connections(), 0);
}
