//! Registries that limit the rate: Docker Hub by pulls and against abuse, ghcr.io by the minute, Amazon by the second.

use futures_util::future::join_all;

use super::{mirror_of, pulls};
use crate::harness::clock;
use crate::harness::content::{Image, sha256};
use crate::harness::mirror::Mirror;
use crate::harness::upstream::{Answer, Guard, Seen, Upstream};

const HUB: &str = "docker.io";

/// Just more than the time for which a tag is believed, in seconds.
const AFTER_TTL: i64 = 15 * 60 + 1;

fn tag(name: &str, tag: &str, namespace: &str) -> String {
    format!("/v2/{name}/manifests/{tag}?ns={namespace}")
}

fn pull_limit() -> Answer {
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]}"#;
    Answer::status(429)
        .header("Content-Type", "application/json")
        .header("RateLimit-Limit", "100;w=21600")
        .header("RateLimit-Remaining", "0;w=21600")
        .body(body)
}

async fn quota(mirror: &Mirror) -> Option<u64> {
    let metrics = mirror.metrics().await;
    let name = "entrepot_upstream_quota_remaining{upstream=\"docker.io\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name))?;
    value.parse().ok()
}

/// Docker Hub, which says what is left on HEAD and GET, and counts GET alone.
async fn counting_hub(left: u64, image: &Image) -> Upstream {
    let hub = Upstream::start().await;
    let answer = Answer::ok(&image.manifest.media_type, image.manifest.bytes.clone())
        .header("Docker-Content-Digest", &image.manifest.digest())
        .header("RateLimit-Limit", "100;w=21600")
        .header("RateLimit-Remaining", &format!("{left};w=21600"))
        .header("Docker-RateLimit-Source", "192.0.2.1");
    hub.answer("/v2/library/nginx/manifests/*", answer);
    hub
}

#[tokio::test]
async fn p3_hub_head_free_tells_what_is_left() {
    let image = Image::new(1);
    let hub = counting_hub(76, &image).await;
    let mirror = mirror_of(HUB, &hub).await;
    assert_eq!(quota(&mirror).await, None);
    let target = tag("library/nginx", "v1", HUB);
    mirror.get(&target).await.expect(200);
    assert_eq!(quota(&mirror).await, Some(76));
}

#[tokio::test]
async fn p3_hub_head_free_with_nothing_left_prefers_what_is_stored() {
    let image = Image::new(1);
    let hub = counting_hub(0, &image).await;
    let mirror = mirror_of(HUB, &hub).await;
    let target = tag("library/nginx", "v1", HUB);
    mirror.get(&target).await.expect(200);
    mirror.clock.advance(AFTER_TTL);
    hub.forget();
    for _ in 0..5 {
        mirror.get(&target).await.expect(200);
    }
    assert_eq!(hub.log().len(), 0);
}

#[tokio::test]
async fn p4_hub_429_pull() {
    let hub = Upstream::start().await;
    let image = Image::new(1);
    hub.put_image("library/nginx", "v1", &image);
    let mirror = mirror_of(HUB, &hub).await;
    pulls(&mirror, HUB, "library/nginx", &image).await;
    for blob in &image.blobs {
        mirror.wait_until_stored(&sha256(blob)).await;
    }
    hub.rule(|request: &Seen| {
        let is_pull = request.method == "GET" && request.path().contains("/manifests/");
        is_pull.then(pull_limit)
    });
    // Passed on where nothing is stored, and then the host has its peace.
    let missing = tag("library/redis", "v1", HUB);
    mirror
        .get(&missing)
        .await
        .expect_error(429, "TOOMANYREQUESTS");
    hub.forget();
    mirror.clock.advance(AFTER_TTL);
    let targets = vec![tag("library/nginx", "v1", HUB); 50];
    for answer in join_all(targets.iter().map(|target| mirror.get(target))).await {
        assert!(answer.header("Warning").is_some());
        answer.expect(200);
    }
    mirror
        .get(&missing)
        .await
        .expect_error(429, "TOOMANYREQUESTS");
    assert_eq!(hub.log().len(), 0);
    // HEAD is free, and answered: that must not make the pauses short for those who pull.
    for _ in 0..4 {
        clock::pass(5).await;
        mirror
            .get(&tag("library/nginx", "v1", HUB))
            .await
            .expect(200);
        mirror
            .get(&missing)
            .await
            .expect_error(429, "TOOMANYREQUESTS");
    }
    assert!(hub.requests("GET", "*").len() <= 4);
}

