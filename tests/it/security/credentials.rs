//! C-25, C-48, C-50: whose credential goes where, and over what.

use crate::harness::client::Request;
use crate::harness::clock;
use crate::harness::content::Image;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Authority, Upstream, basic};
use crate::harness::world::{REGISTRY, World};

const MANIFEST: &str = "/v2/team/app/manifests/v1";

#[tokio::test]
async fn c25_what_a_client_proves_itself_with_goes_nowhere() {
    let world = World::new().await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    let blob = crate::harness::content::sha256(&image.blobs[1]);
    let blob = format!("/v2/team/app/blobs/{blob}");
    for authorization in [
        "Bearer abc",
        &basic("user", "hunter2"),
        "Basic",
        "Bearer",
        "Digest x=y",
    ] {
        for target in [MANIFEST, &blob] {
            let request = Request::get(target)
                .header("Authorization", authorization)
                .header("Proxy-Authorization", authorization)
                .header("X-Registry-Auth", "abc")
                .header("Cookie", "a=b");
            world.mirror.send(request).await.expect(200);
        }
    }
    let log = world.upstream.log();
    // It is no part of a key either: one body each.
    assert_eq!(world.upstream.requests("GET", "*").len(), 2, "{log:?}");
    for request in log {
        for header in [
            "Authorization",
            "Proxy-Authorization",
            "X-Registry-Auth",
            "Cookie",
        ] {
            assert_eq!(request.header(header), None, "{request:?}");
        }
    }
}

#[tokio::test]
async fn c48_a_credential_is_for_its_own_registry_alone() {
    let (named, other) = (Upstream::start().await, Upstream::start().await);
    named.put_image("team/app", "v1", &Image::new(1));
    named.want_basic("Basic realm=\"x\"", "robot", "hunter2");
    other.want_basic("Basic realm=\"x\"", "robot", "hunter2");
    let setup = Setup::new().upstream("named.example", &named);
    let setup = setup.upstream("other.example", &other);
    let credentials = "named.example: { username: robot, password: hunter2 }\n";
    let mirror = setup.credentials(credentials).start().await;
    let get = async |namespace| mirror.get(&format!("{MANIFEST}?ns={namespace}")).await;
    get("named.example").await.expect(200);
    get("other.example").await.expect_error(403, "DENIED");
    for request in other.log() {
        assert_eq!(request.header("Authorization"), None);
    }
}

#[tokio::test]
async fn c48_the_longest_prefix_has_its_own_credential() {
    let upstream = Upstream::start().await;
    for name in ["team/app", "team/open/app", "other/app"] {
        upstream.put_image(name, "v1", &Image::new(1));
    }
    let (team, all) = (basic("team", "hunter2"), basic("all", "hunter3"));
    let (for_team, for_all) = (team.clone(), all.clone());
    upstream.rule(move |request| {
        let (name, _, _) = request.parts()?;
        let wanted = match name {
            "team/app" => Some(&*for_team),
            "other/app" => Some(&*for_all),
            _ => None,
        };
        let allowed = request.header("Authorization") == wanted;
        let refusal = crate::harness::upstream::Answer::error(401, "UNAUTHORIZED");
        (!allowed).then(|| refusal.header("WWW-Authenticate", "Basic realm=\"x\""))
    });
    let setup = Setup::new().upstream(REGISTRY, &upstream);
    let credentials = "registry.example: { username: all, password: hunter3 }\n\
                       registry.example/team: { username: team, password: hunter2 }\n\
                       registry.example/team/open: { username: '', password: '' }\n";
    let mirror = setup.credentials(credentials).start().await;
    for name in ["team/app", "other/app", "team/open/app"] {
        let target = format!("/v2/{name}/manifests/v1");
        mirror.get(&target).await.expect(200);
    }
}

#[tokio::test]
async fn c48_a_credentials_file_that_cannot_be_read_stops_the_start() {
    for text in [
        "registry.example: hunter2\n",
        "registry.example: { username: robot }\n",
        "registry.example: { username: robot, password: hunter2, extra: x }\n",
        "not a host!: { username: robot, password: hunter2 }\n",
        "{",
    ] {
        let setup = Setup::new().credentials(text);
        let problems = setup.check().expect_err(text);
        assert!(!problems.contains("hunter2"), "{problems}");
    }
    let setup = Setup::new().line("credentials_file: /nonexistent/credentials.yaml");
    setup.check().expect_err("it does not exist");
}

#[tokio::test]
async fn c50_what_should_be_https_is_never_asked_in_plain() {
    let plain = Upstream::start().await;
    plain.put_image("team/app", "v1", &Image::new(1));
    let url = format!("https://{}", plain.host());
    let mirror = Setup::new().endpoints(REGISTRY, &[url], "").start().await;
    // A server without TLS waits for the end of a request that never comes.
    let time = async {
        plain.wait_for_connections(1).await;
        clock::pass(10).await;
    };
    let (answer, ()) = tokio::join!(mirror.get(MANIFEST), time);
    assert!(matches!(answer.status, 502 | 504), "{answer:?}");
    assert!(plain.log().is_empty(), "{:?}", plain.log());
}

#[tokio::test]
async fn c50_a_certificate_that_nobody_vouches_for_is_not_taken() {
    let (authority, other) = (Authority::new(), Authority::new());
    let upstream = Upstream::start_tls("127.0.0.1", &authority).await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    let setup = Setup::new();
    let (right, wrong) = (
        setup.file("right.pem", authority.pem()),
        setup.file("wrong.pem", other.pem()),
    );
    let setup = setup.upstream("none.example", &upstream);
    let setup = setup.upstream_with("wrong.example", &upstream, &format!("ca: {wrong:?}"));
    let setup = setup.upstream_with("right.example", &upstream, &format!("ca: {right:?}"));
    let mirror = setup.start().await;
    for namespace in ["none.example", "wrong.example"] {
        let answer = mirror.get(&format!("{MANIFEST}?ns={namespace}")).await;
        answer.expect_error(502, "UNAVAILABLE");
        assert!(upstream.log().is_empty());
    }
    let answer = mirror.get(&format!("{MANIFEST}?ns=right.example")).await;
    answer.expect(200);
}

#[tokio::test]
async fn f42_a_certificate_for_another_host_is_not_taken() {
    let authority = Authority::new();
    let upstream = Upstream::start_tls("127.0.0.1", &authority).await;
    let host = upstream.host();
    let (_, port) = host.rsplit_once(':').expect("a port");
    let setup = Setup::new();
    let ca = setup.file("ca.pem", authority.pem());
    let url = format!("https://localhost:{port}");
    let setup = setup.endpoints(REGISTRY, &[url], &format!("ca: {ca:?}"));
    let mirror = setup.start().await;
    mirror.get(MANIFEST).await.expect_error(502, "UNAVAILABLE");
    assert!(upstream.log().is_empty());
}
