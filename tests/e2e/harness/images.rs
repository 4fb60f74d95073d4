//! Images made from the files of this machine, written in the `dir:` layout that skopeo copies from: `manifest.json`,
//! one `<hex>.manifest.json` per member of an index, one `<hex>` per blob.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::digest;
use super::process::{command, run};

/// The media types of one family of manifests.
pub(crate) struct Family {
    manifest: &'static str,
    config: &'static str,
    layer: &'static str,
    gzip_suffix: &'static str,
}

/// OCI image manifests.
pub(crate) const OCI: Family = Family {
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar",
    gzip_suffix: "+gzip",
};

/// Docker manifests, version 2 schema 2.
pub(crate) const DOCKER: Family = Family {
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar",
    gzip_suffix: ".gzip",
};

/// A filesystem layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// Of the bytes a registry serves.
    pub(crate) digest: String,
    /// Of the archive inside, which is what a client has after it has unpacked the layer.
    pub(crate) diff_id: String,
    pub(crate) size: u64,
    gzip: bool,
}

/// An image for one platform.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Image {
    pub(crate) architecture: String,
    /// Digest of the manifest.
    pub(crate) digest: String,
    /// Digest of the configuration, which most clients call the id of the image.
    pub(crate) config: String,
    pub(crate) layers: Vec<Layer>,
    config_size: u64,
    media_type: String,
    size: u64,
}

impl Image {
    /// Digest and size of the configuration and of the layers.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = (&str, u64)> {
        let layers = self
            .layers
            .iter()
            .map(|layer| (layer.digest.as_str(), layer.size));
        std::iter::once((self.config.as_str(), self.config_size)).chain(layers)
    }
}

/// A directory that takes blobs and becomes an image in the end.
pub(crate) struct Builder {
    directory: PathBuf,
}