#[tokio::test]
async fn p5_hub_429_abuse() {
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (header, window) in [(None, 2), (Some("30"), 32), (Some(past), 2)] {
        for place in [
            "/token",
            "/v2/library/nginx/manifests/*",
            "/v2/library/nginx/blobs/*",
        ] {
            let hub = Upstream::start().await;
            let image = Image::new(1);
            hub.put_image("library/nginx", "v1", &image);
            let guard = Guard::bearer(&hub.url("/token"), "registry.docker.io");
            guard.stand(&hub, &hub, "/token");
            let mut abuse = Answer::status(429).body("Too Many Requests (HAP429).\n");
            if let Some(value) = header {
                abuse = abuse.header("Retry-After", value);
            }
            hub.answer(place, abuse);
            let mirror = mirror_of(HUB, &hub).await;
            let mut targets = vec![tag("library/nginx", "v1", HUB)];
            let digests = image.blobs.iter().map(|blob| sha256(blob));
            targets
                .extend(digests.map(|digest| format!("/v2/library/nginx/blobs/{digest}?ns={HUB}")));
            let mut refused = 0;
            for target in targets.iter().chain(&targets) {
                let answer = mirror.get(target).await;
                if answer.status == 429 {
                    refused += 1;
                    answer.expect_error(429, "TOOMANYREQUESTS");
                }
            }
            assert!(refused > 0, "{place}");
            let limited = |request: &Seen| request.path().starts_with(place.trim_end_matches('*'));
            let asked = hub.log().iter().filter(|request| limited(request)).count();
            assert_eq!(asked, 1, "{place} {header:?}: no stampede");
            hub.behave();
            guard.stand(&hub, &hub, "/token");
            clock::pass(window).await;
            pulls(&mirror, HUB, "library/nginx", &image).await;
        }
    }
}

#[tokio::test]
async fn p14_ghcr_429_duration() {
    for delay in ["1.16676ms", "880.092µs"] {
        let ghcr = Upstream::start().await;
        let image = Image::new(1);
        ghcr.put_image("owner/app", "v1", &image);
        let body = format!(
            r#"{{"errors":[{{"code":"TOOMANYREQUESTS","message":"retry-after: {delay}, allowed: 44000/minute"}}]}}"#
        );
        ghcr.answer(
            "/v2/*",
            Answer::status(429).header("Retry-After", delay).body(body),
        );
        let mirror = mirror_of("ghcr.io", &ghcr).await;
        let target = tag("owner/app", "v1", "ghcr.io");
        for _ in 0..10 {
            let answer = mirror.get(&target).await;
            assert!(matches!(
                answer.header("Retry-After"),
                Some("60" | "1" | "2")
            ));
            answer.expect_error(429, "TOOMANYREQUESTS");
        }
        assert_eq!(ghcr.log().len(), 1);
        ghcr.behave();
        clock::pass(2).await;
        pulls(&mirror, "ghcr.io", "owner/app", &image).await;
    }
}

#[tokio::test]
async fn p32_ecr_limits() {
    const ECR: &str = "public.ecr.aws";
    for message in ["Rate exceeded", "Data limit exceeded"] {
        let ecr = Upstream::start().await;
        let image = Image::new(1);
        ecr.put_image("org/app", "v1", &image);
        let body = format!(r#"{{"errors":[{{"code":"TOOMANYREQUESTS","message":"{message}"}}]}}"#);
        ecr.answer("/v2/*", Answer::status(429).body(body));
        let mirror = mirror_of(ECR, &ecr).await;
        let target = tag("org/app", "v1", ECR);
        for window in 1..=8_usize {
            for _ in 0..10 {
                mirror
                    .get(&target)
                    .await
                    .expect_error(429, "TOOMANYREQUESTS");
            }
            assert_eq!(ecr.log().len(), window);
            // Pauses grow to a minute.
            clock::pass(62).await;
        }
        ecr.behave();
        pulls(&mirror, ECR, "org/app", &image).await;
    }
}
