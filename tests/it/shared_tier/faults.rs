//! F37 to F39 and C-42: what stores answer that is no answer.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{replica, world};
use crate::harness::bucket::{Fault, blob_key};
use crate::harness::content::{KIB, MIB, bytes};
use crate::harness::mirror::Mirror;
use crate::harness::world::Way;

const NAME: &str = "team/app";

fn blob(digest: &str) -> String {
    Way::Namespace.target(&format!("{NAME}/blobs/{digest}"))
}

async fn wait_for(mirror: &Mirror, line: &str) {
    while !mirror.metrics().await.contains(line) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn f37_a_store_that_stumbles_at_any_step_fails_no_pull_and_has_all_in_the_end() {
    // As many as open the breaker.
    const STUMBLES: usize = 3;
    // Large enough to be uploaded in parts, after a question whether it is there.
    let large = bytes(2, 8 * MIB + KIB);
    let steps = [
        ("GET", bytes(1, 10 * KIB)),
        ("PUT", bytes(1, 10 * KIB)),
        ("PUT", large.clone()),
        ("HEAD", large.clone()),
        ("POST", large),
    ];
    for (step, content) in steps {
        for fault in [
            Fault::Code(503, "SlowDown"),
            Fault::Status(500),
            Fault::Reset,
        ] {
            let (upstream, bucket, setup) = world().await;
            let left = AtomicUsize::new(STUMBLES);
            bucket.rule(move |method, _| {
                let one_less = |left: usize| left.checked_sub(1);
                let order = Ordering::SeqCst;
                let stumbles = method == step && left.fetch_update(order, order, one_less).is_ok();
                stumbles.then_some(fault)
            });
            let mirror = replica(&setup).await;
            let digest = upstream.put_blob(NAME, content.clone());
            assert_eq!(mirror.get(&blob(&digest)).await.expect(200), content);
            mirror.wait_until_uploaded().await;
            assert_eq!(bucket.unfinished(), 0, "{step} {fault:?}");
            let kept = bucket.object(&blob_key(&digest));
            assert!(kept.as_ref() == Some(&content), "{step} {fault:?}");
            let sent = upstream.body_bytes("*");
            let second = replica(&setup).await;
            assert_eq!(second.get(&blob(&digest)).await.expect(200), content);
            assert_eq!(upstream.body_bytes("*"), sent, "{step} {fault:?}");
        }
    }
}

#[tokio::test]
async fn f38_a_conflict_is_no_sign_that_it_is_there() {
    let (upstream, bucket, setup) = world().await;
    let content = bytes(1, 10 * KIB);
    let digest = upstream.put_blob(NAME, content.clone());
    let left = AtomicUsize::new(1);
    bucket.rule(move |method, key| {
        let is_put = method == "PUT" && key.contains("/blobs/");
        let is_first = is_put && left.swap(0, Ordering::SeqCst) == 1;
        is_first.then_some(Fault::Code(409, "ConditionalRequestConflict"))
    });
    let mirror = replica(&setup).await;
    assert_eq!(mirror.get(&blob(&digest)).await.expect(200), content);
    mirror.wait_until_uploaded().await;
    assert!(bucket.object(&blob_key(&digest)) == Some(content));
}

#[tokio::test]
async fn f38_what_is_there_already_is_not_put_there_again() {
    let (upstream, bucket, setup) = world().await;
    let content = bytes(1, 10 * KIB);
    let digest = upstream.put_blob(NAME, content.clone());
    // It came between the question and the upload.
    bucket.rule(|method, key| {
        let is_question = method == "GET" && key.contains("/blobs/");
        is_question.then_some(Fault::Status(404))
    });
    bucket.put(&blob_key(&digest), content.clone());
    let mirror = replica(&setup).await;
    assert_eq!(mirror.get(&blob(&digest)).await.expect(200), content);
    mirror.wait_until_uploaded().await;
    let metrics = mirror.metrics().await;
    let put_once = r#"entrepot_shared_requests_total{op="put",result="refused"} 1"#;
    assert!(metrics.contains(put_once), "{metrics}");
    assert!(
        !metrics.contains("entrepot_shared_dropped_total{"),
        "{metrics}"
    );
}

#[tokio::test]
async fn f39_a_store_that_does_not_let_us_in_is_done_without_until_it_does() {
    for (fault, said) in [
        (Fault::Code(400, "ExpiredToken"), "unavailable"),
        (Fault::Code(403, "InvalidAccessKeyId"), "denied"),
        (Fault::Code(403, "RequestTimeTooSkewed"), "denied"),
        (Fault::Code(401, "Unauthorized"), "denied"),
        (Fault::Code(404, "NoSuchBucket"), "no_bucket"),
    ] {
        let (upstream, bucket, setup) = world().await;
        bucket.rule(move |_, _| Some(fault));
        let mirror = replica(&setup).await;
        let contents: Vec<_> = (0..4).map(|seed| bytes(seed, 10 * KIB)).collect();
        let put = |content: &bytes::Bytes| upstream.put_blob(NAME, content.clone());
        for content in &contents {
            let answer = mirror.get(&blob(&put(content))).await;
            let status = answer.header("Cache-Status").map(str::to_owned);
            assert_eq!(answer.expect(200), content, "{fault:?}");
            assert_eq!(
                status.as_deref(),
                Some("entrepot; fwd=miss; stored; detail=shared-failed"),
                "{fault:?}"
            );
            assert_eq!(mirror.get("/readyz").await.status, 200);
        }
        wait_for(&mirror, "\nentrepot_shared_up 0\n").await;
        let said = format!(r#"entrepot_shared_requests_total{{op="get",result="{said}"}}"#);
        assert!(mirror.metrics().await.contains(&said), "{fault:?}");
        // New credentials, a bucket, the right time: nobody has to tell the mirror.
        bucket.rule(|_, _| None);
        mirror.wait_until_uploaded().await;
        assert!(mirror.metrics().await.contains("\nentrepot_shared_up 1\n"));
        for content in &contents {
            let key = blob_key(&put(content));
            assert_eq!(bucket.object(&key).as_ref(), Some(content), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn c42_xml_of_a_million_attributes_is_not_taken() {
    // What goes into the buffers of a connection before anybody reads it.
    const IN_BUFFERS: usize = 16 * MIB;
    let content = bytes(1, 8 * MIB + KIB);
    for fault in [Fault::Attributes(200), Fault::Attributes(403)] {
        for step in ["POST", "PUT"] {
            let (upstream, bucket, setup) = world().await;
            let digest = upstream.put_blob(NAME, content.clone());
            let left = AtomicUsize::new(1);
            bucket.rule(move |method, _| {
                let is_first = method == step && left.swap(0, Ordering::SeqCst) == 1;
                is_first.then_some(fault)
            });
            let mirror = replica(&setup).await;
            assert_eq!(mirror.get(&blob(&digest)).await.expect(200), content);
            mirror.wait_until_uploaded().await;
            assert!(bucket.object(&blob_key(&digest)).as_ref() == Some(&content));
            let sent = bucket.attribute_bytes();
            assert!(sent > 0 && sent < IN_BUFFERS, "{step} {fault:?}: {sent}");
        }
    }
}
