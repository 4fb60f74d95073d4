//! What a registry said last of a tag counts, whichever replica it said it to.

use serde_json::Value;

use super::{replica, world};
use crate::harness::bucket::Bucket;
use crate::harness::content::Image;
use crate::harness::mirror::Mirror;
use crate::harness::world::Way;

const NAME: &str = "team/app";

async fn tag(mirror: &Mirror) -> String {
    let answer = mirror
        .get(&Way::Namespace.target(&format!("{NAME}/manifests/v1")))
        .await;
    let digest = answer.header("Docker-Content-Digest").map(str::to_owned);
    answer.expect(200);
    digest.expect("a digest")
}

/// When upstream was asked for the tag, as the bucket says.
fn checked(bucket: &Bucket) -> u64 {
    let objects = bucket.objects();
    let key = objects.iter().find(|key| key.starts_with("v1/tags/"));
    let record = bucket
        .object(key.expect("a tag record"))
        .expect("it is there");
    let record: Value = serde_json::from_slice(&record).expect("JSON");
    record["checked"].as_u64().expect("a number")
}

#[tokio::test]
async fn a_tag_that_another_replica_confirmed_is_not_asked_for_again() {
    let (upstream, bucket, setup) = world().await;
    let (old, new) = (Image::new(1), Image::new(2));
    upstream.put_image(NAME, "v1", &old);
    let (first, second) = (replica(&setup).await, replica(&setup).await);
    assert_eq!(tag(&first).await, old.manifest.digest());
    bucket.wait_for("tags", 1).await;
    assert_eq!(tag(&second).await, old.manifest.digest());
    upstream.put_image(NAME, "v1", &new);
    // A quarter of an hour later the first is told.
    let before = checked(&bucket);
    for mirror in [&first, &second] {
        mirror.clock.advance(16 * 60);
    }
    assert_eq!(tag(&first).await, new.manifest.digest());
    while checked(&bucket) == before
        || bucket
            .objects()
            .iter()
            .filter(|key| key.starts_with("v1/documents/"))
            .count()
            < 2
    {
        tokio::task::yield_now().await;
    }
    first.wait_until_uploaded().await;
    upstream.forget();
    assert_eq!(tag(&second).await, new.manifest.digest());
    assert_eq!(
        upstream.log().len(),
        0,
        "the second was not told by upstream"
    );
}

#[tokio::test]
async fn an_older_confirmation_does_not_replace_a_newer_one() {
    let (upstream, bucket, setup) = world().await;
    let image = Image::new(1);
    upstream.put_image(NAME, "v1", &image);
    let (ahead, behind) = (replica(&setup).await, replica(&setup).await);
    ahead.clock.advance(3600);
    assert_eq!(tag(&ahead).await, image.manifest.digest());
    bucket.wait_for("tags", 1).await;
    ahead.wait_until_uploaded().await;
    let newer = checked(&bucket);
    assert_eq!(tag(&behind).await, image.manifest.digest());
    behind.wait_until_uploaded().await;
    assert_eq!(checked(&bucket), newer);
}
