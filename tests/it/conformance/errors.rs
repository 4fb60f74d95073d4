//! A0 and A10: what becomes of trouble upstream, and what every error looks like.

use crate::harness::clock;
use crate::harness::content::{bytes, sha256};
use crate::harness::gate::Gate;
use crate::harness::mirror::Setup;
use crate::harness::upstream::Answer;
use crate::harness::world::{REGISTRY, World};

const MANIFEST: &str = "/v2/team/app/manifests/v1";

/// A manifest by tag, one by digest, and a blob.
fn targets() -> [String; 3] {
    let digest = sha256(b"of something");
    [
        MANIFEST.to_owned(),
        format!("/v2/team/app/manifests/{digest}"),
        format!("/v2/team/app/blobs/{digest}"),
    ]
}

#[tokio::test]
async fn a0_what_upstream_answers_decides_what_the_client_gets() {
    for (upstream, status, code) in [
        (401, 403, "DENIED"),
        (403, 403, "DENIED"),
        (429, 429, "TOOMANYREQUESTS"),
        (400, 502, "UNAVAILABLE"),
        (405, 502, "UNAVAILABLE"),
        (500, 502, "UNAVAILABLE"),
        (502, 502, "UNAVAILABLE"),
        (503, 502, "UNAVAILABLE"),
        (504, 502, "UNAVAILABLE"),
        (204, 502, "UNAVAILABLE"),
        (300, 502, "UNAVAILABLE"),
        (304, 502, "UNAVAILABLE"),
    ] {
        let world = World::new().await;
        world
            .upstream
            .answer("/v2/*", Answer::error(upstream, "SAID_UPSTREAM"));
        for target in targets() {
            let (found, found_code) = world.mirror.get(&target).await.outcome();
            assert_eq!(
                (found, &*found_code),
                (status, code),
                "{upstream} on {target}"
            );
            // A10.2
            assert_eq!(
                world.mirror.head(&target).await.status,
                status,
                "{upstream} on {target}"
            );
        }
    }
}

#[tokio::test]
async fn a0_404_is_404_whatever_stands_in_it() {
    for body in ["", "Not found", "<html>", "{\"errors\":[]}"] {
        let world = World::new().await;
        let answer = Answer::status(404)
            .header("Content-Type", "text/html")
            .body(body);
        world.upstream.answer("/v2/*", answer);
        for (target, code) in
            targets()
                .iter()
                .zip(["MANIFEST_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"])
        {
            world.mirror.get(target).await.expect_error(404, code);
        }
    }
}

#[tokio::test]
async fn a0_an_upstream_that_refuses_connections_is_unavailable() {
    let world = World::new().await;
    world.upstream.stop().await;
    for target in targets() {
        world
            .mirror
            .get(&target)
            .await
            .expect_error(502, "UNAVAILABLE");
        assert_eq!(world.mirror.head(&target).await.status, 502);
    }
}

#[tokio::test]
async fn a0_an_upstream_that_says_nothing_has_timed_out() {
    let world = World::new().await;
    let gate = Gate::closed();
    world
        .upstream
        .answer("/v2/*", Answer::status(200).after(&gate));
    for (n, target) in targets().iter().enumerate() {
        let answer = world.mirror.get(target);
        let silence = async {
            gate.reached_by(n + 1).await;
            // Under the 30 s after which containerd gives up.
            clock::pass(25).await;
        };
        let (answer, ()) = tokio::join!(answer, silence);
        answer.expect_error(504, "UNAVAILABLE");
        // It is left alone for a while then.
        clock::pass(5).await;
    }
}

