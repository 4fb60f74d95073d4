//! What is not everybody's is read by right, whether it comes from upstream, from disk or from the bucket.

use super::replica;
use crate::access::members::{Content, HERE, Kind, Members, OPEN, THERE};
use crate::harness::bucket::Bucket;
use crate::harness::mirror::Setup;
use crate::harness::upstream::Upstream;
use crate::harness::world::REGISTRY;

const ROBOT_HERE: &str = "registry.example/team/app: { username: robot, password: pw-robot }\n";

#[tokio::test]
async fn private_content_in_the_bucket_is_read_by_right_alone() {
    let (registry, bucket) = (Upstream::start().await, Bucket::start().await);
    let members = Members::default();
    members.admit("robot", HERE);
    members.stand(&registry);
    let content = Content::put(&registry);
    let open = Setup::new().upstream(REGISTRY, &registry).shared(&bucket);
    let setup = open.clone().credentials(ROBOT_HERE);
    let first = replica(&setup).await;
    for kind in [Kind::Get, Kind::Child, Kind::Tag] {
        first.send(content.request(kind, HERE)).await.expect(200);
    }
    bucket.wait_for("private", 1).await;
    bucket.wait_for("links", 1).await;
    bucket.wait_for("rights", 1).await;
    bucket.wait_for("manifests", 2).await;
    bucket.wait_for("tags", 1).await;
    first.wait_until_uploaded().await;
    let objects = bucket.objects();
    let is_public = |key: &&String| key.starts_with("v1/blobs/");
    assert_eq!(
        objects.iter().find(is_public),
        None,
        "nothing of it is everybody's"
    );

    // Another repository, and a replica without the credential, ask upstream as ever.
    let second = replica(&setup).await;
    for kind in [
        Kind::Head,
        Kind::Get,
        Kind::Range,
        Kind::Manifest,
        Kind::Tag,
    ] {
        let answer = second.send(content.request(kind, THERE)).await;
        assert_eq!(answer.status, 401, "{kind:?}");
    }
    let stranger = replica(&open).await;
    for kind in [Kind::Head, Kind::Get, Kind::Manifest, Kind::Tag] {
        let answer = stranger.send(content.request(kind, HERE)).await;
        assert_eq!(answer.status, 401, "{kind:?}");
    }
    // What anybody may read elsewhere is confirmed there, and the bytes come from the bucket.
    let sent = registry.body_bytes("/v2/*");
    let answer = second.send(content.request(Kind::Get, OPEN)).await;
    assert_eq!(answer.expect(200), content.layer);
    assert_eq!(registry.body_bytes("/v2/*"), sent);

    registry.stop().await;
    // The mirror's own right, as the first replica was told, outlasts an outage on a third with an empty disk.
    let third = replica(&setup).await;
    for kind in [Kind::Head, Kind::Get, Kind::Range, Kind::Child, Kind::Tag] {
        let answer = third.send(content.request(kind, HERE)).await;
        assert_eq!(answer.status, content.expected(kind).0, "{kind:?}");
        let answer = third.send(content.request(kind, THERE)).await;
        assert!(answer.status >= 500, "trouble is no proof: {kind:?}");
    }
    // Without the credential there is no such right.
    let stranger = replica(&open).await;
    for kind in [Kind::Head, Kind::Get, Kind::Child, Kind::Tag] {
        let answer = stranger.send(content.request(kind, HERE)).await;
        assert!(answer.status >= 401, "{kind:?}");
    }
}

#[tokio::test]
async fn a_refusal_takes_the_right_out_of_the_bucket() {
    let (registry, bucket) = (Upstream::start().await, Bucket::start().await);
    let members = Members::default();
    members.admit("robot", HERE);
    members.stand(&registry);
    let content = Content::put(&registry);
    let setup = Setup::new().upstream(REGISTRY, &registry).shared(&bucket);
    let setup = setup.credentials(ROBOT_HERE);
    let first = replica(&setup).await;
    first
        .send(content.request(Kind::Get, HERE))
        .await
        .expect(200);
    bucket.wait_for("rights", 1).await;
    first.wait_until_stored(&content.digest()).await;
    members.dismiss_all();
    first.clock.advance(6 * 60);
    let answer = first.send(content.request(Kind::Get, HERE)).await;
    assert!((401..=403).contains(&answer.status), "{}", answer.status);
    while bucket
        .objects()
        .iter()
        .any(|key| key.starts_with("v1/rights/"))
    {
        tokio::task::yield_now().await;
    }
}
