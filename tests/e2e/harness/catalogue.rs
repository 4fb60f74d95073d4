//! The content of the upstream registry: made and pushed once, kept below the target directory, then only served.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::certificates::Certificates;
use super::images::{Builder, DOCKER, Image, OCI, native_architecture};
use super::process::{command, run};
use super::registry::{Audience, Registry};

/// Goes up when what is made below changes.
const VERSION: u32 = 5;

const MIB: u64 = 1 << 20;

/// Larger than 300 MiB, so that it outlives every buffer on its way.
const LARGE_LAYER_BYTES: u64 = 304 * MIB;

/// What the registry holds. Every tag is `1.0`, which is not among those that are asked for upstream each time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Catalogue {
    /// `team/multi`: an OCI index of amd64 and arm64, which share their first layer.
    pub(crate) multi: Index,
    /// `team/oci`: an OCI image.
    pub(crate) oci: Tagged,
    /// `team/docker`: a Docker schema 2 image.
    pub(crate) docker: Tagged,
    /// `team/large`: an OCI image with one layer of more than 300 MiB.
    pub(crate) large: Tagged,
    /// `library/official`: a Docker schema 2 image under a name that Docker Hub's users write without `library/`.
    pub(crate) official: Tagged,
    /// `team/multi:statement`: an artifact about the amd64 member of `multi`.
    pub(crate) statement: Artifact,
}

/// A single image under a tag.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tagged {
    /// `repository:tag`.
    pub(crate) name: String,
    pub(crate) image: Image,
}

/// An image for several platforms under a tag.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Index {
    /// `repository:tag`.
    pub(crate) name: String,
    /// Of the index itself.
    pub(crate) digest: String,
    pub(crate) images: Vec<Image>,
}

impl Index {
    /// The image for `architecture`.
    pub(crate) fn image(&self, architecture: &str) -> &Image {
        self.images
            .iter()
            .find(|image| image.architecture == architecture)
            .unwrap()
    }
}

/// A manifest that is no image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Artifact {
    /// `repository:tag`.
    pub(crate) name: String,
    pub(crate) digest: String,
    /// What it is about.
    pub(crate) subject: String,
}

/// A catalogue and the directory a registry serves it from.
pub(crate) struct Stored {
    pub(crate) catalogue: Catalogue,
    pub(crate) storage: PathBuf,
}

/// The catalogue, made now unless an earlier test has made it.
pub(crate) fn stored() -> Stored {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(parent).unwrap();
    // Held until the process ends: tests may run side by side.
    let lock = File::create(parent.join("e2e.lock")).unwrap();
    lock.lock().unwrap();

    let directory = parent.join(format!("e2e-{VERSION}"));
    if !directory.exists() {
        let unfinished = parent.join("e2e-unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).unwrap();
        }
        fs::create_dir(&unfinished).unwrap();
        make(&unfinished);
        fs::rename(unfinished, &directory).unwrap();
    }
    let text = fs::read(directory.join("catalogue.json")).unwrap();
    Stored {
        catalogue: serde_json::from_slice(&text).unwrap(),
        storage: directory.join("storage"),
    }
}

/// Fills `directory` with a registry's storage and `catalogue.json`.
fn make(directory: &Path) {
    let scratch = tempfile::tempdir_in(directory).unwrap();
    let certificates = Certificates::make(scratch.path());
    let storage = directory.join("storage");
    let mut registry = Registry::start(
        "registry",
        scratch.path(),
        &storage,
        &certificates,
        &Audience::Makers,
    );
    let shop = Shop {
        registry: &registry,
        certificates: &certificates,
        scratch: scratch.path(),
    };

    let (multi, statement) = shop.multi();
    let catalogue = Catalogue {
        multi,
        statement,
        oci: shop.tagged("team/oci:1.0", |builder| {
            builder.image(
                &OCI,
                native_architecture(),
                &[builder.gzip_layer("/usr/bin", 24 * MIB)],
            )
        }),
        docker: shop.tagged("team/docker:1.0", |builder| {
            let layers = [
                builder.gzip_layer("/usr/sbin", 12 * MIB),
                builder.gzip_layer("/etc/apt", MIB),
            ];
            builder.image(&DOCKER, native_architecture(), &layers)
        }),
        large: shop.tagged("team/large:1.0", |builder| {
            builder.image(
                &OCI,
                native_architecture(),
                &[builder.plain_layer(LARGE_LAYER_BYTES)],
            )
        }),
        official: shop.tagged("library/official:1.0", |builder| {
            builder.image(
                &DOCKER,
                native_architecture(),
                &[builder.gzip_layer("/usr/share", 6 * MIB)],
            )
        }),
    };
    registry.stop();
    fs::write(
        directory.join("catalogue.json"),
        serde_json::to_vec(&catalogue).unwrap(),
    )
    .unwrap();
}

/// Where images are made and sent off.
struct Shop<'a> {
    registry: &'a Registry,
    certificates: &'a Certificates,
    scratch: &'a Path,
}

impl Shop<'_> {
    fn tagged(&self, name: &str, make: impl Fn(&Builder) -> Image) -> Tagged {
        let builder = self.builder(name);
        let image = make(&builder);
        builder.finish_image(&image);
        self.push(&builder, name);
        Tagged {
            name: name.to_owned(),
            image,
        }
    }

    fn multi(&self) -> (Index, Artifact) {
        let name = "team/multi:1.0";
        let builder = self.builder(name);
        let shared = builder.gzip_layer("/usr/bin", 24 * MIB);
        let images =
            [("amd64", "/usr/lib"), ("arm64", "/usr/share")].map(|(architecture, tree)| {
                let own = builder.gzip_layer(tree, 8 * MIB);
                builder.image(&OCI, architecture, &[shared.clone(), own])
            });
        let digest = builder.finish_index(&images);
        self.push(&builder, name);

        let statement_name = "team/multi:statement";
        let builder = self.builder(statement_name);
        let statement = fs::read("/etc/os-release").unwrap();
        let statement = Artifact {
            name: statement_name.to_owned(),
            digest: builder.finish_artifact(&images[0], &statement),
            subject: images[0].digest.clone(),
        };
        self.push(&builder, statement_name);
        (
            Index {
                name: name.to_owned(),
                digest,
                images: images.to_vec(),
            },
            statement,
        )
    }

    fn builder(&self, name: &str) -> Builder {
        Builder::new(self.scratch.join(name.replace(['/', ':'], "-")))
    }

    fn push(&self, builder: &Builder, name: &str) {
        run(command("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--all",
                "--preserve-digests",
                "--quiet",
            ])
            .arg(format!(
                "--dest-cert-dir={}",
                self.certificates.directory.display()
            ))
            .arg(format!("dir:{}", builder.directory().display()))
            .arg(format!(
                "docker://127.0.0.1:{}/{name}",
                self.registry.port()
            )));
        fs::remove_dir_all(builder.directory()).unwrap();
    }
}
