//! C-12 to C-15: which registry may be asked for.

use crate::harness::content::Image;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Authority, Upstream};
use crate::harness::world::{REGISTRY, World};

fn manifest(namespace: &str) -> String {
    format!("/v2/team/app/manifests/v1?ns={namespace}")
}

#[tokio::test]
async fn c12_a_registry_that_is_not_configured_is_not_known() {
    let world = World::new().await;
    let other = Upstream::start().await;
    let before = world.mirror.files();
    for namespace in [
        &*other.host(),
        "other.example",
        "ghcr.io",
        "localhost:5000",
        "10.0.0.1",
    ] {
        let answer = world.mirror.get(&manifest(namespace)).await;
        answer.expect_error(404, "NAME_UNKNOWN");
        assert_eq!(world.mirror.head(&manifest(namespace)).await.status, 404);
    }
    assert_eq!(other.connections() + world.upstream.connections(), 0);
    assert_eq!(world.mirror.files(), before);
}

#[tokio::test]
async fn c13_private_addresses_are_reached_only_by_name() {
    let authority = Authority::new();
    let other = Upstream::start_tls("127.0.0.1", &authority).await;
    let world = World::with(Setup::serving_the_public).await;
    let host = other.host();
    let port = host.rsplit(':').next().expect("a port");
    let namespaces = [
        host.clone(),
        format!("localhost:{port}"),
        format!("localhost.:{port}"),
        format!("LOCALHOST:{port}"),
        format!("127.0.0.2:{port}"),
        format!("0.0.0.0:{port}"),
        format!("[::1]:{port}"),
        format!("[::]:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("[::ffff:7f00:1]:{port}"),
        format!("[::127.0.0.1]:{port}"),
        format!("[64:ff9b::127.0.0.1]:{port}"),
        "127.0.0.1:6443".to_owned(),
        "10.0.0.1".to_owned(),
        "172.16.0.1".to_owned(),
        "192.168.0.1".to_owned(),
        "100.64.0.1".to_owned(),
        "169.254.169.254".to_owned(),
        "[::ffff:10.0.0.1]".to_owned(),
        "[fe80::1]".to_owned(),
        "[fd00::1]".to_owned(),
        "[ff02::1]".to_owned(),
        "224.0.0.1".to_owned(),
        "255.255.255.255".to_owned(),
        "192.0.2.1".to_owned(),
    ];
    for namespace in namespaces {
        let answer = world.mirror.get(&manifest(&namespace)).await;
        let message = answer.expect_error(403, "DENIED");
        assert!(
            message.contains("upstream"),
            "it says what to do: {message}"
        );
    }
    assert_eq!(other.connections() + world.upstream.connections(), 0);
}

#[tokio::test]
async fn c13_c14_what_is_no_namespace_is_refused() {
    let world = World::with(Setup::serving_the_public).await;
    let long = "a.".repeat(130) + "io";
    let namespaces = [
        "0x7f.1",
        "1.2.3",
        "2130706433",
        "user:pw@host.example",
        "user@host.example",
        "host.example/path",
        "host.example%2Fpath",
        "host.example%23x",
        "host.example%3Fx",
        "host.example%0D%0AX:%20y",
        "host%0dexample",
        "host.example%20",
        "%20",
        "a%00b",
        "host.example:",
        "host.example:0",
        "host.example:99999",
        "host.example:8%20",
        "b%C3%BCcher.example",
        "..",
        "a..b",
        "-a.example",
        "[::1",
        "[fe80::1%25eth0]",
        "http://host.example",
        &long,
    ];
    let before = world.mirror.files();
    for namespace in namespaces {
        let answer = world.mirror.get(&manifest(namespace)).await;
        assert_eq!(answer.status, 400, "{namespace}: {answer:?}");
        assert_eq!(answer.header("OCI-Namespace"), None);
        answer.expect_error(400, "NAME_INVALID");
    }
    assert_eq!(world.upstream.connections(), 0);
    assert_eq!(world.mirror.files(), before);
}

#[tokio::test]
async fn c14_two_namespaces_are_one_too_many() {
    let world = World::new().await;
    for query in [
        format!("ns={REGISTRY}&ns=other.example"),
        format!("ns={REGISTRY}&ns={REGISTRY}"),
        format!("ns={REGISTRY}&n%73=other.example"),
    ] {
        let target = format!("/v2/team/app/manifests/v1?{query}");
        world
            .mirror
            .get(&target)
            .await
            .expect_error(400, "NAME_INVALID");
    }
    assert_eq!(world.upstream.connections(), 0);
}

#[tokio::test]
async fn c15_one_registry_has_one_entry_and_one_credential() {
    let upstream = Upstream::start().await;
    let image = Image::new(1);
    upstream.put_image("team/app", "v1", &image);
    upstream.want_basic("Basic realm=\"x\"", "robot", "hunter2");
    let setup = Setup::new().upstream(REGISTRY, &upstream);
    let credentials = "Registry.Example: { username: robot, password: hunter2 }\n";
    let mirror = setup.credentials(credentials).start().await;
    for namespace in [
        "registry.example",
        "REGISTRY.EXAMPLE",
        "registry.example.",
        "Registry.example:443",
    ] {
        let answer = mirror.get(&manifest(namespace)).await;
        assert_eq!(answer.expect(200), image.manifest.bytes, "{namespace}");
    }
    // One refusal, one answer: the later ones came from the cache.
    let log = upstream.requests("GET", "/v2/team/app/*");
    assert!(log.len() <= 2, "{log:?}");
}

#[tokio::test]
async fn c15_parameters_that_mean_nothing_here_change_nothing() {
    let world = World::new().await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    for query in [
        "",
        "?",
        "?x=1",
        "?NS=other.example",
        "?x=ns=other.example",
        "?&&",
        "?scope=x",
    ] {
        let target = format!("/v2/team/app/manifests/v1{query}");
        assert_eq!(
            world.mirror.get(&target).await.expect(200),
            image.manifest.bytes
        );
    }
    assert_eq!(world.upstream.requests("GET", "*").len(), 1);
    let targets = world.upstream.log();
    assert!(
        targets.iter().all(|request| !request.target.contains('?')),
        "{targets:?}"
    );
}

#[tokio::test]
async fn a_request_that_went_through_this_mirror_is_refused() {
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    world
        .mirror
        .get("/v2/team/app/manifests/v1")
        .await
        .expect(200);
    let via = world.upstream.log()[0]
        .header("Via")
        .expect("a Via")
        .to_owned();
    world.upstream.forget();
    for via in [
        via.clone(),
        format!("1.1 other, {via}"),
        format!("{via}, HTTP/1.1 other (x)"),
    ] {
        let request = crate::harness::client::Request::get("/v2/team/app/manifests/v2");
        let answer = world.mirror.send(request.header("Via", &via)).await;
        answer.expect_error(502, "UNAVAILABLE");
    }
    assert!(world.upstream.log().is_empty());
}

#[tokio::test]
async fn the_way_of_a_request_is_sent_on() {
    let world = World::new().await;
    let request = crate::harness::client::Request::get("/v2/team/app/manifests/v1");
    world
        .mirror
        .send(request.header("Via", "1.1 another"))
        .await;
    let via = world.upstream.log()[0]
        .header("Via")
        .expect("a Via")
        .to_owned();
    assert!(via.starts_with("1.1 another, "), "{via}");
}