impl Builder {
    pub(crate) fn new(directory: PathBuf) -> Self {
        fs::create_dir(&directory).unwrap();
        fs::write(
            directory.join("version"),
            "Directory Transport Version: 1.1\n",
        )
        .unwrap();
        Self { directory }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A gzip-compressed layer of the files below `tree`, the first in name order, up to `bytes_max` before compression.
    pub(crate) fn gzip_layer(&self, tree: &str, bytes_max: u64) -> Layer {
        let archive = self.archive(tree, bytes_max);
        let diff_id = digest::of_file(&archive);
        // Without name and time in the header, so that the same files give the same bytes.
        run(command("gzip").args(["--fast", "--no-name"]).arg(&archive));
        self.layer(&archive.with_extension("tar.gz"), diff_id, true)
    }

    /// A layer that is stored as it is: one file of `bytes` bytes, which a client has unpacked at once.
    pub(crate) fn plain_layer(&self, bytes: u64) -> Layer {
        let content = self.directory.join("content");
        write_numbers(&content, bytes);
        let archive = self.directory.join("layer.tar");
        run(command("tar")
            .args(["--create", "--numeric-owner"])
            .arg(argument("--directory=", &self.directory))
            .arg(argument("--file=", &archive))
            .arg("content"));
        fs::remove_file(content).unwrap();
        let diff_id = digest::of_file(&archive);
        self.layer(&archive, diff_id, false)
    }

    /// Adds `bytes` as a blob and returns its digest.
    pub(crate) fn blob(&self, bytes: &[u8]) -> String {
        let digest = digest::of_bytes(bytes);
        fs::write(self.directory.join(digest::hex(&digest)), bytes).unwrap();
        digest
    }

    /// Adds configuration and manifest of an image of `layers`. The manifest is not yet what the directory is about.
    pub(crate) fn image(&self, family: &Family, architecture: &str, layers: &[Layer]) -> Image {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": { "Cmd": ["/usr/bin/true"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": diff_ids.iter().map(|_| json!({ "created_by": "tar" })).collect::<Vec<_>>(),
        })
        .to_string();
        let config_digest = self.blob(config.as_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": family.manifest,
            "config": descriptor(family.config, &config_digest, config.len() as u64),
            "layers": layers.iter().map(|layer| {
                let suffix = if layer.gzip { family.gzip_suffix } else { "" };
                descriptor(&format!("{}{suffix}", family.layer), &layer.digest, layer.size)
            }).collect::<Vec<_>>(),
        })
        .to_string();
        let digest = digest::of_bytes(manifest.as_bytes());
        let member = format!("{}.manifest.json", digest::hex(&digest));
        fs::write(self.directory.join(member), &manifest).unwrap();
        Image {
            architecture: architecture.to_owned(),
            digest,
            config: config_digest,
            layers: layers.to_vec(),
            config_size: config.len() as u64,
            media_type: family.manifest.to_owned(),
            size: manifest.len() as u64,
        }
    }

    /// Makes the directory be about `image` alone.
    pub(crate) fn finish_image(&self, image: &Image) {
        let member = format!("{}.manifest.json", digest::hex(&image.digest));
        fs::rename(
            self.directory.join(member),
            self.directory.join("manifest.json"),
        )
        .unwrap();
    }

    /// Makes the directory be about an OCI index of `images`, and returns its digest.
    pub(crate) fn finish_index(&self, images: &[Image]) -> String {
        let members = images.iter().map(|image| {
            let mut member = descriptor(&image.media_type, &image.digest, image.size);
            member["platform"] = json!({ "architecture": image.architecture, "os": "linux" });
            member
        });
        self.finish(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": members.collect::<Vec<_>>(),
        }))
    }

    /// Makes the directory be about an artifact that says something about `subject`, and returns its digest.
    pub(crate) fn finish_artifact(&self, subject: &Image, statement: &[u8]) -> String {
        let empty = self.blob(b"{}");
        let statement_digest = self.blob(statement);
        self.finish(&json!({
            "schemaVersion": 2,
            "mediaType": OCI.manifest,
            "artifactType": "application/spdx+text",
            "config": descriptor("application/vnd.oci.empty.v1+json", &empty, 2),
            "layers": [descriptor("text/spdx", &statement_digest, statement.len() as u64)],
            "subject": descriptor(&subject.media_type, &subject.digest, subject.size),
        }))
    }

    fn finish(&self, manifest: &Value) -> String {
        let manifest = manifest.to_string();
        fs::write(self.directory.join("manifest.json"), &manifest).unwrap();
        digest::of_bytes(manifest.as_bytes())
    }

    fn layer(&self, file: &Path, diff_id: String, gzip: bool) -> Layer {
        let digest = digest::of_file(file);
        let size = fs::metadata(file).unwrap().len();
        fs::rename(file, self.directory.join(digest::hex(&digest))).unwrap();
        Layer {
            digest,
            diff_id,
            size,
            gzip,
        }
    }

    fn archive(&self, tree: &str, bytes_max: u64) -> PathBuf {
        let archive = self.directory.join("layer.tar");
        let list = self.directory.join("layer.list");
        let mut names = Vec::new();
        collect(Path::new(tree), bytes_max, &mut 0, &mut names);
        fs::write(&list, names).unwrap();
        run(command("tar")
            .args([
                "--create",
                "--numeric-owner",
                "--no-recursion",
                "--null",
                "--directory=/",
            ])
            .arg(argument("--file=", &archive))
            .arg(argument("--files-from=", &list)));
        fs::remove_file(list).unwrap();
        archive
    }
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn argument(option: &str, path: &Path) -> String {
    format!("{option}{}", path.display())
}

/// Collects directories, links and regular files below `directory` in name order, until the next file would be more than
/// `bytes_max`. Files that have a quarter of that alone are passed over: they would decide how large a layer is.
fn collect(directory: &Path, bytes_max: u64, bytes: &mut u64, names: &mut Vec<u8>) {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for entry in entries {
        if *bytes >= bytes_max {
            return;
        }
        let metadata = fs::symlink_metadata(&entry).unwrap();
        if metadata.is_file() && metadata.len() > bytes_max / 4 {
            continue;
        }
        if metadata.is_file() && *bytes + metadata.len() > bytes_max {
            *bytes = bytes_max;
            return;
        }
        if metadata.is_file() || metadata.is_symlink() || metadata.is_dir() {
            let name = entry.strip_prefix("/").unwrap_or(&entry);
            names.extend_from_slice(name.as_os_str().as_bytes());
            names.push(0);
        }
        if metadata.is_file() {
            *bytes += metadata.len();
        } else if metadata.is_dir() {
            collect(&entry, bytes_max, bytes, names);
        }
    }
}

/// Writes a file of `bytes` bytes: numbers, so that no two stretches are alike and a mix-up of offsets shows in the digest.
fn write_numbers(path: &Path, bytes: u64) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    for number in 0..bytes / 8 {
        file.write_all(&number.to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
}

/// The architecture of this machine as images name it.
pub(crate) fn native_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => panic!("no image is made for {other}"),
    }
}
