//! Callers with rights of their own: how they are asked for them, and what becomes of their tokens.

use super::members::{Content, HERE, Kind, Members, Mode, OPEN, THERE};
use crate::harness::client::Request;
use crate::harness::content::sha256;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Answer, Upstream, basic};
use crate::harness::world::REGISTRY;

/// A registry where `alice` may read `team/app`, and a mirror before it.
async fn with_alice(mode: Mode, more: &str) -> (Upstream, Members, Content, Mirror) {
    let registry = Upstream::start().await;
    let members = Members::default();
    members.admit("alice", HERE);
    members.admit("robot", HERE);
    members.stand(&registry);
    let content = Content::put(&registry);
    let mirror = mode.setup(&registry, more).start().await;
    (registry, members, content, mirror)
}

#[tokio::test]
async fn a_caller_without_a_right_is_shown_the_challenge_of_the_registry() {
    for mode in [Mode::Auto, Mode::Verify] {
        let (registry, _members, content, mirror) = with_alice(mode, "").await;
        for kind in Kind::ALL {
            let answer = mirror.send(content.request(kind, HERE)).await;
            assert_eq!(answer.status, 401, "{mode:?} {kind:?}: {answer:?}");
            let expected = format!(
                r#"Bearer realm="{}",service="x",scope="repository:{HERE}:pull""#,
                registry.url("/token")
            );
            let challenge = answer.header("WWW-Authenticate");
            assert_eq!(challenge, Some(&*expected), "{mode:?} {kind:?}");
        }
    }
}

#[tokio::test]
async fn one_callers_right_is_not_anothers() {
    for mode in [Mode::Auto, Mode::Verify] {
        let (registry, _members, content, mirror) = with_alice(mode, "").await;
        for kind in Kind::ALL {
            let request = content.request(kind, HERE);
            let (status, body) = content.expected(kind);
            let answer = mirror.send(mode.authorize(request, "alice")).await;
            assert!(
                body.is_none_or(|body| answer.expect(status) == body),
                "{kind:?}"
            );
        }
        mirror.wait_until_stored(&content.digest()).await;
        registry.forget();
        for kind in Kind::ALL {
            for request in [
                mode.authorize(content.request(kind, HERE), "bob"),
                content.request(kind, HERE),
                content
                    .request(kind, HERE)
                    .header("Authorization", basic("alice", "pw-alice")),
            ] {
                let answer = mirror.send(request).await;
                assert_eq!(answer.status, 401, "{mode:?} {kind:?}: {answer:?}");
            }
        }
        let asked = registry.log().len();
        assert!(
            asked >= 3 * Kind::ALL.len(),
            "each was asked about: {asked}"
        );
    }
}

#[tokio::test]
async fn a_right_is_believed_for_its_time_and_asked_for_once() {
    let (registry, members, content, mirror) = with_alice(Mode::Auto, "authz_ttl: 5m").await;
    let ask = |kind| Mode::Auto.authorize(content.request(kind, HERE), "alice");
    for kind in Kind::ALL {
        mirror.send(ask(kind)).await;
    }
    mirror.wait_until_stored(&content.digest()).await;
    registry.forget();
    members.dismiss_all();
    mirror.clock.advance(4 * 60);
    // Lists hold for a minute alone.
    let held = Kind::ALL.into_iter();
    for kind in held.filter(|kind| !matches!(kind, Kind::Tags | Kind::Referrers)) {
        let answer = mirror.send(ask(kind)).await;
        assert_eq!(answer.status, content.expected(kind).0, "{kind:?}");
    }
    assert_eq!(registry.log().len(), 0);
    // A refusal is not remembered.
    mirror.clock.advance(2 * 60);
    for n in 1..=2 {
        assert_eq!(mirror.send(ask(Kind::Get)).await.status, 401);
        assert_eq!(registry.requests("HEAD", "*").len(), n);
    }
    members.admit("alice", HERE);
    mirror.send(ask(Kind::Get)).await.expect(200);
    let sent = registry.body_bytes("/v2/team/app/blobs/*");
    assert!(sent < 1000, "refusals alone: {sent}");
}