#[tokio::test]
async fn a0_trouble_is_never_a_404() {
    for status in [
        400, 401, 402, 403, 405, 406, 408, 409, 410, 418, 429, 500, 501, 502, 503, 599,
    ] {
        let world = World::new().await;
        world.upstream.answer("/v2/*", Answer::status(status));
        for target in targets() {
            let answer = world.mirror.get(&target).await;
            assert!(
                status == 410 || answer.status != 404,
                "{status}: {answer:?}"
            );
            assert!(answer.status >= 400, "{status}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a10_4_the_wait_that_upstream_asks_for_is_passed_on() {
    let world = World::new().await;
    let answer = Answer::error(429, "TOOMANYREQUESTS").header("Retry-After", "17");
    world.upstream.answer("/v2/*", answer);
    for target in targets() {
        let answer = world.mirror.get(&target).await;
        let seconds: u32 = answer
            .header("Retry-After")
            .and_then(|value| value.parse().ok())
            .expect("a number of seconds");
        // A moment longer, by chance, lest everybody comes back at the same instant.
        assert!((1..=18).contains(&seconds), "{answer:?}");
        answer.expect_error(429, "TOOMANYREQUESTS");
    }
}

#[tokio::test]
async fn a10_5_nothing_of_upstream_is_copied_by_accident() {
    let world = World::new().await;
    let content = bytes(1, 100);
    let digest = sha256(&content);
    let target = format!("/v2/team/app/blobs/{digest}");
    // That it passes on none of `Set-Cookie` and `X-Of-Upstream`, which come with every answer, is checked always.
    let answer = Answer::ok("text/html", content)
        .header("Connection", "X-Listed")
        .header("X-Listed", "yes")
        .header("Keep-Alive", "timeout=1")
        .header("Warning", "199 - \"x\"")
        .header("Content-Disposition", "attachment")
        .header("Cache-Control", "max-age=31536000")
        .header("Age", "99")
        .header("Link", "</v2/x>; rel=next")
        .header("Access-Control-Allow-Origin", "*");
    world.upstream.answer(&target, answer);
    for _ in 0..2 {
        let answer = world.mirror.get(&target).await;
        for header in [
            "X-Listed",
            "Keep-Alive",
            "Warning",
            "Content-Disposition",
            "Link",
            "Access-Control-Allow-Origin",
        ] {
            assert_eq!(answer.header(header), None);
        }
        assert_ne!(answer.header("Age"), Some("99"));
        assert_eq!(
            answer.header("Content-Type"),
            Some("application/octet-stream")
        );
        answer.expect(200);
    }
}

#[tokio::test]
async fn a10_6_an_error_tells_no_secrets() {
    let upstream = crate::harness::upstream::Upstream::start().await;
    let setup = Setup::new().upstream(REGISTRY, &upstream);
    let credentials = format!("{REGISTRY}: {{ username: robot, password: canary-password }}\n");
    let mirror = setup.credentials(&credentials).start().await;
    let location = upstream.url("/elsewhere?X-Amz-Signature=signed-secret");
    let answers = [
        Answer::redirect(307, &location),
        Answer::redirect(
            307,
            "http://user:in-the-url@127.0.0.2:9/x?token=signed-secret",
        ),
        Answer::status(500).body("said upstream: in confidence"),
        Answer::status(401).header("WWW-Authenticate", "Basic realm=\"signed-secret\""),
    ];
    let port = upstream.host();
    for answer in answers {
        upstream.behave();
        upstream.answer("/v2/*", answer);
        for target in targets() {
            let answer = mirror.get(&target).await;
            assert!(answer.status >= 400, "{answer:?}");
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            for secret in [
                "in confidence",
                "canary-password",
                "robot",
                "signed-secret",
                "in-the-url",
                "127.0.0.2",
                &port,
            ] {
                assert!(!body.contains(secret), "{secret} in {body}");
            }
        }
    }
}

#[tokio::test]
async fn an_error_says_what_to_do_next() {
    let world = World::new().await;
    let target = "/v2/team/app/manifests/v1?ns=other.example";
    let unknown = world.mirror.get(target).await;
    let message = unknown.expect_error(404, "NAME_UNKNOWN");
    assert!(message.contains("`upstreams`"), "{message}");
}
