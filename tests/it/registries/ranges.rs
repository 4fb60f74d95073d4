//! The zoo of ranges: what registries and their stores do when a blob is resumed.

use super::{mirror_of, store_of};
use crate::harness::client::Ending;
use crate::harness::content::{Image, MIB, bytes, sha256};
use crate::harness::upstream::{Answer, Body, End, Seen, Upstream};

const REGISTRY: &str = "registry.example";

#[tokio::test]
async fn p38_only_closed_ranges_are_understood() {
    let registry = Upstream::start().await;
    let content = bytes(1, 2 * MIB);
    let body = Body::new(content.clone()).cut_at(MIB, End::Fin, 1);
    let digest = registry.put_blob("team/app", body);
    registry.rule(|request: &Seen| {
        let open = request
            .header("Range")
            .is_some_and(|range| range.ends_with('-'));
        let refusal = Answer::status(416).header("Content-Range", "bytes */2097152");
        open.then_some(refusal)
    });
    let mirror = mirror_of(REGISTRY, &registry).await;
    let target = format!("/v2/team/app/blobs/{digest}");
    assert_eq!(mirror.get(&target).await.expect(200), content);
    let sent = registry.body_bytes("*");
    assert!(sent <= content.len() as u64 * 101 / 100, "{sent}");
}

#[tokio::test]
async fn p38_nobody_says_that_ranges_are_accepted() {
    let registry = Upstream::start().await;
    let content = bytes(1, 2 * MIB);
    let digest = sha256(&content);
    let body = Body::new(content.clone()).cut_at(MIB, End::Fin, 1);
    let (body, path) = (body, format!("/v2/team/app/blobs/{digest}"));
    // No `Accept-Ranges`, no `ETag`, no digest; but a closed range is answered.
    let wanted = path.clone();
    let rest = content.slice(MIB..);
    registry.rule(move |request: &Seen| {
        let whole = Answer::status(200).body(body.clone());
        let part = Answer::status(206)
            .header("Content-Range", "bytes 1048576-2097151/2097152")
            .body(rest.clone());
        let answer = match request.header("Range") {
            Some(range) if range.starts_with("bytes=1048576-") => part,
            _ => whole,
        };
        (request.path() == wanted).then_some(answer)
    });
    let mirror = mirror_of(REGISTRY, &registry).await;
    assert_eq!(mirror.get(&path).await.expect(200), content);
    assert!(registry.body_bytes("*") <= content.len() as u64 * 101 / 100);
}

#[tokio::test]
async fn p38_a_resumption_that_comes_encoded_is_not_spliced() {
    for encoding in ["gzip", "x-gzip"] {
        let registry = Upstream::start().await;
        let content = bytes(1, 2 * MIB);
        let digest = sha256(&content);
        let body = Body::new(content.clone()).cut_at(MIB, End::Fin, 1);
        registry.put_blob_as("team/app", &digest, body);
        let rest = content.slice(MIB..);
        registry.rule(move |request: &Seen| {
            request.header("Range")?;
            let answer = Answer::status(206).header("Content-Encoding", encoding);
            let range = "bytes 1048576-2097151/2097152";
            Some(answer.header("Content-Range", range).body(rest.clone()))
        });
        let mirror = mirror_of(REGISTRY, &registry).await;
        let answer = mirror.get(&format!("/v2/team/app/blobs/{digest}")).await;
        let exact = answer.ending == Ending::Complete && answer.body == content;
        assert!(exact || answer.ending == Ending::Short, "{encoding}");
    }
}

#[tokio::test]
async fn p9_presign_expired() {
    let registry = Upstream::start().await;
    let image = Image::new(1);
    let store = store_of(&image).await;
    let content = bytes(1, 2 * MIB);
    let digest = registry.put_blob("team/app", content.clone());
    // Every place works once, and breaks off in the middle.
    let file = Body::new(content.clone()).cut_at(MIB, End::Fin, 1);
    store.put_file("/files/1", file);
    store.put_file("/files/2", content.clone());
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let base = store.url("/files");
    registry.rule(move |request: &Seen| {
        let (_, kind, _) = request.parts()?;
        let is_get = kind == "blobs" && request.method == "GET";
        is_get.then(|| {
            let n = 1 + asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Answer::redirect(307, &format!("{base}/{n}"))
        })
    });
    store.rule(|request: &Seen| {
        let expired = request.path() == "/files/1" && request.header("Range").is_some();
        let text = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
        expired.then(|| Answer::status(403).body(text))
    });
    let mirror = mirror_of(REGISTRY, &registry).await;
    let target = format!("/v2/team/app/blobs/{digest}");
    assert_eq!(mirror.get(&target).await.expect(200), content);
    assert_eq!(registry.requests("GET", &target).len(), 2);
    assert!(store.body_bytes("*") <= content.len() as u64 * 101 / 100);
}
