//! Images made of numbers: the same seed gives the same bytes.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

/// `application/vnd.oci.image.manifest.v1+json`.
pub const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.index.v1+json`.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `application/vnd.docker.distribution.manifest.v2+json`.
pub const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// `application/vnd.docker.distribution.manifest.list.v2+json`.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// `application/vnd.oci.image.config.v1+json`.
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// `application/vnd.oci.image.layer.v1.tar+gzip`.
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// One KiB.
pub const KIB: usize = 1024;
/// One MiB.
pub const MIB: usize = 1024 * KIB;

/// `length` bytes that do not compress and differ from those of any other seed.
pub fn bytes(seed: u64, length: usize) -> Bytes {
    let mut content = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut content);
    content.into()
}

/// `sha256:…` of some bytes.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// `sha512:…` of some bytes.
pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A manifest, and the type it is served as.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// What upstream says in `Content-Type`.
    pub media_type: String,
    /// The document.
    pub bytes: Bytes,
}

impl Manifest {
    /// A document as it is written.
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        Self {
            media_type: media_type.to_owned(),
            bytes: bytes.into(),
        }
    }

    /// A document that names its own type.
    pub fn json(media_type: &str, mut document: Value) -> Self {
        document["schemaVersion"] = json!(2);
        document["mediaType"] = json!(media_type);
        Self::new(media_type, document.to_string())
    }

    /// The index of some manifests.
    pub fn index(media_type: &str, children: &[&Self]) -> Self {
        let children: Vec<Value> = children.iter().map(|child| child.descriptor()).collect();
        Self::json(media_type, json!({ "manifests": children }))
    }

    /// Its `sha256:` digest.
    pub fn digest(&self) -> String {
        sha256(&self.bytes)
    }

    fn descriptor(&self) -> Value {
        descriptor(&self.media_type, &self.bytes)
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() })
}

/// A manifest and the blobs it names.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration, then the layers.
    pub blobs: Vec<Bytes>,
}

impl Image {
    /// An OCI image of a configuration and two layers.
    pub fn new(seed: u64) -> Self {
        Self::of_type(OCI_IMAGE, seed)
    }

    /// The same with another media type for its manifest.
    pub fn of_type(media_type: &str, seed: u64) -> Self {
        let config = Bytes::from(json!({ "architecture": "amd64", "seed": seed }).to_string());
        let layers = [
            bytes(seed.wrapping_mul(31), 3000),
            bytes(seed.wrapping_mul(37), 70 * KIB),
        ];
        Self::made_of(media_type, std::iter::once(config).chain(layers).collect())
    }

    /// The same with one more layer.
    pub fn with_layer(&self, layer: Bytes) -> Self {
        let blobs = self.blobs.iter().cloned().chain([layer]).collect();
        Self::made_of(&self.manifest.media_type, blobs)
    }

    fn made_of(media_type: &str, blobs: Vec<Bytes>) -> Self {
        let (config, layers) = blobs.split_first().expect("a configuration");
        let described: Vec<Value> = layers
            .iter()
            .map(|layer| descriptor(OCI_LAYER, layer))
            .collect();
        let document = json!({ "config": descriptor(OCI_CONFIG, config), "layers": described });
        let manifest = Manifest::json(media_type, document);
        Self { manifest, blobs }
    }
}
