//! F41: the configuration changes under a running mirror.

use futures_util::future::join_all;

use crate::harness::client::Request;
use crate::harness::content::Image;
use crate::harness::gate::Gate;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Authority, Body, Upstream, basic};
use crate::harness::world::REGISTRY;

const APP: &str = "/v2/team/app/manifests/v1";

#[tokio::test]
async fn another_configuration_counts_from_the_next_request_on() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let (old, new) = (Image::new(1), Image::new(2));
    first.put_image("team/app", "v1", &old);
    second.put_image("team/app", "v1", &new);
    let mut mirror = Setup::new()
        .upstream(REGISTRY, &first)
        .upstream("second.example", &second)
        .start()
        .await;
    assert_eq!(mirror.get(APP).await.expect(200), old.manifest.bytes);
    let before = mirror.metrics().await;
    assert!(before.contains("\nentrepot_config_loaded_timestamp_seconds "));
    let waiting = mirror.reconfigure(|setup| setup.default_upstream("second.example"));
    assert!(waiting.is_empty(), "{waiting:?}");
    assert_eq!(mirror.get(APP).await.expect(200), new.manifest.bytes);
    mirror.reconfigure(|setup| setup.line("hosts: { hub.test: registry.example }"));
    let by_host = Request::get(APP).header("Host", "hub.test");
    assert_eq!(mirror.send(by_host).await.expect(200), old.manifest.bytes);
    mirror.get(APP).await.expect_error(404, "NAME_UNKNOWN");
    // What was cached before still is.
    assert_eq!(first.requests("GET", "/v2/*").len(), 1);
}