#[tokio::test]
async fn a_token_that_says_when_it_ends_is_not_believed_longer() {
    use base64::Engine as _;
    let registry = Upstream::start().await;
    let content = Content::put(&registry);
    let now = entrepot::clock::Clock::system().now();
    let since = now
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let claims = serde_json::json!({ "exp": since.as_secs() + 60 }).to_string();
    let claims = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(claims);
    let token = format!("Bearer e30.{claims}.sig");
    let expected = token.clone();
    let realm = registry.url("/token");
    registry.rule(move |request| {
        let may = request.header("Authorization") == Some(&expected);
        let challenge = format!(r#"Bearer realm="{realm}""#);
        (!may && request.path().starts_with("/v2/"))
            .then(|| Answer::status(401).header("WWW-Authenticate", &challenge))
    });
    registry.answer("/token", Answer::error(403, "DENIED"));
    let mirror = Setup::new().upstream(REGISTRY, &registry).start().await;
    let ask = || {
        content
            .request(Kind::Get, HERE)
            .header("Authorization", &token)
    };
    mirror.send(ask()).await.expect(200);
    mirror.wait_until_stored(&content.digest()).await;
    registry.forget();
    mirror.send(ask()).await.expect(200);
    assert_eq!(registry.log().len(), 0);
    mirror.clock.advance(61);
    mirror.send(ask()).await.expect(200);
    assert_eq!(registry.requests("HEAD", "*").len(), 1);
}

#[tokio::test]
async fn with_upstream_gone_a_caller_is_served_within_the_grace_and_not_after() {
    for mode in [Mode::Auto, Mode::Verify] {
        let (registry, _members, content, mirror) = with_alice(mode, "authz_grace: 1h").await;
        let ask = |kind, user| mode.authorize(content.request(kind, HERE), user);
        for kind in Kind::ALL {
            mirror.send(content.request(kind, HERE)).await;
            mirror.send(ask(kind, "alice")).await;
        }
        mirror.wait_until_stored(&content.digest()).await;
        registry.stop().await;
        mirror.clock.advance(50 * 60);
        for kind in Kind::ALL {
            let answer = mirror.send(ask(kind, "alice")).await;
            assert_eq!(
                answer.status,
                content.expected(kind).0,
                "{kind:?} {answer:?}"
            );
            assert_eq!(mirror.send(ask(kind, "bob")).await.status, 502, "{kind:?}");
            // Who shows nothing is told what to show, from memory.
            let asked = mirror.send(content.request(kind, HERE)).await;
            assert_eq!(asked.status, 401, "{kind:?}");
        }
        mirror.clock.advance(20 * 60);
        for kind in Kind::ALL {
            let answer = mirror.send(ask(kind, "alice")).await;
            assert_eq!(answer.status, 502, "{mode:?} {kind:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn two_callers_of_one_fill_bring_their_own_rights() {
    use crate::harness::gate::Gate;
    use crate::harness::upstream::Body;
    let (registry, _members, _content, mirror) = with_alice(Mode::Auto, "").await;
    let gate = Gate::closed();
    let large = crate::harness::content::bytes(9, 400_000);
    let body = Body::new(large.clone()).stall_at(200_000, &gate);
    let digest = registry.put_blob(HERE, body);
    let target = format!("/v2/{HERE}/blobs/{digest}");
    let ask = |user: &str| Mode::Auto.authorize(Request::get(&target), user);
    let leader = ask("alice").open(mirror.address).await;
    assert_eq!(leader.status, 200);
    // The fill is under way, and half of it is here.
    assert_eq!(mirror.send(ask("bob")).await.status, 401);
    assert_eq!(mirror.send(Request::get(&target)).await.status, 401);
    assert_eq!(mirror.send(Request::head(&target)).await.status, 401);
    gate.open();
    assert_eq!(leader.finish().await.expect(200), large);
}

#[tokio::test]
async fn a_token_goes_to_its_own_registry_and_nowhere_else() {
    let registry = Upstream::start().await;
    let store = Upstream::start_on("127.0.0.2").await;
    let members = Members::default();
    members.admit("alice", HERE);
    let content = Content::put(&registry);
    let digest = content.digest();
    store.put_file(&format!("/files/{digest}"), content.layer.clone());
    registry.redirect_blobs(307, &store.url("/files"), "");
    members.stand(&registry);
    let mirror = Mode::Auto.setup(&registry, "").start().await;
    let ask = |kind| Mode::Auto.authorize(content.request(kind, HERE), "alice");
    mirror.send(ask(Kind::Get)).await.expect(200);
    mirror.send(ask(Kind::Head)).await.expect(200);
    assert!(!store.log().is_empty());
    for request in store.log() {
        assert_eq!(request.header("Authorization"), None, "{request:?}");
    }
    let shown = registry.log();
    let shown = shown
        .iter()
        .filter(|request| request.header("Authorization").is_some());
    for request in shown {
        let told = request.header("Authorization");
        assert_eq!(told, Some("Bearer canary-alice"), "{request:?}");
        assert_ne!(request.path(), "/token", "it is no credential: {request:?}");
    }
}

#[tokio::test]
async fn a_token_that_nobody_asked_for_is_not_shown() {
    let (registry, _members, content, mirror) = with_alice(Mode::Auto, "").await;
    for kind in Kind::ALL {
        let request = Mode::Auto.authorize(content.request(kind, OPEN), "alice");
        let answer = mirror.send(request).await;
        assert_eq!(answer.status, content.expected(kind).0);
    }
    for request in registry.log() {
        assert_eq!(request.header("Authorization"), None, "{request:?}");
    }
    // And so it is everybody's.
    mirror.wait_until_stored(&content.digest()).await;
    registry.stop().await;
    for kind in Kind::ALL {
        let answer = mirror.send(content.request(kind, OPEN)).await;
        assert_eq!(answer.status, content.expected(kind).0);
    }
}

#[tokio::test]
async fn where_the_mirror_reads_for_all_nobody_is_asked_for_a_token() {
    let (registry, members, content, mirror) = with_alice(Mode::Shared, "").await;
    mirror
        .send(content.request(Kind::Get, HERE))
        .await
        .expect(200);
    // Not even where the mirror itself is refused.
    members.dismiss_all();
    for kind in Kind::ALL {
        let request = Mode::Auto.authorize(content.request(kind, THERE), "alice");
        let answer = mirror.send(request).await;
        assert_eq!(answer.status, 403, "{kind:?}: {answer:?}");
    }
    for request in registry.log() {
        let told = request.header("Authorization");
        assert_ne!(told, Some("Bearer canary-alice"), "{request:?}");
    }
}

#[tokio::test]
async fn a_password_is_never_asked_for_on_behalf_of_a_registry() {
    let registry = Upstream::start().await;
    let content = Content::put(&registry);
    registry.want_basic("Basic realm=\"x\"", "alice", "pw-alice");
    for mode in [Mode::Auto, Mode::Verify] {
        let mirror = mode.setup(&registry, "").start().await;
        for kind in Kind::ALL {
            let request = content.request(kind, HERE);
            let request = request.header("Authorization", basic("alice", "pw-alice"));
            let answer = mirror.send(request).await;
            // Not 401, which would send the password here.
            assert_eq!(answer.status, 403, "{mode:?} {kind:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_challenge_that_leads_elsewhere_is_not_passed_on() {
    let registry = Upstream::start().await;
    let content = Content::put(&registry);
    let challenge = r#"Bearer realm="http://evil.example/token",service="x""#;
    let refusal = Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", challenge);
    registry.answer("/v2/*", refusal);
    for mode in [Mode::Auto, Mode::Verify] {
        let mirror = mode.setup(&registry, "").start().await;
        let answer = mirror.send(content.request(Kind::Get, HERE)).await;
        assert_eq!(answer.status, 403, "{mode:?}: {answer:?}");
        let request = mode.authorize(content.request(Kind::Get, HERE), "alice");
        assert_eq!(mirror.send(request).await.status, 403, "{mode:?}");
    }
}

#[tokio::test]
async fn what_is_absent_and_what_is_not_allowed_look_the_same() {
    let (registry, _members, content, mirror) = with_alice(Mode::Auto, "").await;
    let request = Mode::Auto.authorize(content.request(Kind::Get, HERE), "alice");
    mirror.send(request).await.expect(200);
    mirror.wait_until_stored(&content.digest()).await;
    for user in [None, Some("bob")] {
        let ask = async |digest: &str| {
            registry.forget();
            let request = Request::get(&format!("/v2/{HERE}/blobs/{digest}"));
            let request = match user {
                Some(user) => Mode::Auto.authorize(request, user),
                None => request,
            };
            let answer = mirror.send(request).await;
            let challenge = answer.header("WWW-Authenticate").map(str::to_owned);
            let asked = registry
                .log()
                .iter()
                .filter(|seen| seen.path() != "/token")
                .count();
            (answer.status, answer.body, challenge, asked > 0)
        };
        let cached = ask(&content.digest()).await;
        let absent = ask(&sha256(b"nothing")).await;
        assert_eq!(cached, absent);
    }
}
