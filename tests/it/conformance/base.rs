//! A1: the base of the API, and which upstream a request goes to.

use crate::harness::client::Request;
use crate::harness::content::{Image, OCI_IMAGE};
use crate::harness::mirror::Setup;
use crate::harness::upstream::Upstream;
use crate::harness::world::{REGISTRY, Way, World, everywhere};

#[tokio::test]
async fn a1_1_the_base_answers_by_itself() {
    let world = World::new().await;
    for target in [
        "/v2/",
        "/v2",
        "/v2/?ns=registry.example",
        "/v2?ns=registry.example",
    ] {
        assert_eq!(world.mirror.get(target).await.expect(200), "{}");
        let head = world.mirror.head(target).await;
        assert_eq!(head.header("Content-Length"), Some("2"));
        head.expect(200);
    }
    assert_eq!(world.upstream.connections(), 0);
}

#[tokio::test]
async fn a1_4_the_namespace_that_answered_is_named() {
    let prepare = |upstream: &Upstream| upstream.put_image("team/app", "v1", &Image::new(1));
    everywhere(prepare, async |mirror, way, _| {
        for rest in ["team/app/manifests/v1", "team/app/manifests/unknown"] {
            let answer = mirror.get(&way.target(rest)).await;
            assert_eq!(answer.header("OCI-Namespace"), Some(REGISTRY), "{answer:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a1_5_one_registry_never_answers_for_another() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let (in_first, in_second) = (Image::new(1), Image::new(2));
    first.put_image("team/app", "v1", &in_first);
    second.put_image("team/app", "v1", &in_second);
    let setup = Setup::new().upstream("first.example", &first);
    let mirror = setup.upstream("second.example", &second).start().await;
    for _ in 0..2 {
        for (namespace, image) in [("first.example", &in_first), ("second.example", &in_second)] {
            let by_namespace = format!("/v2/team/app/manifests/v1?ns={namespace}");
            let by_path = format!("/v2/{namespace}/team/app/manifests/v1");
            for target in [by_namespace, by_path] {
                let manifest = mirror.get(&target).await;
                assert_eq!(manifest.expect(200), image.manifest.bytes, "{target}");
            }
        }
    }
}

#[tokio::test]
async fn a1_6_ns_goes_before_the_path() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let (plain, nested) = (Image::new(1), Image::new(2));
    first.put_image("second.example/team/app", "v1", &nested);
    second.put_image("team/app", "v1", &plain);
    let setup = Setup::new().upstream("first.example", &first);
    let mirror = setup.upstream("second.example", &second).start().await;
    let get = async |target: &str| mirror.get(target).await.expect(200);

    let disagreeing = "/v2/second.example/team/app/manifests/v1?ns=first.example";
    assert_eq!(get(disagreeing).await, nested.manifest.bytes);
    let agreeing = "/v2/second.example/team/app/manifests/v1?ns=second.example";
    assert_eq!(get(agreeing).await, plain.manifest.bytes);
    let path_alone = "/v2/second.example/team/app/manifests/v1";
    assert_eq!(get(path_alone).await, plain.manifest.bytes);
}

#[tokio::test]
async fn a1_6_a_first_segment_that_names_no_upstream_is_part_of_the_name() {
    let world = World::new().await;
    let image = Image::new(1);
    world
        .upstream
        .put_image("unknown.example/team/app", "v1", &image);
    let target = "/v2/unknown.example/team/app/manifests/v1";
    assert_eq!(
        world.mirror.get(target).await.expect(200),
        image.manifest.bytes
    );
}

#[tokio::test]
async fn a1_9_the_names_of_docker_hub_are_one_registry() {
    let hub = Upstream::start().await;
    let image = Image::of_type(OCI_IMAGE, 1);
    hub.put_image("library/nginx", "1.29", &image);
    let setup = Setup::new().upstream("docker.io", &hub);
    let mirror = setup.default_upstream("docker.io").start().await;
    let targets = [
        "/v2/library/nginx/manifests/1.29?ns=docker.io",
        "/v2/library/nginx/manifests/1.29?ns=index.docker.io",
        "/v2/library/nginx/manifests/1.29?ns=registry-1.docker.io",
        "/v2/nginx/manifests/1.29?ns=docker.io",
        "/v2/docker.io/nginx/manifests/1.29",
        "/v2/docker.io/library/nginx/manifests/1.29",
        "/v2/registry-1.docker.io/nginx/manifests/1.29?ns=docker.io",
        "/v2/nginx/manifests/1.29",
        "/v2/library/nginx/manifests/1.29",
    ];
    for target in targets {
        let answer = mirror.get(target).await;
        assert!(answer.header("OCI-Namespace").is_some(), "{target}");
        assert_eq!(answer.expect(200), image.manifest.bytes, "{target}");
    }
    let gets = hub.requests("GET", "*");
    assert_eq!(gets.len(), 1, "{gets:?}");
    assert_eq!(gets[0].path(), "/v2/library/nginx/manifests/1.29");
}

#[tokio::test]
async fn a1_9_other_registries_keep_names_of_one_part() {
    let world = World::new().await;
    let image = Image::new(1);
    world.upstream.put_image("nginx", "v1", &image);
    let target = Way::Namespace.target("nginx/manifests/v1");
    assert_eq!(
        world.mirror.get(&target).await.expect(200),
        image.manifest.bytes
    );
}

#[tokio::test]
async fn a1_10_there_is_no_catalog_and_no_extension() {
    let world = World::new().await;
    for target in [
        "/v2/_catalog",
        "/v2/_catalog?n=9999999999",
        "/v2/_oci/ext/discover",
    ] {
        let answer = world.mirror.get(target).await;
        assert!(matches!(answer.status, 404 | 405), "{answer:?}");
    }
    assert_eq!(world.upstream.connections(), 0);
}

#[tokio::test]
async fn the_root_and_other_paths_are_not_found() {
    let world = World::new().await;
    for target in [
        "/",
        "/favicon.ico",
        "/v1/",
        "/v2x/",
        "/v2/team",
        "/v2/team/app/unknown/x",
    ] {
        let answer = Request::get(target).send(world.mirror.address).await;
        assert_eq!(answer.status, 404, "{target}: {answer:?}");
    }
    assert_eq!(world.upstream.connections(), 0);
}
