//! registry.k8s.io: everything is elsewhere, under another name.

use super::{mirror_of, pulls};
use crate::harness::content::{Image, sha256};
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Authority, Guard, Seen, Upstream};

const K8S: &str = "registry.k8s.io";

/// Redirects everything to the same name below `images/` of `backend`, and drops the query.
fn redirect_all(front: &Upstream, backend: &Upstream) {
    let base = backend.url("/v2/k8s-artifacts-prod/images");
    front.rule(move |request: &Seen| {
        let rest = request
            .path()
            .strip_prefix("/v2/")
            .filter(|rest| !rest.is_empty())?;
        let answer = Answer::redirect(307, &format!("{base}/{rest}"));
        Some(answer.body("<a href=\"elsewhere\">Temporary Redirect</a>.\n"))
    });
}

#[tokio::test]
async fn p22_k8s_redirector() {
    let (front, backend) = (
        Upstream::start().await,
        Upstream::start_on("127.0.0.2").await,
    );
    let store = Upstream::start_on("127.0.0.3").await;
    let image = Image::new(1);
    backend.put_image("k8s-artifacts-prod/images/pause", "v1", &image);
    redirect_all(&front, &backend);
    for blob in &image.blobs {
        store.put_file(&format!("/files/{}", sha256(blob)), blob.clone());
    }
    backend.redirect_blobs(307, &store.url("/files"), "");
    let mirror = mirror_of(K8S, &front).await;
    pulls(&mirror, K8S, "pause", &image).await;
    // What is kept is kept under the name that was asked for.
    for upstream in [&front, &backend, &store] {
        upstream.stop().await;
    }
    pulls(&mirror, K8S, "pause", &image).await;
}

#[tokio::test]
async fn p22_a_loop_of_hosts_ends() {
    let (front, back) = (
        Upstream::start().await,
        Upstream::start_on("127.0.0.2").await,
    );
    let (to_back, to_front) = (
        back.url("/v2/a/manifests/v1"),
        front.url("/v2/a/manifests/v1"),
    );
    front.answer("/v2/*", Answer::redirect(307, &to_back));
    back.answer("/v2/*", Answer::redirect(307, &to_front));
    let mirror = mirror_of(K8S, &front).await;
    let target = "/v2/a/manifests/v1?ns=registry.k8s.io";
    mirror.get(target).await.expect_error(502, "UNAVAILABLE");
    assert!(front.log().len() + back.log().len() <= 7);
}

#[tokio::test]
async fn p23_k8s_second_401() {
    let authority = Authority::new();
    let front = Upstream::start_tls("127.0.0.1", &authority).await;
    let backend = Upstream::start_tls("127.0.0.2", &authority).await;
    let image = Image::new(1);
    backend.put_image("k8s-artifacts-prod/images/pause", "v1", &image);
    redirect_all(&front, &backend);
    let guard = Guard::bearer(&backend.url("/v2/token"), "backend");
    guard.stand(&backend, &backend, "/v2/token");
    let setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let setup = setup.upstream_with(K8S, &front, &format!("ca: {ca:?}"));
    let credentials = "registry.k8s.io: { username: robot, password: hunter2 }\n";
    let mirror = setup.credentials(credentials).start().await;
    pulls(&mirror, K8S, "pause", &image).await;
    for request in backend.requests("GET", "/v2/token") {
        assert_eq!(
            request.header("Authorization"),
            None,
            "no credential of another host"
        );
        assert_eq!(
            request.query("scope"),
            ["repository:k8s-artifacts-prod/images/pause:pull"]
        );
    }
    for request in front.log() {
        assert_eq!(request.header("Authorization"), None, "{request:?}");
    }
}

#[tokio::test]
async fn p24_html_200() {
    let front = Upstream::start().await;
    let page = Answer::ok(
        "text/html; charset=utf-8",
        "<html><title>Sign in</title></html>",
    );
    front.answer("/v2/*", page);
    let mirror = mirror_of(K8S, &front).await;
    let manifest = "/v2/pause/manifests/v1?ns=registry.k8s.io";
    mirror
        .get(manifest)
        .await
        .expect_error(502, "MANIFEST_INVALID");
    let before = mirror.files();
    let digest = sha256(b"x");
    let blob = format!("/v2/pause/blobs/{digest}?ns=registry.k8s.io");
    let answer = mirror.get(&blob).await;
    let complete = answer.ending == crate::harness::client::Ending::Complete;
    assert!(answer.status == 502 || !complete, "{answer:?}");
    assert!(!mirror.has(&digest));
    assert_eq!(mirror.files(), before);
}
