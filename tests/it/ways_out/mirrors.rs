//! Another mirror in front of an upstream, which is told which registry is meant.

use crate::harness::content::Image;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Upstream, basic};

const MANIFEST: &str = "/v2/team/app/manifests/v1?ns=registry.example";

#[tokio::test]
async fn behind_another_entrepot_the_namespace_is_passed_on() {
    let upstream = Upstream::start().await;
    let image = Image::new(1);
    upstream.put_image("team/app", "v1", &image);
    let other = Upstream::start().await;
    // Its default is somebody else, so only `ns` leads to the right one.
    let central = Setup::new().upstream("registry.example", &upstream);
    let central = central.upstream("other.example", &other);
    let central = central.default_upstream("other.example").start().await;
    let edge = Setup::new();
    let keys = format!("mirrors: [\"http://{}\"]", central.address);
    let edge = edge.upstream_with("registry.example", &upstream, &keys);
    let edge = edge.start().await;
    edge.get(MANIFEST).await.expect(200);
    let tags = "/v2/team/app/tags/list?n=5&ns=registry.example";
    edge.get(tags).await.expect(200);
    assert_eq!(other.connections(), 0);
    let metrics = central.metrics().await;
    assert!(
        metrics.contains("upstream=\"registry.example\""),
        "{metrics}"
    );
    for request in upstream.log() {
        assert!(!request.target.contains("ns="), "{request:?}");
    }
}

#[tokio::test]
async fn a_mirror_sees_no_credentials_and_what_it_lacks_comes_from_the_registry() {
    let (mirror, registry) = (Upstream::start().await, Upstream::start().await);
    registry.put_image("team/app", "v1", &Image::new(1));
    registry.want_basic("Basic realm=\"x\"", "robot", "hunter2");
    let setup = Setup::new();
    let keys = format!("mirrors: [{:?}]", mirror.url(""));
    let setup = setup.upstream_with("registry.example", &registry, &keys);
    let credentials = "registry.example: { username: robot, password: hunter2 }\n";
    let edge = setup.credentials(credentials).start().await;
    edge.get(MANIFEST).await.expect(200);
    let asked = mirror.log();
    assert!(!asked.is_empty());
    for request in asked {
        assert_eq!(request.header("Authorization"), None);
        assert!(
            request.target.ends_with("?ns=registry.example"),
            "{request:?}"
        );
    }
    let expected = basic("robot", "hunter2");
    let shown = registry.log();
    assert!(
        shown
            .iter()
            .any(|request| request.header("Authorization") == Some(&*expected))
    );
}
