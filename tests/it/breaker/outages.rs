//! An upstream that refuses, fails, limits or says nothing.

use super::pace::Pace;
use super::{AFTER_TTL, TAG, is_left_alone, metric};
use crate::harness::client::Answer as Answered;
use crate::harness::clock;
use crate::harness::content::{Image, bytes, sha256};
use crate::harness::gate::Gate;
use crate::harness::log::Log;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Guard, Seen, Upstream};
use crate::harness::world::{REGISTRY, World};

/// How an upstream is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Refuses,
    Fails(u16),
    Limits,
    IsSilent,
}

impl Trouble {
    const ALL: [Self; 5] = [
        Self::Refuses,
        Self::Fails(500),
        Self::Fails(503),
        Self::Limits,
        Self::IsSilent,
    ];

    async fn begin(self, upstream: &Upstream, gate: &Gate) {
        match self {
            Self::Refuses => upstream.stop().await,
            Self::Fails(status) => upstream.answer("/v2/*", Answer::status(status)),
            Self::Limits => upstream.answer("/v2/*", Answer::error(429, "TOOMANYREQUESTS")),
            Self::IsSilent => upstream.answer("/v2/*", Answer::status(200).after(gate)),
        }
    }

    async fn end(self, upstream: &Upstream) {
        upstream.behave();
        if self == Self::Refuses {
            upstream.resume().await;
        }
    }
}

/// What a client asks for that pulls the image, its tag first.
fn targets(image: &Image) -> Vec<String> {
    let digest = image.manifest.digest();
    let mut targets = vec![TAG.to_owned(), format!("/v2/team/app/manifests/{digest}")];
    let blobs = image.blobs.iter().map(|blob| sha256(blob));
    targets.extend(blobs.map(|digest| format!("/v2/team/app/blobs/{digest}")));
    targets
}

/// Asks until the upstream is left alone, and so long for it that a test is over before it is tried again.
async fn wear_out(world: &World) {
    for _ in 0..12 {
        ask(world).await;
        // Whoever is waited for has timed out, and whoever is left alone is tried again.
        clock::pass(20).await;
        clock::pass(20).await;
    }
    ask(world).await;
    clock::pass(16).await;
    assert!(is_left_alone(world).await);
}

/// Asks for the tag; once the upstream is asked about that, patience with it is over.
async fn ask(world: &World) {
    let asked = world.upstream.log().len();
    let is_asked = async {
        while world.upstream.log().len() == asked {
            tokio::task::yield_now().await;
        }
    };
    let mut answer = std::pin::pin!(world.mirror.get(TAG));
    tokio::select! {
        _ = &mut answer => return,
        () = is_asked => {}
    }
    clock::pass(1).await;
    answer.await;
}

#[tokio::test]
async fn what_was_pulled_still_pulls_and_at_once_when_upstream_is_left_alone() {
    for trouble in Trouble::ALL {
        let (world, mut pace) = Pace::world().await;
        let image = Image::new(1);
        world.upstream.put_image("team/app", "v1", &image);
        let targets = targets(&image);
        let pulled = |answer: Answered| drop(answer.expect(200));
        pace.of(&world, &targets, pulled).await;
        for blob in &image.blobs {
            world.mirror.wait_until_stored(&sha256(blob)).await;
        }
        let gate = Gate::closed();
        trouble.begin(&world.upstream, &gate).await;
        world.mirror.clock.advance(AFTER_TTL);
        pace.forget();
        pace.of(&world, &targets, pulled).await;
        pace.assert_soon(trouble);

        wear_out(&world).await;
        world.upstream.forget();
        let connections = world.upstream.connections();
        pace.forget();
        for _ in 0..11 {
            pace.of(&world, &targets, pulled).await;
        }
        pace.assert_at_once(trouble);
        assert!(world.upstream.log().is_empty(), "{trouble:?}");
        assert_eq!(world.upstream.connections(), connections, "{trouble:?}");

        let stale = world.mirror.get(TAG).await;
        assert!(stale.header("Warning").is_some(), "{trouble:?}");
        trouble.end(&world.upstream).await;
        clock::pass(70).await;
        let answer = world.mirror.get(TAG).await;
        assert_eq!(answer.header("Warning"), None, "{trouble:?}");
        assert!(!is_left_alone(&world).await, "{trouble:?}");
    }
}