#[tokio::test]
async fn a_pull_under_way_goes_on_as_it_began() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    let blob = vec![7; 1 << 20];
    let body = Body::new(blob.clone()).stall_at(1000, &gate);
    let digest = upstream.put_blob("team/app", body);
    let mut mirror = Setup::new().upstream(REGISTRY, &upstream).start().await;
    let target = format!("/v2/team/app/blobs/{digest}");
    let pull = Request::get(&target).open(mirror.address).await;
    mirror.reconfigure(Setup::without_upstreams);
    gate.open();
    assert_eq!(pull.finish().await.expect(200), blob);
    // Whoever comes now does not find it any more.
    let answer = mirror.get(&format!("{APP}?ns={REGISTRY}")).await;
    assert_ne!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn f41_a_password_that_is_replaced_is_the_one_that_is_sent() {
    let upstream = Upstream::start().await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    upstream.put_image("team/app", "v2", &Image::new(2));
    upstream.want_basic("Basic realm=\"x\"", "robot", "new");
    let setup = Setup::new().upstream(REGISTRY, &upstream);
    let file = "registry.example: { username: robot, password: old }\n";
    let mut mirror = setup.credentials(file).start().await;
    assert_ne!(mirror.get(APP).await.status, 200);
    let file = "registry.example: { username: robot, password: new }\n";
    mirror.reconfigure(|setup| {
        setup.file("credentials.yaml", file);
        setup
    });
    mirror.get(APP).await.expect(200);
    // And one that is removed is sent no more.
    mirror.reconfigure(|setup| {
        setup.file("credentials.yaml", "");
        setup
    });
    let answer = mirror.get("/v2/team/app/manifests/v2").await;
    assert_ne!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn f41_a_password_is_replaced_while_50_pulls_run_and_none_fails() {
    let upstream = Upstream::start().await;
    let [old, new] = ["old", "new"].map(|password| basic("robot", password));
    let is_known = [old, new.clone()];
    upstream.rule(move |request| {
        let shown = request.header("Authorization").unwrap_or_default();
        let is_welcome = is_known.iter().any(|known| known == shown);
        let refusal = Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
        (!is_welcome).then_some(refusal)
    });
    let gate = Gate::closed();
    let blobs: Vec<_> = (0..50_u8).map(|n| vec![n; 1 << 20]).collect();
    let targets: Vec<_> = blobs
        .iter()
        .map(|blob| {
            let body = Body::new(blob.clone()).stall_at(1000, &gate);
            let digest = upstream.put_blob("team/app", body);
            format!("/v2/team/app/blobs/{digest}")
        })
        .collect();
    upstream.put_image("team/app", "v1", &Image::new(1));
    let setup = Setup::new().upstream_with(REGISTRY, &upstream, "limits: { connections: 64 }");
    let file = |password| format!("registry.example: {{ username: robot, password: {password} }}");
    let mut mirror = setup.credentials(&file("old")).start().await;
    let address = mirror.address;
    let pulls = join_all(
        targets
            .iter()
            .map(|target| Request::get(target).open(address)),
    )
    .await;
    mirror.reconfigure(|setup| {
        setup.file("credentials.yaml", &file("new"));
        setup
    });
    gate.open();
    for (pull, blob) in pulls.into_iter().zip(blobs) {
        assert_eq!(pull.finish().await.expect(200), blob);
    }
    mirror.get(APP).await.expect(200);
    let shown = upstream.requests("GET", APP);
    let last = shown
        .last()
        .and_then(|request| request.header("Authorization"));
    assert_eq!(last, Some(&*new));
}

#[tokio::test]
async fn f42_a_registry_is_believed_again_once_its_authority_is() {
    let (wrong, right) = (Authority::new(), Authority::new());
    let upstream = Upstream::start_tls("127.0.0.1", &right).await;
    let image = Image::new(1);
    upstream.put_image("team/app", "v1", &image);
    let setup = Setup::new();
    let ca = setup.file("ca.pem", wrong.pem());
    let keys = format!("ca: {:?}", ca.to_str().expect("a plain path"));
    let setup = setup.upstream_with(REGISTRY, &upstream, &keys);
    let mut mirror = setup.start().await;
    // Refused, and not asked in any other way.
    assert_eq!(mirror.get(APP).await.status, 502);
    assert_eq!(upstream.requests("GET", "/v2/*").len(), 0);
    mirror.reconfigure(|setup| {
        setup.file("ca.pem", right.pem());
        setup
    });
    assert_eq!(mirror.get(APP).await.expect(200), image.manifest.bytes);
}

#[tokio::test]
async fn upstreams_that_did_not_change_keep_their_connections() {
    let upstream = Upstream::start().await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    upstream.put_image("team/app", "v2", &Image::new(2));
    let mut mirror = Setup::new().upstream(REGISTRY, &upstream).start().await;
    mirror.get(APP).await.expect(200);
    let before = upstream.connections();
    mirror.reconfigure(|setup| setup.line("manifests: { ttl: 1s }"));
    mirror.get("/v2/team/app/manifests/v2").await.expect(200);
    assert_eq!(upstream.connections(), before);
}

#[tokio::test]
async fn how_long_tags_hold_changes_too() {
    let upstream = Upstream::start().await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    let mut mirror = Setup::new().upstream(REGISTRY, &upstream).start().await;
    mirror.get(APP).await.expect(200);
    mirror.get(APP).await.expect(200);
    assert_eq!(upstream.requests("HEAD", "/v2/*").len(), 0);
    mirror.reconfigure(|setup| setup.line("manifests: { ttl: 0s }"));
    mirror.get(APP).await.expect(200);
    assert_eq!(upstream.requests("HEAD", "/v2/*").len(), 1);
}

#[tokio::test]
async fn what_waits_for_a_restart_is_said() {
    let upstream = Upstream::start().await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    let mut mirror = Setup::new().upstream(REGISTRY, &upstream).start().await;
    let waiting =
        mirror.reconfigure(|setup| setup.listen("{ address: \"127.0.0.1:1\", upstream: ghcr.io }"));
    assert_eq!(waiting, ["listen"]);
    mirror.get(APP).await.expect(200);
}
