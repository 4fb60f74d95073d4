//! A port for each registry.

use crate::harness::client::Request;
use crate::harness::content::Image;
use crate::harness::mirror::Setup;
use crate::harness::upstream::Upstream;

const APP: &str = "/v2/team/app/manifests/v1";

#[tokio::test]
async fn each_port_is_its_own_registry_and_all_share_what_is_stored() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let image = Image::new(1);
    first.put_image("team/app", "v1", &image);
    second.put_image("team/app", "v1", &image);
    let mirror = Setup::new()
        .upstream("registry.example", &first)
        .upstream("second.example", &second)
        .listen("{ address: \"127.0.0.1:0\", upstream: second.example }")
        .start()
        .await;
    let at = |listener: usize| mirror.addresses[listener];
    let manifest = Request::get(APP).send(at(0)).await;
    assert_eq!(manifest.header("OCI-Namespace"), Some("registry.example"));
    assert_eq!(manifest.expect(200), image.manifest.bytes);
    let manifest = Request::get(APP).send(at(1)).await;
    assert_eq!(manifest.header("OCI-Namespace"), Some("second.example"));
    assert_eq!(manifest.expect(200), image.manifest.bytes);
    assert_eq!(first.requests("GET", "/v2/team/app/manifests/*").len(), 1);
    assert_eq!(second.requests("GET", "/v2/team/app/manifests/*").len(), 1);
}

#[tokio::test]
async fn a_listener_of_its_own_takes_no_other_registry_but_by_ns() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    first.put_image("team/app", "v1", &Image::new(1));
    let mirror = Setup::new()
        .upstream("registry.example", &first)
        .upstream("second.example", &second)
        .listen("{ address: \"127.0.0.1:0\", upstream: second.example }")
        .start()
        .await;
    let own = mirror.addresses[1];
    let prefixed = "/v2/registry.example/team/app/manifests/v1";
    let answer = Request::get(prefixed).send(own).await;
    answer.expect_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(first.connections(), 0);
    let named = format!("{APP}?ns=registry.example");
    Request::get(&named).send(own).await.expect(200);
    let base = Request::get("/v2/").send(own).await;
    assert_eq!(base.header("OCI-Namespace"), Some("second.example"));
}
