//! ECR: a password instead of a token, digests that are not told; ECR Public: no HEAD on blobs.

use super::{mirror_of, pulls, store_of};
use crate::harness::content::{Image, sha256};
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Guard, Seen, Upstream, basic};

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const PUBLIC: &str = "public.ecr.aws";

/// ECR, which does not say `Docker-Content-Digest`.
async fn ecr(image: &Image) -> (Upstream, Upstream) {
    let ecr = Upstream::start().await;
    let store = store_of(image).await;
    ecr.put_image("team/app", "v1", image);
    let manifest = image.manifest.clone();
    let digest = manifest.digest();
    ecr.rule(move |request: &Seen| {
        let (name, kind, reference) = request.parts()?;
        let hit =
            name == "team/app" && kind == "manifests" && (reference == "v1" || reference == digest);
        hit.then(|| Answer::ok(&manifest.media_type, manifest.bytes.clone()))
    });
    ecr.redirect_blobs(307, &store.url("/files"), "?X-Amz-Expires=3600");
    (ecr, store)
}

fn challenge(ecr: &Upstream) -> String {
    format!(
        r#"Basic realm="{}",service="ecr.amazonaws.com""#,
        ecr.url("/")
    )
}

#[tokio::test]
async fn p30_ecr_basic() {
    let image = Image::new(1);
    let (ecr, store) = ecr(&image).await;
    ecr.want_basic(&challenge(&ecr), "AWS", "of-twelve-hours:with=colon");
    let setup = Setup::new().upstream(ECR, &ecr);
    let credentials =
        format!("{ECR}: {{ username: AWS, password: 'of-twelve-hours:with=colon' }}\n");
    let mirror = setup.credentials(&credentials).start().await;
    pulls(&mirror, ECR, "team/app", &image).await;
    assert!(
        store
            .log()
            .iter()
            .all(|request| request.header("Authorization").is_none())
    );
    // The challenge is learned once.
    let refused = ecr
        .log()
        .iter()
        .filter(|request| request.header("Authorization").is_none())
        .count();
    assert!(refused <= 2, "{refused}");
}

#[tokio::test]
async fn p30_ecr_without_a_credential() {
    let image = Image::new(1);
    let (ecr, _store) = ecr(&image).await;
    ecr.want_basic(&challenge(&ecr), "AWS", "of-twelve-hours");
    let mirror = mirror_of(ECR, &ecr).await;
    let target = format!("/v2/team/app/manifests/v1?ns={ECR}");
    mirror.get(&target).await.expect_error(403, "DENIED");
    assert!(
        ecr.log()
            .iter()
            .all(|request| request.header("Authorization").is_none())
    );
}

#[tokio::test]
async fn p30_ecr_with_an_expired_credential() {
    let image = Image::new(1);
    let (ecr, _store) = ecr(&image).await;
    ecr.rule(|request: &Seen| {
        let text = "Your authorization token has expired. Reauthenticate and try again.";
        let given = request.header("Authorization")? == basic("AWS", "old");
        given.then(|| Answer::status(403).body(text))
    });
    let expired = challenge(&ecr);
    ecr.rule(move |request: &Seen| {
        let refusal = Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", &expired);
        request.header("Authorization").is_none().then_some(refusal)
    });
    let setup = Setup::new().upstream(ECR, &ecr);
    let credentials = format!("{ECR}: {{ username: AWS, password: old }}\n");
    let mirror = setup.credentials(&credentials).start().await;
    let target = format!("/v2/team/app/manifests/v1?ns={ECR}");
    mirror.get(&target).await.expect_error(403, "DENIED");
    assert!(ecr.log().len() <= 4, "{:?}", ecr.log());
}

#[tokio::test]
async fn p31_ecr_public_no_head() {
    let public = Upstream::start().await;
    let image = Image::new(1);
    let store = store_of(&image).await;
    public.put_image("org/app", "v1", &image);
    public.redirect_blobs(307, &store.url("/files"), "");
    let realm = public.url("/token/");
    let challenge = format!(r#"Bearer realm="{realm}",service="public.ecr.aws",scope="aws""#);
    let refusal = Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", &challenge);
    public.rule(move |request: &Seen| {
        let (_, kind, _) = request.parts()?;
        let is_guest = request.header("Authorization") != Some("Bearer of-all");
        let is_head = kind == "blobs" && request.method == "HEAD";
        (is_guest || is_head).then(|| refusal.clone())
    });
    public.rule(|request: &Seen| {
        let hit = request.path() == "/token/";
        hit.then(|| Answer::ok("application/json", r#"{"token":"of-all"}"#))
    });
    let mirror = mirror_of(PUBLIC, &public).await;
    for blob in &image.blobs {
        let target = format!("/v2/org/app/blobs/{}?ns={PUBLIC}", sha256(blob));
        let head = mirror.head(&target).await;
        assert_eq!(
            head.header("Content-Length"),
            Some(&*blob.len().to_string())
        );
        head.expect(200);
    }
    pulls(&mirror, PUBLIC, "org/app", &image).await;
    assert!(public.requests("GET", "/token/").len() <= 2);
}

#[tokio::test]
async fn a_registry_that_is_found_to_have_no_head_on_blobs_is_asked_by_get() {
    let registry = Upstream::start().await;
    let image = Image::new(1);
    registry.put_image("org/app", "v1", &image);
    let guard = Guard::bearer(&registry.url("/token"), "x");
    for status in [401, 403, 405, 501] {
        registry.behave();
        guard.stand(&registry, &registry, "/token");
        registry.rule(move |request: &Seen| {
            let (_, kind, _) = request.parts()?;
            let is_head = kind == "blobs" && request.method == "HEAD";
            is_head.then(|| Answer::status(status))
        });
        let mirror = mirror_of("registry.example", &registry).await;
        for blob in &image.blobs {
            let target = format!("/v2/org/app/blobs/{}?ns=registry.example", sha256(blob));
            let head = mirror.head(&target).await;
            assert_eq!(
                head.header("Content-Length"),
                Some(&*blob.len().to_string()),
                "{status}"
            );
            head.expect(200);
        }
    }
}
