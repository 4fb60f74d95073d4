//! F42: certificates out of their time, or for others, wherever one is looked at.

use crate::harness::client::Request;
use crate::harness::content::{Image, bytes};
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Authority, Guard, Upstream};
use crate::harness::world::REGISTRY;

const MANIFEST: &str = "/v2/team/app/manifests/v1";
/// From which year to which certificates are good that are not good now: over, and not begun.
const OUT_OF_TIME: [[i32; 2]; 2] = [[2020, 2021], [2090, 2091]];
const NOW: [i32; 2] = [2020, 2090];

/// A registry at 127.0.0.1 with a certificate for `host`, good in those years.
async fn registry(authority: &Authority, host: &str, years: [i32; 2]) -> Upstream {
    let identity = authority.certify_between(&[host], years);
    let registry = Upstream::start_with("127.0.0.1", &identity).await;
    registry.put_image("team/app", "v1", &Image::new(1));
    registry
}

fn trusting(authority: &Authority) -> (Setup, String) {
    let setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let keys = format!("ca: '{}'", ca.display());
    (setup, keys)
}

#[tokio::test]
async fn f42_a_registry_whose_certificate_is_out_of_its_time_is_not_believed() {
    let authority = Authority::new();
    for (host, years, expected) in [
        ("127.0.0.1", NOW, 200),
        ("127.0.0.1", OUT_OF_TIME[0], 502),
        ("127.0.0.1", OUT_OF_TIME[1], 502),
        ("127.0.0.9", NOW, 502),
    ] {
        let upstream = registry(&authority, host, years).await;
        let (setup, keys) = trusting(&authority);
        // As an endpoint, and as a mirror in front of one.
        let (endpoint, plain) = (upstream.url(""), Upstream::start().await);
        let as_mirror = format!("{keys}, mirrors: [{endpoint:?}]");
        let setup = setup.upstream_with("mirrored.example", &plain, &as_mirror);
        let mirror = setup
            .upstream_with(REGISTRY, &upstream, &keys)
            .start()
            .await;
        let answer = mirror.get(MANIFEST).await;
        assert_eq!(answer.status, expected, "{host} {years:?}: {answer:?}");
        assert_eq!(upstream.log().is_empty(), expected != 200);
        let behind = format!("{MANIFEST}?ns=mirrored.example");
        let answer = mirror.get(&behind).await;
        assert_eq!(answer.status == 200, expected == 200, "{answer:?}");
    }
}

#[tokio::test]
async fn f42_neither_realms_nor_redirects_are_believed_out_of_their_time() {
    let authority = Authority::new();
    for years in OUT_OF_TIME {
        let upstream = registry(&authority, "127.0.0.1", NOW).await;
        let stale = authority.certify_between(&["127.0.0.2"], years);
        let elsewhere = Upstream::start_with("127.0.0.2", &stale).await;
        let content = bytes(1, 5000);
        let digest = upstream.put_blob("team/app", content.clone());
        elsewhere.put_file(&format!("/files/{digest}"), content);
        upstream.redirect_blobs(307, &elsewhere.url("/files"), "");
        let (setup, keys) = trusting(&authority);
        let keys = format!("{keys}, realms: [{:?}]", elsewhere.host());
        let setup = setup.upstream_with(REGISTRY, &upstream, &keys);
        let credentials = "registry.example: { username: robot, password: hunter2 }\n";
        let mirror = setup.credentials(credentials).start().await;
        let blob = mirror.get(&format!("/v2/team/app/blobs/{digest}")).await;
        assert_ne!(blob.status, 200, "{blob:?}");
        Guard::bearer(&elsewhere.url("/token"), "x").stand(&upstream, &elsewhere, "/token");
        let answer = mirror.get(MANIFEST).await;
        assert_ne!(answer.status, 200, "{answer:?}");
        assert!(elsewhere.log().is_empty(), "{:?}", elsewhere.log());
    }
}

#[tokio::test]
async fn f42_what_was_pulled_before_is_served_while_a_certificate_is_out_of_its_time() {
    let authority = Authority::new();
    let (good, stale) = (
        registry(&authority, "127.0.0.1", NOW).await,
        registry(&authority, "127.0.0.1", OUT_OF_TIME[0]).await,
    );
    let (setup, keys) = trusting(&authority);
    let urls = [good.url(""), stale.url("")];
    let setup = setup.endpoints(REGISTRY, &urls, &keys);
    let mirror = setup.start().await;
    let image = mirror.get(MANIFEST).await.expect(200);
    good.stop().await;
    mirror.clock.advance(3600);
    let answer = Request::get(MANIFEST).send(mirror.address).await;
    assert!(answer.header("Warning").is_some(), "{answer:?}");
    assert_eq!(answer.expect(200), image);
    assert!(stale.log().is_empty());
}
