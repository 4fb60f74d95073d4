//! What a client gives back of an image it has unpacked.

use std::collections::HashMap;
use std::io::Read as _;
use std::process::{Command, Stdio};

use super::digest;
use super::images::Image;

/// The archive that `save`, a `docker save` or `podman save`, writes to its standard output holds every layer of `image`,
/// byte for byte.
pub(crate) fn assert_layers(save: &mut Command, image: &Image) {
    let mut saving = save
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut archive = tar::Archive::new(saving.stdout.take().unwrap());
    let (mut index, mut digests) = (Vec::new(), HashMap::new());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        if name == "manifest.json" {
            entry.read_to_end(&mut index).unwrap();
        } else {
            digests.insert(name, digest::of_reader(entry));
        }
    }
    assert!(saving.wait().unwrap().success(), "{save:?}");
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let layers = index[0]["Layers"].as_array().unwrap();
    let found: Vec<&str> = layers
        .iter()
        .map(|layer| digests[layer.as_str().unwrap()].as_str())
        .collect();
    let expected: Vec<&str> = image
        .layers
        .iter()
        .map(|layer| layer.diff_id.as_str())
        .collect();
    assert_eq!(found, expected);
}
