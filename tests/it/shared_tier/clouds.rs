//! The same over the protocols of other clouds.

use super::replica;
use crate::harness::bucket::{Bucket, Cloud, blob_key};
use crate::harness::client::Request;
use crate::harness::content::{Image, MIB, bytes, sha256};
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::world::{REGISTRY, Way};

const NAME: &str = "team/app";

/// Where Google's own chain looks for an account.
const GOOGLE_ACCOUNT: &str = "GOOGLE_SERVICE_ACCOUNT_KEY";

/// An account that shows nothing, as emulators want it.
const NO_ACCOUNT: &str =
    r#"{"private_key":"","private_key_id":"","client_email":"","disable_oauth":true}"#;

fn target(rest: &str) -> String {
    Way::Namespace.target(rest)
}

async fn pull(mirror: &Mirror, image: &Image) {
    mirror.pull(target, NAME, "v1", image).await;
}

/// One replica uploads an image, in parts too, and what its tag points to later on; another serves it with an empty disk
/// and without upstream.
async fn replicas_share(cloud: Cloud) {
    let (upstream, bucket) = (Upstream::start().await, Bucket::start().await);
    let setup = Setup::new().upstream(REGISTRY, &upstream);
    let setup = setup.shared_of(&bucket, cloud);
    let (old, large) = (Image::new(1), bytes(7, 9 * MIB + 5));
    let image = Image::new(2).with_layer(large.clone());
    let first = replica(&setup).await;
    for image in [&old, &image] {
        upstream.put_image(NAME, "v1", image);
        pull(&first, image).await;
        first.wait_until_uploaded().await;
        first.clock.advance(16 * 60);
    }
    let metrics = first.metrics().await;
    for blob in old.blobs.iter().chain(&image.blobs) {
        let kept = bucket.object(&blob_key(&sha256(blob)));
        assert!(kept.as_ref() == Some(blob), "{metrics}");
    }
    for failed in ["unavailable", "denied", "gone", "timed_out"] {
        assert!(
            !metrics.contains(&format!("result=\"{failed}\"")),
            "{metrics}"
        );
    }
    upstream.stop().await;

    let second = replica(&setup).await;
    let path = target(&format!("{NAME}/blobs/{}", sha256(&large)));
    let head = second.head(&path).await;
    assert_eq!(
        head.header("Content-Length"),
        Some(&*large.len().to_string())
    );
    let end = large.len() - 1;
    let range = Request::get(&path).header("Range", format!("bytes={}-{end}", 8 * MIB));
    assert_eq!(second.send(range).await.expect(206), large.slice(8 * MIB..));
    pull(&second, &image).await;
}

#[tokio::test]
async fn replicas_share_a_container_of_azure() {
    replicas_share(Cloud::Azure).await;
}

/// Google's account is found in the environment alone, and that of a process is there before its threads are: this starts
/// itself once more.
#[test]
fn replicas_share_a_bucket_of_google() {
    #[expect(
        clippy::disallowed_methods,
        reason = "which of both processes this is, is no configuration"
    )]
    let is_second = std::env::var_os(GOOGLE_ACCOUNT).is_some();
    if is_second {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        return runtime.block_on(replicas_share(Cloud::Google));
    }
    let this = std::env::current_exe().expect("a path");
    let name = "shared_tier::clouds::replicas_share_a_bucket_of_google";
    let status = std::process::Command::new(this)
        .args(["--exact", name, "--nocapture"])
        .env(GOOGLE_ACCOUNT, NO_ACCOUNT)
        .status()
        .expect("it starts");
    assert!(status.success(), "{status}");
}
