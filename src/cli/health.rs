//! `entrepot health`: whether a mirror is ready and, if wanted, whether an image comes through it whole.

use serde::Deserialize;

use super::probe::{Probe, ProbeError};
use crate::oci::{Digest, Hasher, MANIFEST_ACCEPT, described_blobs};

/// Registry of an image that names none.
const DEFAULT_REGISTRY: &str = "docker.io";

/// Tag of an image that names none.
const DEFAULT_TAG: &str = "latest";

/// Largest manifest that is read, in bytes: what registries accept at most.
const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why a mirror is not well.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// It does not answer, or not with 200.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// Other bytes came than the digest says.
    #[error("{0} came with other bytes")]
    Digest(Digest),
    /// The manifest is not one that can be followed.
    #[error("the manifest of {image} cannot be followed: {reason}")]
    Manifest {
        /// The image.
        image: String,
        /// What it lacks.
        reason: &'static str,
    },
}

/// What came through a mirror.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pulled {
    /// Manifests, configuration and layers.
    pub objects: usize,
    /// All their bytes.
    pub bytes: u64,
}

/// Where an image is, as clients ask a mirror for it.
#[derive(Debug, PartialEq, Eq)]
struct Image<'a> {
    registry: &'a str,
    repository: String,
    reference: &'a str,
}

/// What is read of an index.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// Asks whether the mirror is ready. Blocks.
///
/// # Errors
/// [`HealthError::Probe`].
pub fn ready(mirror: &Probe) -> Result<(), HealthError> {
    mirror.get("/readyz", "*/*")?;
    Ok(())
}

/// The registry that clients ask for `image`.
pub fn registry_of(image: &str) -> &str {
    Image::parse(image).registry
}

/// Pulls `image` through the mirror, for this machine's platform, checks every byte and keeps none. Blocks.
///
/// # Errors
/// All of [`HealthError`].
pub fn pull(mirror: &Probe, image: &str) -> Result<Pulled, HealthError> {
    let mut pulled = Pulled::default();
    let place = Image::parse(image);
    let lacks = |reason| HealthError::Manifest {
        image: image.to_owned(),
        reason,
    };
    let mut manifest = place.manifest(mirror, place.reference, &mut pulled)?;
    let index: Index = serde_json::from_slice(&manifest).map_err(|_| lacks("it is not JSON"))?;
    if !index.manifests.is_empty() {
        let entry = index.manifests.iter().find(|entry| entry.is_native());
        let entry = entry.ok_or_else(|| lacks("it has no image for this platform"))?;
        manifest = place.manifest(mirror, &entry.digest, &mut pulled)?;
    }
    let blobs = described_blobs(&manifest);
    if blobs.is_empty() {
        return Err(lacks("it names no blobs"));
    }
    for (digest, _) in blobs {
        let mut hasher = Hasher::new(digest.algorithm());
        let target = place.target("blobs", &digest.to_string());
        let answer = mirror.get(&target, "*/*")?;
        answer.for_each(|piece| {
            hasher.update(piece);
            pulled.bytes += piece.len() as u64;
        })?;
        pulled.objects += 1;
        if hasher.finish() != digest {
            return Err(HealthError::Digest(digest));
        }
    }
    Ok(pulled)
}

// === impl Image ===

impl<'a> Image<'a> {
    /// Takes a reference apart the way clients do: a first part that looks like a host is the registry.
    fn parse(text: &'a str) -> Self {
        let looks_like_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (registry, path) = match text.split_once('/') {
            Some((first, rest)) if looks_like_host(first) => (first, rest),
            Some(_) | None => (DEFAULT_REGISTRY, text),
        };
        let (repository, reference) = match path.split_once('@') {
            // A digest counts before the tag.
            Some((named, digest)) => (
                named.split_once(':').map_or(named, |(name, _)| name),
                digest,
            ),
            None => path.split_once(':').unwrap_or((path, DEFAULT_TAG)),
        };
        let is_official = registry == DEFAULT_REGISTRY && !repository.contains('/');
        Self {
            registry,
            repository: format!("{}{repository}", if is_official { "library/" } else { "" }),
            reference,
        }
    }

    fn target(&self, kind: &str, reference: &str) -> String {
        let Self {
            registry,
            repository,
            ..
        } = self;
        format!("/v2/{repository}/{kind}/{reference}?ns={registry}")
    }

    /// The manifest `reference`, checked where that is a digest.
    fn manifest(
        &self,
        mirror: &Probe,
        reference: &str,
        pulled: &mut Pulled,
    ) -> Result<Vec<u8>, HealthError> {
        let answer = mirror.get(&self.target("manifests", reference), MANIFEST_ACCEPT)?;
        let mut manifest = Vec::new();
        answer.for_each(|piece| {
            if manifest.len() <= MANIFEST_BYTES_MAX {
                manifest.extend_from_slice(piece);
            }
        })?;
        if let Ok(digest) = reference.parse::<Digest>()
            && Digest::of(digest.algorithm(), &manifest) != digest
        {
            return Err(HealthError::Digest(digest));
        }
        pulled.objects += 1;
        pulled.bytes += manifest.len() as u64;
        Ok(manifest)
    }
}

// === impl Entry ===

impl Entry {
    /// Whether it is for this machine's platform, variants aside.
    fn is_native(&self) -> bool {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        self.platform.as_ref().is_some_and(|platform| {
            platform.os == std::env::consts::OS && platform.architecture == architecture
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_clients_read_them() {
        for (text, registry, repository, reference) in [
            ("busybox", "docker.io", "library/busybox", "latest"),
            (
                "docker.io/library/busybox:1.36",
                "docker.io",
                "library/busybox",
                "1.36",
            ),
            ("org/app:1", "docker.io", "org/app", "1"),
            (
                "ghcr.io/org/app@sha256:ab",
                "ghcr.io",
                "org/app",
                "sha256:ab",
            ),
            (
                "localhost:5000/a:b@sha256:ab",
                "localhost:5000",
                "a",
                "sha256:ab",
            ),
        ] {
            let image = Image::parse(text);
            assert_eq!(
                (image.registry, image.repository.as_str(), image.reference),
                (registry, repository, reference)
            );
            assert_eq!(registry_of(text), registry);
        }
    }
}
