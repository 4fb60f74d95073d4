//! Upstreams that cannot be reached, do not answer, or answer something else: whoever waits is answered in time, what
//! is stored is served meanwhile, and once the trouble is over a pull is exact. The rows are those of the fault matrix.

use bytes::Bytes;
use futures_util::future::join_all;

use crate::harness::client::{Ending, Request};
use crate::harness::clock;
use crate::harness::content::{KIB, MIB, bytes, sha256};
use crate::harness::gate::Gate;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Answer, BlackHole, Body, Declared, End, Seen, Upstream};
use crate::harness::world::World;

/// How many clients wait for the same.
const CLIENTS: usize = 4;

fn target(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

/// No fill holds anything any more.
async fn is_idle(mirror: &Mirror) {
    let idle = "\nentrepot_inflight_fills 0\n";
    while !mirror.metrics().await.contains(idle) {
        tokio::task::yield_now().await;
    }
    let metrics = mirror.metrics().await;
    assert!(metrics.contains("\nentrepot_fill_waiters 0\n"), "{metrics}");
}

// === F1: no way there ===

/// A mirror of a registry that works and has a stored blob, and of one at `url`.
async fn beside_a_stored_blob(url: &str) -> (Upstream, Mirror, String) {
    let fine = Upstream::start().await;
    let digest = fine.put_blob("team/app", bytes(1, 100 * KIB));
    let setup = Setup::new().upstream("fine.example", &fine);
    let mirror = setup
        .endpoints("gone.example", &[url.to_owned()], "")
        .start()
        .await;
    let stored = format!("{}?ns=fine.example", target(&digest));
    mirror.get(&stored).await.expect(200);
    mirror.wait_until_stored(&digest).await;
    (fine, mirror, stored)
}

#[tokio::test]
async fn f1_a_host_that_refuses_or_has_no_address_is_a_502_at_once_and_hits_are_served() {
    let closed = Upstream::start().await;
    closed.stop().await;
    for url in [closed.url(""), "http://registry.invalid".to_owned()] {
        let (_fine, mirror, stored) = beside_a_stored_blob(&url).await;
        let missing = format!("{}?ns=gone.example", target(&sha256(b"x")));
        let manifest = "/v2/team/app/manifests/v1?ns=gone.example".to_owned();
        for target in [&missing, &manifest] {
            let answers = join_all((0..CLIENTS).map(|_| mirror.get(target))).await;
            for answer in answers {
                answer.expect_error(502, "UNAVAILABLE");
            }
            mirror.get(&stored).await.expect(200);
        }
        is_idle(&mirror).await;
    }
}

#[tokio::test]
async fn f1_a_host_that_does_not_exist_is_a_504_after_the_connect_timeout_and_hits_are_served() {
    let hole = BlackHole::open().await;
    let (_fine, mirror, stored) = beside_a_stored_blob(&hole.url()).await;
    let missing = format!("{}?ns=gone.example", target(&sha256(b"x")));
    let waiting = join_all((0..CLIENTS).map(|_| mirror.get(&missing)));
    let meanwhile = async {
        while !mirror
            .metrics()
            .await
            .contains(&format!("\nentrepot_fill_waiters {CLIENTS}\n"))
        {
            tokio::task::yield_now().await;
        }
        mirror.get(&stored).await.expect(200);
        // It is the kernel that keeps silent, so nobody tells that the mirror has begun to connect.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        clock::pass(6).await;
    };
    for answer in tokio::join!(waiting, meanwhile).0 {
        answer.expect_error(504, "UNAVAILABLE");
    }
    is_idle(&mirror).await;
}

// === F3: no answer ===

#[tokio::test]
async fn f3_an_upstream_that_never_answers_is_a_504_for_all_who_wait_and_holds_nothing() {
    let world = World::new().await;
    let content = bytes(1, MIB);
    let digest = world.upstream.put_blob("team/app", content.clone());
    let target = target(&digest);
    let gate = Gate::closed();
    world
        .upstream
        .answer(&target, Answer::status(200).after(&gate));
    let waiting = join_all((0..CLIENTS).map(|_| world.mirror.get(&target)));
    let silence = async {
        gate.reached().await;
        clock::pass(16).await;
    };
    for answer in tokio::join!(waiting, silence).0 {
        answer.expect_error(504, "UNAVAILABLE");
    }
    is_idle(&world.mirror).await;
    world.upstream.behave();
    // The mirror leaves an upstream in trouble alone for a while.
    clock::pass(60).await;
    assert_eq!(world.mirror.get(&target).await.expect(200), content);
}

#[tokio::test]
async fn f3_a_head_that_drips_without_end_is_a_504() {
    let world = World::new().await;
    let target = target(&sha256(b"x"));
    let line = Body::new("X-Drip: drip\r\n").endlessly();
    let span = std::time::Duration::from_millis(50);
    let drip = Answer::raw("HTTP/1.1 200 OK\r\n").body(line.pace(1, span));
    world.upstream.answer(&target, drip);
    let waiting = join_all((0..CLIENTS).map(|_| world.mirror.get(&target)));
    let patience = async {
        world.upstream.wait_until(1, "GET", &target).await;
        clock::pass(16).await;
    };
    for answer in tokio::join!(waiting, patience).0 {
        answer.expect_error(504, "UNAVAILABLE");
    }
    is_idle(&world.mirror).await;
}

// === F4: no further byte ===

#[tokio::test]
async fn f4_a_body_that_stalls_again_and_again_is_short_for_all_and_exact_later() {
    let world = World::new().await;
    let content = bytes(1, 2 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(MIB, &gate);
    let digest = world.upstream.put_blob("team/app", body);
    let target = target(&digest);
    let mut pulls = Vec::new();
    for _ in 0..CLIENTS {
        let mut pull = Request::get(&target).open(world.mirror.address).await;
        assert_eq!(pull.read(MIB - 64 * KIB).await.len(), MIB - 64 * KIB);
        pulls.push(pull);
    }
    let stalls = async {
        loop {
            gate.reached().await;
            // Whoever has something to do does it first.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            clock::pass(31).await;
        }
    };
    let answers = join_all(pulls.into_iter().map(super::harness::client::Pull::finish));
    let answers = tokio::select! {
        answers = answers => answers,
        never = stalls => never,
    };
    for answer in answers {
        assert_eq!(answer.ending, Ending::Short);
    }
    let asked = world.upstream.requests("GET", &target).len();
    assert!((2..=5).contains(&asked), "{asked}");
    is_idle(&world.mirror).await;
    assert!(!world.mirror.has(&digest));
    gate.open();
    clock::pass(60).await;
    assert_eq!(world.mirror.get(&target).await.expect(200), content);
}

// === F10: lengths ===

#[tokio::test]
async fn f10_a_length_that_no_blob_has_is_refused_before_any_room_is_taken() {
    let world = World::new().await;
    for (n, declared) in [u64::MAX, 1 << 60, 60_000 << 20].into_iter().enumerate() {
        let content = bytes(n as u64, 100 * KIB);
        let body = Body::new(content).declare(Declared::Bytes(declared));
        let digest = world.upstream.put_blob("team/app", body);
        let answer = world.mirror.get(&target(&digest)).await;
        answer.expect_error(502, "UNAVAILABLE");
        assert!(!world.mirror.has(&digest));
    }
    is_idle(&world.mirror).await;
    assert_eq!(world.mirror.files(), Vec::new());
}

#[tokio::test]
async fn f10_a_connection_that_brought_too_much_is_not_used_again() {
    let world = World::new().await;
    let (content, other) = (bytes(1, 1000), bytes(2, 1000));
    let digest = sha256(&content);
    let smuggled = [
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            content.len()
        )
        .into_bytes(),
        content.to_vec(),
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
    ];
    let answer = Answer::raw(smuggled.concat()).and_stays();
    world.upstream.answer(&target(&digest), answer);
    let other_digest = world.upstream.put_blob("team/app", other.clone());
    let answer = world.mirror.get(&target(&digest)).await;
    assert_eq!(answer.expect(200), content);
    let answer = world.mirror.get(&target(&other_digest)).await;
    assert_eq!(answer.expect(200), other, "what was asked is answered");
}

// === F11: something else ===

#[tokio::test]
async fn f11_an_error_with_status_200_is_neither_a_manifest_nor_a_blob() {
    let texts = [
        (
            "application/json",
            r#"{"errors":[{"code":"DENIED","message":"no"}]}"#,
        ),
        ("application/json; charset=utf-8", "{}"),
        ("text/html", "<html><title>Sign in</title></html>"),
        ("text/plain", "upstream connect error"),
    ];
    for (media_type, text) in texts {
        let world = World::new().await;
        world.upstream.answer("/v2/*", Answer::ok(media_type, text));
        let digest = sha256(b"x");
        let manifests = ["v1", &*digest].map(|it| format!("/v2/team/app/manifests/{it}"));
        for target in manifests.iter().chain([&target(&digest)]) {
            let answer = world.mirror.get(target).await;
            assert_eq!(answer.status, 502, "{target}: {text}");
            assert_eq!(world.mirror.files(), Vec::new(), "{target}: {text}");
        }
    }
}

// === F19: who asks first fails ===

/// Sixteen clients want a blob whose upstream fails once, so: all of them get it, for one body.
async fn fails_once(what: &str, fail: impl Fn(&Upstream, &str, &Bytes)) {
    let world = World::new().await;
    let content = bytes(1, MIB);
    let digest = world.upstream.put_blob("team/app", content.clone());
    let target = target(&digest);
    fail(&world.upstream, &target, &content);
    let answers = join_all((0..16).map(|_| world.mirror.get(&target))).await;
    for answer in answers {
        assert_eq!(answer.expect(200), content, "{what}");
    }
    let sent = world.upstream.body_bytes("*");
    assert!(sent * 100 <= content.len() as u64 * 101, "{what}: {sent}");
    let asked = world.upstream.requests("GET", &target).len();
    assert!(asked <= 3, "{what}: {asked} requests");
}

/// The first request for a path is answered so.
fn first(upstream: &Upstream, target: &str, answer: Answer) {
    let (target, left) = (target.to_owned(), std::sync::atomic::AtomicBool::new(true));
    upstream.rule(move |request: &Seen| {
        let hit =
            request.path() == target && left.swap(false, std::sync::atomic::Ordering::Relaxed);
        hit.then(|| answer.clone())
    });
}

#[tokio::test]
async fn f19_a_source_that_fails_once_fails_nobody_who_waits() {
    for status in [500, 503] {
        let name = status.to_string();
        fails_once(&name, |upstream, target, _| {
            first(upstream, target, Answer::status(status));
        })
        .await;
    }
    fails_once("dropped", |upstream, target, _| {
        first(upstream, target, Answer::raw(""));
    })
    .await;
    fails_once("half a head", |upstream, target, _| {
        first(upstream, target, Answer::raw("HTTP/1.1 200 OK\r\nContent-"));
    })
    .await;
    for end in [End::Fin, End::Rst] {
        fails_once("cut", |upstream, _, content| {
            let body = Body::new(content.clone());
            upstream.put_blob("team/app", body.cut_at(1, end, 1));
        })
        .await;
    }
}
