//! Registries that mix up answers, and that say other lengths to HEAD than to GET.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{mirror_of, pulls};
use crate::harness::content::Image;
use crate::harness::upstream::{Answer, Seen, Upstream};

const REDHAT: &str = "registry.redhat.io";

#[tokio::test]
async fn p39_a_wrong_answer_now_and_then_is_asked_for_again() {
    let registry = Upstream::start().await;
    let (image, other) = (Image::new(1), Image::new(2).manifest);
    registry.put_image("org/app", "v1", &image);
    let path = format!("/v2/org/app/manifests/{}", image.manifest.digest());
    let asked = AtomicUsize::new(0);
    let wanted = path.clone();
    registry.rule(move |request: &Seen| {
        let first = request.path() == wanted && asked.fetch_add(1, Ordering::Relaxed) == 0;
        first.then(|| Answer::ok(&other.media_type, other.bytes.clone()))
    });
    let mirror = mirror_of(REDHAT, &registry).await;
    let target = format!("{path}?ns={REDHAT}");
    assert_eq!(mirror.get(&target).await.expect(200), image.manifest.bytes);
}

#[tokio::test]
async fn p39_a_wrong_answer_every_time_is_a_502() {
    let registry = Upstream::start().await;
    let (image, other) = (Image::new(1).manifest, Image::new(2).manifest);
    let path = format!("/v2/org/app/manifests/{}", image.digest());
    registry.answer(&path, Answer::ok(&other.media_type, other.bytes));
    let mirror = mirror_of(REDHAT, &registry).await;
    let target = format!("{path}?ns={REDHAT}");
    mirror
        .get(&target)
        .await
        .expect_error(502, "MANIFEST_INVALID");
    assert_eq!(registry.requests("GET", &path).len(), 2);
}

#[tokio::test]
async fn p39_the_length_that_head_says_is_not_believed() {
    let registry = Upstream::start().await;
    let image = Image::new(1);
    registry.put_image("org/app", "v1", &image);
    let digest = image.manifest.digest();
    let media_type = image.manifest.media_type.clone();
    registry.rule(move |request: &Seen| {
        let (_, kind, _) = request.parts()?;
        let is_head = kind == "manifests" && request.method == "HEAD";
        let shorter = Answer::ok(&media_type, "compressed");
        is_head.then(|| shorter.header("Docker-Content-Digest", &digest))
    });
    let mirror = mirror_of(REDHAT, &registry).await;
    let target = format!("/v2/org/app/manifests/v1?ns={REDHAT}");
    for _ in 0..2 {
        let head = mirror.head(&target).await;
        let length = image.manifest.bytes.len().to_string();
        assert_eq!(head.header("Content-Length"), Some(&*length));
        mirror.clock.advance(16 * 60);
    }
    pulls(&mirror, REDHAT, "org/app", &image).await;
}
