//! What is missing, in the words of several registries: of a tag that is known as well, and for a moment only.

use super::mirror_of;
use crate::harness::content::Image;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Upstream};

/// Just more than the time for which a tag is believed, in seconds.
const AFTER_TTL: i64 = 15 * 60 + 1;

#[tokio::test]
async fn p21_a_tag_that_expired_is_gone() {
    for (media_type, body) in [
        (
            "application/json",
            r#"{"errors":[{"code":"TAG_EXPIRED","message":"Tag v1 was deleted or has expired"}]}"#,
        ),
        ("application/json", r#"{"error":"404"}"#),
        ("text/html", "<html>404</html>"),
        ("text/plain", "404 page not found"),
    ] {
        let quay = Upstream::start().await;
        quay.put_image("org/app", "v1", &Image::new(1));
        let mirror = mirror_of("quay.io", &quay).await;
        let target = "/v2/org/app/manifests/v1?ns=quay.io";
        mirror.get(target).await.expect(200);
        let gone = Answer::status(404).header("Content-Type", media_type);
        quay.answer("/v2/*", gone.body(body));
        mirror.clock.advance(AFTER_TTL);
        let answer = mirror.get(target).await;
        answer.expect_error(404, "MANIFEST_UNKNOWN");
    }
}

#[tokio::test]
async fn p27_mirror_gcr_404() {
    let (mirror_of_hub, hub) = (Upstream::start().await, Upstream::start().await);
    let urls = [mirror_of_hub.url(""), hub.url("")];
    let mirror = Setup::new().endpoints("docker.io", &urls, "").start().await;
    let target = |tag: &str| format!("/v2/library/app/manifests/{tag}?ns=docker.io");
    let image = Image::new(1);
    hub.put_image("library/app", "v1", &image);
    // What one endpoint lacks the other has, each time: the first one's 404 is not remembered.
    for tag in ["v1", "v2"] {
        hub.put_image("library/app", tag, &image);
        mirror.get(&target(tag)).await.expect(200);
        mirror.clock.advance(AFTER_TTL);
        mirror.get(&target(tag)).await.expect(200);
    }
    // What both lack is missing, and that is.
    for _ in 0..3 {
        let answer = mirror.get(&target("v3")).await;
        answer.expect_error(404, "MANIFEST_UNKNOWN");
    }
    let path = "/v2/library/app/manifests/v3";
    for endpoint in [&mirror_of_hub, &hub] {
        assert_eq!(endpoint.requests("GET", path).len(), 1);
    }
    // What one lacks while the other is in trouble is trouble, and not remembered.
    hub.answer("/v2/*", Answer::status(503));
    let answer = mirror.get(&target("v4")).await;
    answer.expect_error(502, "UNAVAILABLE");
    hub.behave();
    hub.put_image("library/app", "v4", &image);
    mirror.get(&target("v4")).await.expect(200);
}