#[tokio::test]
async fn what_was_never_pulled_is_refused_at_once_with_the_error_that_led_to_it() {
    for (trouble, status, code) in [
        (Trouble::Refuses, 502, "UNAVAILABLE"),
        (Trouble::Fails(500), 502, "UNAVAILABLE"),
        (Trouble::Limits, 429, "TOOMANYREQUESTS"),
        (Trouble::IsSilent, 504, "UNAVAILABLE"),
    ] {
        let (world, mut pace) = Pace::world().await;
        world.upstream.put_image("team/app", "v1", &Image::new(1));
        world.mirror.get(TAG).await.expect(200);
        world.mirror.clock.advance(AFTER_TTL);
        let gate = Gate::closed();
        trouble.begin(&world.upstream, &gate).await;
        wear_out(&world).await;
        world.upstream.forget();
        let digest = sha256(b"of something");
        for target in [
            "/v2/team/app/manifests/v2".to_owned(),
            format!("/v2/team/app/manifests/{digest}"),
            format!("/v2/team/app/blobs/{digest}"),
        ] {
            pace.forget();
            for _ in 0..5 {
                let refused = |answer: Answered| drop(answer.expect_error(status, code));
                pace.of(&world, std::slice::from_ref(&target), refused)
                    .await;
            }
            pace.assert_at_once((trouble, &target));
            assert_eq!(world.mirror.head(&target).await.status, status);
        }
        assert!(world.upstream.log().is_empty(), "{trouble:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_left_alone_is_no_matter_of_another() {
    let world = {
        let other = Upstream::start().await;
        other.put_image("team/app", "v1", &Image::new(2));
        let world = World::with(|setup| setup.upstream("other.example", &other)).await;
        (world, other)
    };
    let (world, other) = world;
    world.upstream.answer("/v2/*", Answer::error(429, "X"));
    world
        .mirror
        .get(TAG)
        .await
        .expect_error(429, "TOOMANYREQUESTS");
    assert!(is_left_alone(&world).await);
    let target = format!("{TAG}?ns=other.example");
    world.mirror.get(&target).await.expect(200);
    assert_eq!(other.log().len(), 1);
    let open = metric(&world, "upstream_breakers_open", "other.example").await;
    assert_eq!(open, None);
}

#[tokio::test]
async fn that_an_upstream_is_left_alone_and_that_it_is_back_is_written_down_once_each() {
    let (log, _guard) = Log::start();
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    let limited = Answer::error(429, "X").header("Retry-After", "30");
    world.upstream.answer("/v2/*", limited);
    for _ in 0..3 {
        for _ in 0..3 {
            world
                .mirror
                .get(TAG)
                .await
                .expect_error(429, "TOOMANYREQUESTS");
        }
        clock::pass(32).await;
    }
    world.upstream.behave();
    for _ in 0..3 {
        world.mirror.get(TAG).await.expect(200);
    }
    let text = log.text();
    let lines = |words: &str| -> Vec<_> {
        let found = text.lines().filter(|line| line.contains(words));
        found.map(ToOwned::to_owned).collect()
    };
    let (opened, closed) = (
        lines("leaving the registry alone"),
        lines("the registry answers again"),
    );
    assert_eq!(
        (opened.len(), closed.len()),
        (1, 1),
        "{opened:?} {closed:?}"
    );
    assert!(opened[0].contains(" WARN ") && closed[0].contains(" INFO "));
    for word in [REGISTRY, "it limits the rate", "pause=30."] {
        assert!(opened[0].contains(word), "{word}: {opened:?}");
    }
    let refusals = metric(&world, "upstream_refusals_total", REGISTRY).await;
    assert_eq!(refusals, Some(6));
    assert_eq!(
        metric(&world, "upstream_breakers_open", REGISTRY).await,
        Some(0)
    );
}

#[tokio::test]
async fn a_no_is_an_answer() {
    for status in [400, 401, 403, 404, 405, 410, 501] {
        let world = World::new().await;
        world.upstream.put_image("team/app", "v1", &Image::new(1));
        world.upstream.rule(move |request: &Seen| {
            let (name, _, _) = request.parts()?;
            (name == "team/other").then(|| Answer::status(status))
        });
        for n in 0..12 {
            let target = format!("/v2/team/other/manifests/v{n}");
            assert!(world.mirror.get(&target).await.status >= 400);
        }
        world.mirror.get(TAG).await.expect(200);
    }
}

#[tokio::test]
async fn one_failure_in_ten_leaves_nobody_alone() {
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    let digest = Image::new(1).manifest.digest();
    world.upstream.rule(|request: &Seen| {
        let (_, _, reference) = request.parts()?;
        reference.starts_with("bad").then(|| Answer::status(500))
    });
    for n in 0..30 {
        let bad = format!("/v2/team/app/manifests/bad{n}");
        world
            .mirror
            .get(&bad)
            .await
            .expect_error(502, "UNAVAILABLE");
        if n % 4 == 3 {
            world.mirror.clock.advance(AFTER_TTL);
            let answer = world.mirror.get(TAG).await;
            assert_eq!(answer.header("Docker-Content-Digest"), Some(&*digest));
            assert_eq!(answer.header("Warning"), None);
        }
    }
}

#[tokio::test]
async fn a_host_that_blobs_are_redirected_to_is_not_the_registry() {
    for status in [429, 500, 503] {
        let store = Upstream::start_on("127.0.0.2").await;
        store.answer("/*", Answer::status(status).header("Retry-After", "60"));
        let world = World::new().await;
        world.upstream.put_image("team/app", "v1", &Image::new(1));
        let base = store.url("/files");
        world.upstream.redirect_blobs(307, &base, "?sig=1");
        for n in 0..8 {
            let digest = sha256(&bytes(n, 100));
            let target = format!("/v2/team/app/blobs/{digest}");
            assert!(world.mirror.get(&target).await.status >= 429);
        }
        store.stop().await;
        for n in 0..8 {
            let digest = sha256(&bytes(n, 100));
            let target = format!("/v2/team/app/blobs/{digest}");
            assert!(world.mirror.get(&target).await.status >= 429);
        }
        assert!(!is_left_alone(&world).await);
        world.mirror.get(TAG).await.expect(200);
    }
}

#[tokio::test]
async fn a_host_that_manifests_are_redirected_to_speaks_for_the_registry() {
    let behind = Upstream::start_on("127.0.0.2").await;
    behind.answer("/*", Answer::error(429, "X").header("Retry-After", "60"));
    let world = World::new().await;
    let base = behind.url("");
    world.upstream.rule(move |request: &Seen| {
        let location = format!("{base}{}", request.target);
        Some(Answer::redirect(307, &location))
    });
    for n in 0..5 {
        let target = format!("/v2/team/app/manifests/v{n}");
        world
            .mirror
            .get(&target)
            .await
            .expect_error(429, "TOOMANYREQUESTS");
    }
    assert_eq!((world.upstream.log().len(), behind.log().len()), (1, 1));
}

#[tokio::test]
async fn a_token_service_that_limits_the_rate_is_left_alone_and_the_registry_too() {
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    let realm = world.upstream.url("/token");
    let guard = Guard::bearer(&realm, REGISTRY)
        .issuing(|_, _| Answer::status(429).header("Retry-After", "30"));
    guard.stand(&world.upstream, &world.upstream, "/token");
    for n in 0..5 {
        let target = format!("/v2/team/app/manifests/v{n}");
        world
            .mirror
            .get(&target)
            .await
            .expect_error(429, "TOOMANYREQUESTS");
    }
    assert_eq!((guard.issued(), world.upstream.log().len()), (1, 2));
}

#[tokio::test]
async fn a_client_that_leaves_while_it_tries_for_all_leaves_that_to_the_next() {
    let world = World::new().await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    let limited = Answer::error(429, "X").header("Retry-After", "1");
    world.upstream.answer("/v2/*", limited);
    world
        .mirror
        .get(TAG)
        .await
        .expect_error(429, "TOOMANYREQUESTS");
    clock::pass(3).await;
    world.upstream.behave();
    let gate = Gate::closed();
    let blob = format!("/v2/team/app/blobs/{}", sha256(b"of something"));
    world
        .upstream
        .answer(&blob, Answer::status(404).after(&gate));
    tokio::select! {
        answer = world.mirror.head(&blob) => panic!("{answer:?}"),
        () = gate.reached() => {}
    }
    gate.open();
    // Whether it was given up or has gone on to its end, nobody is left out for ever.
    while world.mirror.get(TAG).await.status != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_endpoint_that_is_left_alone_is_skipped() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    for n in 0..5 {
        second.put_image("team/app", &format!("v{n}"), &Image::new(n));
    }
    first.answer("/v2/*", Answer::error(429, "X").header("Retry-After", "60"));
    let urls = [first.url(""), second.url("")];
    let mirror = Setup::new().endpoints(REGISTRY, &urls, "").start().await;
    for n in 0..5 {
        let target = format!("/v2/team/app/manifests/v{n}");
        mirror.get(&target).await.expect(200);
    }
    assert_eq!((first.log().len(), second.log().len()), (1, 5));
    // With both left alone, the one that says when to come back is heard.
    second.stop().await;
    for n in 5..20 {
        let target = format!("/v2/team/app/manifests/v{n}");
        let answer = mirror.get(&target).await;
        assert!(answer.header("Retry-After").is_some());
        answer.expect_error(429, "TOOMANYREQUESTS");
    }
    assert_eq!(
        (first.log().len(), second.connections()),
        (1, second.connections())
    );
}
