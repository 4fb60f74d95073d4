//! An OCI image layout: `index.json` and `blobs/<algorithm>/<hex>` (image-spec, image-layout.md). `docker save` writes
//! one, too, since version 25.

use std::collections::HashMap;

use serde::Deserialize;

use super::name::ImageName;
use super::{ImportError, ImportRule, Root};
use crate::oci::{Digest, MediaType};

/// What tools annotate the name of an image with, the one that says most first.
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// `index.json`.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: Option<MediaType>,
    digest: Digest,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// What the index `content` lists.
pub(super) fn roots(content: &[u8], rule: &ImportRule) -> Result<Vec<Root>, ImportError> {
    let index: Index = serde_json::from_slice(content).map_err(|error| ImportError::Malformed {
        name: "index.json".to_owned(),
        reason: error.to_string(),
    })?;
    let root = |entry: Entry| {
        let annotated = NAMES.iter().find_map(|name| {
            let text = entry.annotations.get(*name)?;
            ImageName::of_layout(text)
        });
        let nothing = ImageName {
            namespace: None,
            repository: None,
            tag: None,
        };
        let name = annotated.unwrap_or(nothing).or(rule);
        let namespace = name.namespace.ok_or(ImportError::NoNamespace)?;
        let repository = name.repository.ok_or(ImportError::NoRepository)?;
        Ok(Root {
            repository: ImageName::canonical(&namespace, repository),
            namespace,
            tag: name.tag,
            manifest: entry.digest,
            media_type: entry.media_type,
        })
    };
    index.manifests.into_iter().map(root).collect()
}
