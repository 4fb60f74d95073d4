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

#[tokio::test]
async fn a_registry_that_demands_a_certificate_is_shown_ours_and_its_redirects_are_not() {
    let authority = Authority::new();
    let registry = Upstream::start_demanding("127.0.0.1", &authority).await;
    let issuer = Upstream::start_demanding("127.0.0.2", &authority).await;
    let store = Upstream::start_demanding("127.0.0.3", &authority).await;
    registry.put_image("team/app", "v1", &Image::new(1));
    let digest = registry.put_blob("team/app", bytes(1, 5000));
    registry.redirect_blobs(307, &store.url("/files"), "");
    Guard::bearer(&issuer.url("/token"), "x").stand(&registry, &issuer, "/token");
    let setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let (certificate, key) = authority.certify_client("mirror");
    let certificate = setup.file("client.crt", &certificate.pem());
    let key = setup.file("client.key", &key.serialize_pem());
    let trusting = format!("ca: {ca:?}, realms: [{:?}]", issuer.host());
    let keys = format!("{trusting}, client_certificate: {certificate:?}, client_key: {key:?}");
    let setup = setup.upstream_with("shows.example", &registry, &keys);
    let setup = setup.upstream_with("hides.example", &registry, &trusting);
    let mirror = setup.start().await;
    let get = async |ns: &str| mirror.get(&format!("{MANIFEST}?ns={ns}")).await;
    get("hides.example").await.expect_error(502, "UNAVAILABLE");
    assert!(registry.log().is_empty(), "{:?}", registry.log());
    get("shows.example").await.expect(200);
    assert_eq!(issuer.requests("GET", "/token").len(), 1);
    let blob = format!("/v2/team/app/blobs/{digest}?ns=shows.example");
    let answer = mirror.get(&blob).await;
    assert_ne!(answer.status, 200, "{answer:?}");
    assert!(store.log().is_empty(), "{:?}", store.log());
}

#[tokio::test]
async fn a_client_certificate_that_is_replaced_is_the_one_that_is_shown() {
    let (wrong, right) = (Authority::new(), Authority::new());
    let registry = Upstream::start_demanding("127.0.0.1", &right).await;
    registry.put_image("team/app", "v1", &Image::new(1));
    let setup = Setup::new();
    let ca = setup.file("ca.pem", right.pem());
    let write = |setup: &Setup, authority: &Authority| {
        let (certificate, key) = authority.certify_client("mirror");
        let certificate = setup.file("client.crt", &certificate.pem());
        [certificate, setup.file("client.key", &key.serialize_pem())]
    };
    let [certificate, key] = write(&setup, &wrong);
    let keys = format!("ca: {ca:?}, client_certificate: {certificate:?}, client_key: {key:?}");
    let setup = setup.upstream_with("a.example", &registry, &keys);
    let mut mirror = setup.start().await;
    let target = format!("{MANIFEST}?ns=a.example");
    assert_eq!(mirror.get(&target).await.status, 502);
    mirror.reconfigure(|setup| {
        write(&setup, &right);
        setup
    });
    mirror.get(&target).await.expect(200);
}
