//! C-49 and client certificates: trust and proof are for one upstream's endpoints alone.

use crate::harness::content::{Image, bytes};
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Authority, Guard, Upstream};

const MANIFEST: &str = "/v2/team/app/manifests/v1";

#[tokio::test]
async fn c49_what_is_not_verified_is_one_upstream_and_not_its_realms_or_redirects() {
    let authority = Authority::new();
    let registry = Upstream::start_tls("127.0.0.1", &authority).await;
    let elsewhere = Upstream::start_tls("127.0.0.2", &authority).await;
    let content = bytes(1, 5000);
    let digest = registry.put_blob("team/app", content.clone());
    registry.put_image("team/app", "v1", &Image::new(1));
    let setup = Setup::new();
    let keys = format!("skip_verify: yes, realms: [{:?}]", elsewhere.host());
    let setup = setup.upstream_with("a.example", &registry, &keys);
    let setup = setup.upstream("b.example", &registry);
    let mirror = setup.start().await;
    mirror
        .get(&format!("{MANIFEST}?ns=a.example"))
        .await
        .expect(200);
    let other = mirror.get(&format!("{MANIFEST}?ns=b.example")).await;
    other.expect_error(502, "UNAVAILABLE");

    registry.redirect_blobs(307, &elsewhere.url("/files"), "");
    let blob = format!("/v2/team/app/blobs/{digest}?ns=a.example");
    assert_ne!(mirror.get(&blob).await.status, 200);
    let guard = Guard::bearer(&elsewhere.url("/token"), "x");
    guard.stand(&registry, &elsewhere, "/token");
    let answer = mirror.get("/v2/team/app/manifests/v2?ns=a.example").await;
    assert_ne!(answer.status, 404, "{answer:?}");
    assert!(elsewhere.log().is_empty(), "{:?}", elsewhere.log());
}

#[tokio::test]
async fn a_client_certificate_and_key_belong_together() {
    let authority = Authority::new();
    let registry = Upstream::start_tls("127.0.0.1", &authority).await;
    let setup = Setup::new();
    let (certificate, key) = authority.certify_client("mirror");
    let (_, other) = authority.certify_client("other");
    let certificate = setup.file("client.crt", &certificate.pem());
    let key = setup.file("client.key", &key.serialize_pem());
    let other = setup.file("other.key", &other.serialize_pem());
    let check = |keys: &str| {
        setup
            .clone()
            .upstream_with("a.example", &registry, keys)
            .check()
    };
    check(&format!(
        "client_certificate: {certificate:?}, client_key: {key:?}"
    ))
    .expect("a pair");
    for (keys, expected) in [
        (
            format!("client_certificate: {certificate:?}, client_key: {other:?}"),
            "is not the key of client_certificate",
        ),
        (
            format!("client_certificate: {certificate:?}"),
            "has no client_key",
        ),
        (format!("client_key: {key:?}"), "has no client_certificate"),
    ] {
        let problems = check(&keys).expect_err(&keys);
        assert!(problems.contains(expected), "{problems}");
    }
}
