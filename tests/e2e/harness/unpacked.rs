//! What a client gives back of an image it has unpacked.

use std::path::Path;

use super::digest;
use super::images::Image;
use super::process::{command, run};

/// The archive of `docker save` or `podman save` at `path` holds every layer of `image`, byte for byte.
pub(crate) fn assert_layers(path: &Path, image: &Image) {
    let directory = tempfile::tempdir_in(path.parent().unwrap()).unwrap();
    run(command("tar")
        .arg("--extract")
        .arg("--file")
        .arg(path)
        .arg("--directory")
        .arg(directory.path()));
    let index = std::fs::read(directory.path().join("manifest.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let layers = index[0]["Layers"].as_array().unwrap();
    let found: Vec<String> = layers
        .iter()
        .map(|layer| digest::of_file(&directory.path().join(layer.as_str().unwrap())))
        .collect();
    let expected: Vec<&str> = image
        .layers
        .iter()
        .map(|layer| layer.diff_id.as_str())
        .collect();
    assert_eq!(found, expected);
}
