//! C-48: credentials that are kept in Docker's file, or that a program knows.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use futures_util::future::join_all;

use crate::harness::clock;
use crate::harness::content::{Image, KIB, bytes};
use crate::harness::gate::Gate;
use crate::harness::log::Log;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Body, Upstream};
use crate::harness::world::REGISTRY;

const MANIFEST: &str = "/v2/team/app/manifests/v1";

async fn guarded(password: &str) -> Upstream {
    let upstream = Upstream::start().await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    upstream.put_image("team/app", "v2", &Image::new(2));
    upstream.want_basic("Basic realm=\"x\"", "robot", password);
    upstream
}

fn docker_config(registry: &str, password: &str) -> String {
    format!(r#"{{"auths":{{"{registry}":{{"username":"robot","password":"{password}"}}}}}}"#)
}

/// A program beside the configuration. It counts how often it runs in a file called `runs`.
fn program(setup: &Setup, body: &str) -> (PathBuf, PathBuf) {
    let runs = setup.file("runs", "");
    let text = format!("#!/bin/sh\necho x >> '{}'\n{body}\n", runs.display());
    let path = setup.file("helper", &text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("a file");
    (path, runs)
}

fn runs(path: &PathBuf) -> usize {
    fs::read_to_string(path).expect("a file").lines().count()
}

fn says(password: &str) -> String {
    format!("cat > /dev/null; echo '{{\"Username\":\"robot\",\"Secret\":\"{password}\"}}'")
}

#[tokio::test]
async fn a_docker_config_is_replaced_while_fifty_pulls_run_and_none_fails() {
    let upstream = guarded("old").await;
    let content = bytes(1, 256 * KIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(100 * KIB, &gate);
    let digest = upstream.put_blob("team/app", body);
    let setup = Setup::new();
    let path = setup.file("config.json", &docker_config(REGISTRY, "old"));
    let keys = format!("credentials: {{ docker_config: {path:?} }}");
    let mirror = setup
        .upstream_with(REGISTRY, &upstream, &keys)
        .start()
        .await;
    let blob = format!("/v2/team/app/blobs/{digest}");
    let pulls = join_all((0..50).map(|_| mirror.get(&blob)));
    let replacing = async {
        gate.reached().await;
        fs::write(&path, docker_config(REGISTRY, "new")).expect("written");
        upstream.behave();
        upstream.want_basic("Basic realm=\"x\"", "robot", "new");
        mirror.get(MANIFEST).await.expect(200);
        gate.open();
    };
    for answer in tokio::join!(pulls, replacing).0 {
        assert_eq!(answer.expect(200), content);
    }
}

#[tokio::test]
async fn c48_a_docker_config_that_breaks_leaves_what_was_read() {
    let upstream = guarded("old").await;
    let setup = Setup::new();
    let path = setup.file("config.json", &docker_config(REGISTRY, "old"));
    let keys = format!("credentials: {{ docker_config: {path:?} }}");
    let mirror = setup
        .upstream_with(REGISTRY, &upstream, &keys)
        .start()
        .await;
    for text in ["{", ""] {
        fs::write(&path, text).expect("written");
        mirror.get(MANIFEST).await.expect(200);
    }
    fs::remove_file(&path).expect("removed");
    mirror.get("/v2/team/app/manifests/v2").await.expect(200);
}

#[tokio::test]
async fn c48_the_docker_config_for_all_is_for_the_registries_it_names() {
    let (named, other) = (guarded("one").await, guarded("one").await);
    let setup = Setup::new().upstream("named.example", &named);
    let setup = setup.upstream("other.example", &other);
    let path = setup.file(
        "config.json",
        &docker_config("https://named.example/v2/", "one"),
    );
    let mirror = setup
        .line(&format!("docker_config: {path:?}"))
        .start()
        .await;
    let get = async |namespace| mirror.get(&format!("{MANIFEST}?ns={namespace}")).await;
    get("named.example").await.expect(200);
    assert_ne!(get("other.example").await.status, 200);
    for request in other.log() {
        assert_eq!(request.header("Authorization"), None);
    }
}

#[tokio::test]
async fn a_helper_is_asked_once_for_many_and_again_when_its_word_ends() {
    let upstream = guarded("hunter2").await;
    let setup = Setup::new();
    let (path, ran) = program(&setup, &says("hunter2"));
    let keys = format!("credentials: {{ exec: [{path:?}], lifetime: 1h }}");
    let mirror = setup
        .upstream_with(REGISTRY, &upstream, &keys)
        .start()
        .await;
    let targets = ["v1", "v2", "v1", "v2"].map(|tag| format!("/v2/team/app/manifests/{tag}"));
    for answer in join_all(targets.iter().map(|target| mirror.get(target))).await {
        answer.expect(200);
    }
    assert_eq!(runs(&ran), 1);
    clock::pass(3600).await;
    mirror
        .get("/v2/team/app/manifests/v3")
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(runs(&ran), 2);
}

#[tokio::test]
async fn a_helper_is_asked_again_when_what_it_said_is_refused() {
    let upstream = guarded("old").await;
    let setup = Setup::new();
    let (path, ran) = program(&setup, &says("old"));
    let keys = format!("credentials: {{ exec: [{path:?}], lifetime: 12h }}");
    let mirror = setup
        .upstream_with(REGISTRY, &upstream, &keys)
        .start()
        .await;
    mirror.get(MANIFEST).await.expect(200);
    upstream.behave();
    upstream.want_basic("Basic realm=\"x\"", "robot", "new");
    let text = fs::read_to_string(&path)
        .expect("a program")
        .replace("old", "new");
    fs::write(&path, text).expect("written");
    clock::pass(11).await;
    mirror.get("/v2/team/app/manifests/v2").await.expect(200);
    assert_eq!(runs(&ran), 2);
}

#[tokio::test]
async fn c48_a_helper_that_fails_leaves_its_upstream_alone_and_no_other() {
    let (log, _guard) = Log::start();
    for body in [
        "exit 1",
        "echo canary-secret >&2; exit 3",
        "echo canary-secret",
        "echo '{\"Username\":\"robot\"}'",
        "printf '{\"Username\":\"robot\",\"Secret\":\"canary-secret\\\\nX: y\"}'",
        "printf '{\"Username\":\"a:b\",\"Secret\":\"canary-secret\"}'",
        "head -c 100000 /dev/zero",
    ] {
        let (upstream, open) = (Upstream::start().await, Upstream::start().await);
        for one in [&upstream, &open] {
            one.put_image("team/app", "v1", &Image::new(1));
        }
        let setup = Setup::new();
        let (path, _) = program(&setup, body);
        let keys = format!("credentials: {{ exec: [{path:?}] }}");
        let setup = setup.upstream_with(REGISTRY, &upstream, &keys);
        let mirror = setup.upstream("open.example", &open).start().await;
        let answer = mirror.get(MANIFEST).await;
        assert_eq!(answer.status, 502, "{body}: {answer:?}");
        assert_eq!(upstream.connections(), 0, "{body}");
        let other = format!("{MANIFEST}?ns=open.example");
        mirror.get(&other).await.expect(200);
    }
    let setup = Setup::new();
    let upstream = Upstream::start().await;
    let keys = "credentials: { exec: [/nonexistent/helper] }";
    let mirror = setup.upstream_with(REGISTRY, &upstream, keys).start().await;
    assert_eq!(mirror.get(MANIFEST).await.status, 502);
    assert_eq!(upstream.connections(), 0);
    assert!(!log.text().contains("canary"), "{}", log.text());
}

#[tokio::test]
async fn a_helper_sees_its_own_variables_and_the_registry_alone() {
    let upstream = guarded("pw-of-registry.example").await;
    let setup = Setup::new();
    let seen = setup.file("seen", "");
    // What it reads is part of the password here.
    let body = format!(
        "env > {seen:?}; echo \"args $*\" >> {seen:?}\n\
         echo \"{{\\\"Username\\\":\\\"robot\\\",\\\"Secret\\\":\\\"pw-of-$(cat)\\\"}}\""
    );
    let (path, _) = program(&setup, &body);
    let keys = format!("credentials: {{ exec: [{path:?}, a b], environment: [\"REGION=here\"] }}");
    let mirror = setup
        .upstream_with(REGISTRY, &upstream, &keys)
        .start()
        .await;
    mirror.get(MANIFEST).await.expect(200);
    let seen = fs::read_to_string(seen).expect("written");
    assert!(
        seen.contains("REGION=here\n") && seen.contains("args a b get\n"),
        "{seen}"
    );
    assert!(!seen.contains("CARGO"), "{seen}");
}

#[tokio::test]
async fn a_token_is_shown_to_the_registry_as_it_is() {
    let upstream = Upstream::start().await;
    upstream.put_image("team/app", "v1", &Image::new(1));
    upstream.rule(|request| {
        let is_right = request.header("Authorization") == Some("Bearer s3cret");
        let refusal = crate::harness::upstream::Answer::error(401, "UNAUTHORIZED");
        let realm = "Bearer realm=\"http://127.0.0.9:1/token\"";
        (!is_right).then(|| refusal.header("WWW-Authenticate", realm))
    });
    let keys = "credentials: { token: s3cret }";
    let mirror = Setup::new()
        .upstream_with(REGISTRY, &upstream, keys)
        .start()
        .await;
    mirror.get(MANIFEST).await.expect(200);
}

#[test]
fn a_credential_is_one_thing() {
    let check = |keys: &str| {
        let setup = Setup::new();
        let urls = ["https://registry.example".to_owned()];
        let keys = format!("credentials: {{ {keys} }}");
        setup.endpoints(REGISTRY, &urls, &keys).check()
    };
    for (keys, expected) in [
        ("token: a, username: b, password: c", "has more than one of"),
        ("token: 'a b'", "must be a token"),
        ("token: ''", "must be a token"),
        ("exec: []", "must name a program"),
        ("exec: [a], lifetime: 0s", "a second at least"),
        ("exec: [a], environment: [hunter2]", "must be NAME=value"),
        ("docker_config: /nonexistent", "cannot be read"),
    ] {
        let problems = check(keys).expect_err(keys);
        assert!(problems.contains(expected), "{problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}
