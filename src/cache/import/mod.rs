//! Takes in what another cache or an archive holds, so that nobody starts cold.
//!
//! Nothing of a source is believed but its bytes: every digest is computed anew, and what does not hash to what it is
//! called is left out. What a source says of tags counts as a word of some time ago: a tag is checked at its first use,
//! and served as it is while its registry is in trouble. What the mirror knows of a tag already stays. Every call blocks.

mod archive;
mod distribution;
mod files;
mod layout;
mod name;

mod take;

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::evict::Budget;
use crate::oci::{Digest, MediaType, Namespace, RepositoryName, Tag};
use crate::storage::{self, Audience, Local};

use files::Files;
use take::Taker;

/// What a source leaves open.
#[derive(Debug, Clone)]
pub struct ImportRule {
    /// The registry it is of, where it does not say.
    pub namespace: Option<Namespace>,
    /// The repository it is of, where it does not say. Of a cache of several, the one that is taken.
    pub repository: Option<RepositoryName>,
    /// Whose it is.
    pub audience: Audience,
}

/// What was taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Manifests.
    pub manifests: u64,
    /// Configurations and layers.
    pub blobs: u64,
    /// All their bytes.
    pub bytes: u64,
    /// What was here already.
    pub known: u64,
    /// Tags.
    pub tags: u64,
    /// What manifests name and the source does not have.
    pub missing: u64,
    /// What does not hash to what it is called, or is no manifest where it should be.
    pub wrong: u64,
}

/// Why an import came to no end. What was taken in until then stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Source {
        /// What of it.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is nothing that can be taken in.
    #[error(
        "{} is no cache of distribution (docker/registry/v2), no OCI layout (index.json) and no archive of `docker save` \
         (manifest.json); compressed archives are to be unpacked first",
        .0.display()
    )]
    Unknown(PathBuf),
    /// A part of it is not what it should be.
    #[error("{name} of the source is not what it should be: {reason}")]
    Malformed {
        /// Which part.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It does not say which registry it is of.
    #[error("the source does not say which registry it is of: name that with --namespace")]
    NoNamespace,
    /// It does not say which repository it is of.
    #[error("the source does not say which repository it is of: name that with --repository")]
    NoRepository,
    /// There is no room for more.
    #[error(
        "the cache is full: it may take {0} bytes by cache.max_size and cache.min_free, and has them"
    )]
    Full(u64),
    /// The cache directory fails.
    #[error("{0}: {cause}", cause = .0.cause)]
    Storage(#[from] storage::Error),
}

/// A manifest that a source says that a repository has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Root {
    namespace: Namespace,
    repository: RepositoryName,
    tag: Option<Tag>,
    manifest: Digest,
    /// What the source says that it is.
    media_type: Option<MediaType>,
}

/// A source: where its content is, and what it says of it.
struct Source {
    files: Files,
    roots: Vec<Root>,
    content: Content,
}

/// How a source names the file of a digest.
enum Content {
    /// As caches of distribution do.
    Distribution,
    /// As OCI layouts do.
    Layout,
    /// By a list of its own.
    Listed(archive::Listed),
}

/// Takes in all that is at `path`, for a cache within `budget`, at the time `now`. `progress` is called after each image.
///
/// # Errors
/// See [`ImportError`].
pub fn import(
    storage: &Local,
    budget: Budget,
    path: &Path,
    rule: &ImportRule,
    now: SystemTime,
    progress: impl FnMut(&Imported, &str),
) -> Result<Imported, ImportError> {
    let source = Source::open(path, rule)?;
    let mut taker = Taker::new(storage, budget, &source, rule.audience, now)?;
    let taken = taker.take_all(progress);
    storage.note_change()?;
    taken
}

impl Source {
    fn open(path: &Path, rule: &ImportRule) -> Result<Self, ImportError> {
        if let Some(root) = distribution::root_of(path) {
            return Ok(Self {
                roots: distribution::roots(&root, rule)?,
                files: Files::directory(root),
                content: Content::Distribution,
            });
        }
        let files = Files::open(path).map_err(|source| ImportError::Source {
            path: path.to_owned(),
            source,
        })?;
        if let Some(index) = files.read("index.json")? {
            return Ok(Self {
                roots: layout::roots(&index, rule)?,
                files,
                content: Content::Layout,
            });
        }
        let Some(manifest) = files.read("manifest.json")? else {
            return Err(ImportError::Unknown(path.to_owned()));
        };
        let (roots, listed) = archive::read(&files, &manifest, rule)?;
        Ok(Self {
            files,
            roots,
            content: Content::Listed(listed),
        })
    }

    /// The content that is called `digest`; whether it is that shows when it is read.
    fn content(&self, digest: &Digest) -> Result<Option<files::Content>, ImportError> {
        let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
        let name = match &self.content {
            Content::Distribution => format!("blobs/{algorithm}/{}/{hex}/data", &hex[..2]),
            Content::Layout => format!("blobs/{algorithm}/{hex}"),
            Content::Listed(listed) => match listed.find(digest) {
                Some(archive::Place::File(name)) => name.clone(),
                Some(archive::Place::Made(bytes)) => {
                    return Ok(Some(files::Content::made(bytes.clone())));
                }
                None => return Ok(None),
            },
        };
        self.files.content(&name)
    }
}

impl Root {
    /// For people.
    fn name(&self) -> String {
        let Self {
            namespace,
            repository,
            manifest,
            ..
        } = self;
        match &self.tag {
            Some(tag) => format!("{namespace}/{repository}:{tag}"),
            None => format!("{namespace}/{repository}@{manifest}"),
        }
    }
}
