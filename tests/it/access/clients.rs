//! Clients that log in to the mirror itself.

use super::members::{Content, HERE, Kind, Members, Mode, OPEN, THERE};
use crate::harness::client::Request;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Upstream, basic};
use crate::harness::world::REGISTRY;

#[tokio::test]
async fn only_known_clients_are_served_and_only_what_the_rules_allow() {
    let registry = Upstream::start().await;
    let members = Members::default();
    members.admit("robot", HERE);
    members.stand(&registry);
    let content = Content::put(&registry);
    let mirror = Mode::Authenticated.setup(&registry, "").start().await;
    let ask = |kind, name: &str, user: &str, password: &str| {
        let request = content.request(kind, name);
        request.header("Authorization", basic(user, password))
    };
    for kind in Kind::ALL {
        let answer = mirror.send(content.request(kind, HERE)).await;
        let challenge = answer.header("WWW-Authenticate").unwrap_or_default();
        assert!(challenge.starts_with("Basic realm="), "{answer:?}");
        for (user, password) in [("alice", "wrong"), ("alice", ""), ("eve", "pw-alice")] {
            let answer = mirror.send(ask(kind, HERE, user, password)).await;
            assert_eq!(answer.status, 401, "{answer:?}");
        }
        // No rule is about it.
        let answer = mirror.send(ask(kind, OPEN, "alice", "pw-alice")).await;
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    assert_eq!(registry.log().len(), 0, "who is not known costs nothing");
    for kind in Kind::ALL {
        let answer = mirror.send(ask(kind, HERE, "alice", "pw-alice")).await;
        assert_eq!(answer.status, content.expected(kind).0, "{answer:?}");
    }
    for request in registry.log() {
        let told = request.header("Authorization").unwrap_or_default();
        assert_ne!(told, basic("alice", "pw-alice"), "{request:?}");
    }
    // What the mirror itself may not read, a client may not either, and is not asked to log in for it.
    let answer = mirror
        .send(ask(Kind::Get, THERE, "alice", "pw-alice"))
        .await;
    assert_eq!(answer.status, 403, "{answer:?}");
}

#[tokio::test]
async fn a_log_in_is_answered_at_the_base() {
    let registry = Upstream::start().await;
    let mirror = Mode::Authenticated.setup(&registry, "").start().await;
    assert_eq!(mirror.get("/v2/").await.status, 401);
    let right = Request::get("/v2/").header("Authorization", basic("alice", "pw-alice"));
    mirror.send(right).await.expect(200);
    let wrong = Request::get("/v2/").header("Authorization", basic("alice", "pw-bob"));
    assert_eq!(mirror.send(wrong).await.status, 401);
}

#[tokio::test]
async fn what_known_clients_brought_in_is_not_everybodys() {
    // The registry itself wants nothing: its network is the wall, and the mirror stands in it.
    let (inner, outer) = (Upstream::start().await, Upstream::start().await);
    let content = Content::put(&inner);
    let members = Members::default();
    members.stand(&outer);
    let setup = Mode::Authenticated.setup(&inner, "");
    let mirror = setup.upstream("outer.example", &outer).start().await;
    let request = content.request(Kind::Get, HERE);
    let request = Mode::Authenticated.authorize(request, "alice");
    mirror.send(request).await.expect(200);
    mirror.wait_until_stored(&content.digest()).await;
    let target = format!("/v2/any/app/blobs/{}?ns=outer.example", content.digest());
    let answer = mirror.get(&target).await;
    assert_ne!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_mode_without_clients_is_a_mistake() {
    let registry = Upstream::start().await;
    let setup = Setup::new().upstream_with(REGISTRY, &registry, "access: authenticated");
    let problems = setup.check().expect_err("nobody could read anything");
    assert!(problems.contains("`authentication`"), "{problems}");
    let setup = Setup::new().upstream_with(REGISTRY, &registry, "access: everybody");
    let problems = setup.check().expect_err("there is no such mode");
    assert!(problems.contains("auto, shared, verify"), "{problems}");
    for (text, expected) in [("", "names nobody"), ("alice:secret", "bcrypt")] {
        let setup = Setup::new();
        let file = setup.file("htpasswd", text);
        let rules = r#"[{ users: ["*"], repositories: ["**"] }]"#;
        let file = file.display();
        let line = format!("authentication: {{ htpasswd: '{file}', rules: {rules} }}");
        let problems = setup.line(&line).check().expect_err("it is of no use");
        assert!(problems.contains(expected), "{problems}");
        assert!(!problems.contains("secret"), "{problems}");
    }
    let problems = Setup::new().line("authentication: { rules: [{}] }").check();
    let problems = problems.expect_err("everything is missing");
    for expected in ["has no htpasswd", "has no users", "has no repositories"] {
        assert!(problems.contains(expected), "{problems}");
    }
}
