//! The directory of a registry, or a mirror, made of distribution: `docker/registry/v2`.
//!
//! ```text
//! blobs/<algorithm>/<2 hex>/<hex>/data
//! repositories/<name>/_manifests/revisions/<algorithm>/<hex>/link
//! repositories/<name>/_manifests/tags/<tag>/current/link
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{ImportError, ImportRule, Root};
use crate::oci::{Digest, Namespace, RepositoryName};

/// Where it begins, below what its operator calls the root directory.
const BELOW: &str = "docker/registry/v2";

/// How many parts a name of a repository may have.
const PARTS_MAX: usize = 32;

/// The part of `path` that is laid out so, if there is one.
pub(super) fn root_of(path: &Path) -> Option<PathBuf> {
    let candidates = [path.join(BELOW), path.to_owned()];
    candidates
        .into_iter()
        .find(|root| root.join("blobs").is_dir() && root.join("repositories").is_dir())
}

/// What its repositories have.
pub(super) fn roots(root: &Path, rule: &ImportRule) -> Result<Vec<Root>, ImportError> {
    let namespace = rule.namespace.clone().ok_or(ImportError::NoNamespace)?;
    let mut roots = Vec::new();
    let mut folders = vec![(root.join("repositories"), Vec::new())];
    while let Some((folder, parts)) = folders.pop() {
        for name in names_in(&folder)? {
            let path = folder.join(&name);
            if name == "_manifests" {
                let repository: Result<RepositoryName, _> = parts.join("/").parse();
                // What is no name cannot be asked for.
                if let Ok(repository) = repository
                    && rule
                        .repository
                        .as_ref()
                        .is_none_or(|only| *only == repository)
                {
                    manifests(&path, &namespace, &repository, &mut roots)?;
                }
            } else if !name.starts_with('_') && parts.len() < PARTS_MAX && path.is_dir() {
                let parts = parts.iter().cloned().chain([name]).collect();
                folders.push((path, parts));
            }
        }
    }
    Ok(roots)
}

/// The manifests of one repository: each tag, and what has none.
fn manifests(
    folder: &Path,
    namespace: &Namespace,
    repository: &RepositoryName,
    roots: &mut Vec<Root>,
) -> Result<(), ImportError> {
    let root = |tag, manifest| Root {
        namespace: namespace.clone(),
        repository: repository.clone(),
        tag,
        manifest,
        media_type: None,
    };
    let tags = folder.join("tags");
    for name in names_in(&tags)? {
        let link = read_link(&tags.join(&name).join("current/link"))?;
        if let (Ok(tag), Some(manifest)) = (name.parse(), link) {
            roots.push(root(Some(tag), manifest));
        }
    }
    let revisions = folder.join("revisions");
    for algorithm in names_in(&revisions)? {
        let folder = revisions.join(&algorithm);
        for hex in names_in(&folder)? {
            if let Some(manifest) = read_link(&folder.join(&hex).join("link"))? {
                roots.push(root(None, manifest));
            }
        }
    }
    Ok(())
}

/// The names in a directory, which need not be there, in order.
fn names_in(folder: &Path) -> Result<Vec<String>, ImportError> {
    let failed = |source| ImportError::Source {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        // A name of another kind is none of a repository, a tag or a digest.
        names.extend(name.into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// The digest that a link holds. One that is missing or damaged leads nowhere.
fn read_link(path: &Path) -> Result<Option<Digest>, ImportError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidData
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(ImportError::Source {
            path: path.to_owned(),
            source,
        }),
    }
}
