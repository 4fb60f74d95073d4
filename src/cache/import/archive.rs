//! An archive of `docker save` as it was before version 25, and as skopeo and podman write it.
//!
//! It has no manifest that a registry knows: layers are unpacked in it, and `manifest.json` lists files. So one is made
//! here, of the same configuration and the unpacked layers. It is an image like the one that was saved, and not the
//! bytes that its registry has: the tag is fetched anew as soon as that is asked about it.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::files::Files;
use super::name::{HUB, ImageName};
use super::{ImportError, ImportRule, Root};
use crate::oci::{Algorithm, Digest, MediaType};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// Where the content of a digest is.
pub(super) enum Place {
    /// In a file of the archive.
    File(String),
    /// Nowhere: it was made.
    Made(Bytes),
}

/// Where what is.
#[derive(Default)]
pub(super) struct Listed(HashMap<Digest, Place>);

/// An element of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// A configuration, as far as it matters here.
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl Listed {
    pub(super) fn find(&self, digest: &Digest) -> Option<&Place> {
        self.0.get(digest)
    }
}

fn malformed(name: &str, reason: &(impl ToString + ?Sized)) -> ImportError {
    ImportError::Malformed {
        name: name.to_owned(),
        reason: reason.to_string(),
    }
}

/// What an archive has whose `manifest.json` is `content`.
pub(super) fn read(
    files: &Files,
    content: &[u8],
    rule: &ImportRule,
) -> Result<(Vec<Root>, Listed), ImportError> {
    let images: Vec<Saved> =
        serde_json::from_slice(content).map_err(|error| malformed("manifest.json", &error))?;
    let (mut roots, mut listed) = (Vec::new(), Listed::default());
    for image in images {
        let manifest = made_of(files, &image, &mut listed)?;
        let tags = image.repo_tags.unwrap_or_default();
        let mut names: Vec<_> = tags
            .iter()
            .filter_map(|tag| ImageName::parse(tag))
            .collect();
        if names.is_empty() {
            names.push(ImageName {
                namespace: None,
                repository: None,
                tag: None,
            });
        }
        for name in names {
            roots.push(root(name, manifest, rule)?);
        }
    }
    Ok((roots, listed))
}

fn root(name: ImageName, manifest: Digest, rule: &ImportRule) -> Result<Root, ImportError> {
    let is_named = name.repository.is_some();
    let name = name.or(rule);
    // What Docker writes without a registry is of Docker Hub.
    let usual = is_named.then(|| HUB.parse().ok()).flatten();
    let namespace = name.namespace.or(usual).ok_or(ImportError::NoNamespace)?;
    let repository = name.repository.ok_or(ImportError::NoRepository)?;
    Ok(Root {
        repository: ImageName::canonical(&namespace, repository),
        namespace,
        tag: name.tag,
        manifest,
        media_type: MANIFEST.parse::<MediaType>().ok(),
    })
}

/// The manifest of an image, as a registry would have it.
fn made_of(files: &Files, image: &Saved, listed: &mut Listed) -> Result<Digest, ImportError> {
    let content = files.read(&image.config)?;
    let content = content.ok_or_else(|| malformed(&image.config, "it is not there"))?;
    let config: Config =
        serde_json::from_slice(&content).map_err(|error| malformed(&image.config, &error))?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != image.layers.len() {
        return Err(malformed(
            "manifest.json",
            "it has more or fewer layers than the configuration",
        ));
    }
    let digest = Digest::of(Algorithm::Sha256, &content);
    listed.0.insert(digest, Place::File(image.config.clone()));
    let mut layers = Vec::new();
    for (diff_id, name) in diff_ids.iter().zip(&image.layers) {
        let layer = files.content(name)?;
        let layer = layer.ok_or_else(|| malformed(name, "it is not there"))?;
        listed.0.insert(*diff_id, Place::File(name.clone()));
        layers.push(json!({ "mediaType": LAYER, "size": layer.left(), "digest": diff_id }));
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "size": content.len(), "digest": digest },
        "layers": layers,
    });
    let manifest = Bytes::from(manifest.to_string());
    let digest = Digest::of(Algorithm::Sha256, &manifest);
    listed.0.insert(digest, Place::Made(manifest));
    Ok(digest)
}
