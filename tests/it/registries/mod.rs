//! The registries of the world, as far as we know how they behave: the profiles of registries.md section 2, by name.
//! An image pulls through each, or the right error comes back.
//!
//! All of them are on loopback here, configured under their real names, so that what the mirror knows of a name holds.
//! Another address of loopback is another host.

mod amazon;
mod docker_hub;
mod ghcr;
mod google;
mod kubernetes;
mod microsoft;
mod missing;
mod quay;
mod self_hosted;

mod challenges;
mod digests;
mod hub_private;
mod lists;
mod ranges;
mod rate_limits;
mod resumed;

use crate::harness::content::Image;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::Upstream;

/// A mirror for which the registry `namespace` is `upstream`.
async fn mirror_of(namespace: &str, upstream: &Upstream) -> Mirror {
    Setup::new().upstream(namespace, upstream).start().await
}

/// Pulls the image `name:v1` of `namespace` and compares every byte.
async fn pulls(mirror: &Mirror, namespace: &str, name: &str, image: &Image) {
    let target = |rest: &str| format!("/v2/{rest}?ns={namespace}");
    mirror.pull(target, name, "v1", image).await;
}

/// A host that serves the blobs of an image at `/files/<digest>`.
async fn store_of(image: &Image) -> Upstream {
    let store = Upstream::start_on("127.0.0.2").await;
    for blob in &image.blobs {
        let digest = crate::harness::content::sha256(blob);
        store.put_file(&format!("/files/{digest}"), blob.clone());
    }
    store
}
