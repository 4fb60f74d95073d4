//! A registry's folder below `certs.d`: what is in it, and what has to change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::NodeError;
use super::change::Change;
use super::hosts::{self, Certificates};

/// What is in a folder, whether it exists or not.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) name: String,
    path: PathBuf,
    /// How many folders are missing, from itself up.
    missing: usize,
    /// The names of its files.
    files: Vec<String>,
    /// The text of `hosts.toml`.
    current: Option<String>,
    /// The text of its backup.
    backup: Option<String>,
}

/// The folders of `directory`, and those of `wanted` that it lacks; `_default` first.
pub(super) fn all(directory: &Path, wanted: &[String]) -> Result<Vec<Folder>, NodeError> {
    let mut names = Vec::new();
    for name in entries(directory)? {
        // Through links, as containerd does.
        if directory.join(&name).is_dir() {
            names.push(name);
        }
    }
    names.extend(wanted.iter().cloned());
    names.sort_by(|a, b| (a != hosts::DEFAULT, a).cmp(&(b != hosts::DEFAULT, b)));
    names.dedup();
    let mut folders = Vec::with_capacity(names.len());
    for name in names {
        folders.push(Folder::read(directory, name)?);
    }
    Ok(folders)
}

/// The folder that containerd takes for `registry`: the first there is of the one with underscores for colons, the one
/// of its name, and that for all.
pub(super) fn of_registry(directory: &Path, registry: &str) -> Result<Option<Folder>, NodeError> {
    let names = [
        registry.rsplit_once(':').map_or_else(
            || registry.to_owned(),
            |(host, port)| format!("{host}_{port}_"),
        ),
        registry.to_owned(),
        hosts::DEFAULT.to_owned(),
    ];
    let mut names = names.into_iter();
    let found = names.find(|name| directory.join(name).is_dir());
    found.map(|name| Folder::read(directory, name)).transpose()
}

impl Folder {
    fn read(directory: &Path, name: String) -> Result<Self, NodeError> {
        let path = directory.join(&name);
        Ok(Self {
            missing: path
                .ancestors()
                .take_while(|folder| !folder.exists())
                .count(),
            files: entries(&path)?,
            current: text(&path.join(hosts::FILE))?,
            backup: text(&path.join(hosts::BACKUP))?,
            name,
            path,
        })
    }

    /// What has to change so that the mirror comes first for this registry.
    pub(super) fn install(&self, mirror: &str) -> Result<Vec<Change>, NodeError> {
        let mut changes = Vec::new();
        let certificates = || Certificates::among(&self.files);
        let text = match (&self.current, &self.backup) {
            (Some(current), Some(theirs)) if hosts::is_ours(current) => {
                self.merged(mirror, theirs)?
            }
            (Some(ours), None) if hosts::is_ours(ours) => hosts::fresh(
                mirror,
                &self.name,
                &certificates(),
                hosts::folders_made(ours),
            ),
            (Some(theirs), _) => {
                if self.names(mirror, theirs)? {
                    return Ok(changes);
                }
                changes.push(Change::Keep {
                    file: self.file(),
                    backup: self.path.join(hosts::BACKUP),
                });
                self.merged(mirror, theirs)?
            }
            (None, Some(theirs)) => self.merged(mirror, theirs)?,
            (None, None) => {
                if self.missing > 0 {
                    changes.push(Change::Make(self.path.clone()));
                }
                hosts::fresh(mirror, &self.name, &certificates(), self.missing)
            }
        };
        if self.current.as_ref() != Some(&text) {
            let file = self.file();
            changes.push(Change::Write { file, text });
        }
        Ok(changes)
    }

    /// What has to change so that it is as it was before any install.
    pub(super) fn remove(&self) -> Vec<Change> {
        let backup = self.path.join(hosts::BACKUP);
        match (&self.current, &self.backup) {
            // Somebody put another file in the place of ours.
            (Some(current), Some(_)) if !hosts::is_ours(current) => vec![Change::Remove(backup)],
            (_, Some(_)) => vec![Change::Restore {
                backup,
                file: self.file(),
            }],
            (Some(ours), None) if hosts::is_ours(ours) => {
                let folders = self.path.ancestors().take(hosts::folders_made(ours));
                let folders = folders.map(|folder| Change::RemoveFolder(folder.to_owned()));
                [Change::Remove(self.file())]
                    .into_iter()
                    .chain(folders)
                    .collect()
            }
            (_, None) => Vec::new(),
        }
    }

    /// Why containerd does not ask the mirror for what has this folder.
    pub(super) fn problem(&self, mirror: &str) -> Option<String> {
        let file = self.file();
        match &self.current {
            None if self.name == hosts::DEFAULT => Some(format!("{} is missing", file.display())),
            None => Some(format!(
                "{} hides the mirror from {}, without a {}",
                self.path.display(),
                self.name,
                hosts::FILE
            )),
            Some(text) => match hosts::names(mirror, text) {
                Ok(true) => None,
                Ok(false) => Some(format!("{} does not name {mirror}", file.display())),
                Err(error) => Some(format!("{}: {error}", file.display())),
            },
        }
    }

    /// The first host of its file that content is pulled from.
    pub(super) fn asks_first(&self) -> Result<Option<String>, NodeError> {
        let Some(text) = &self.current else {
            return Ok(None);
        };
        hosts::first(text).map_err(|source| self.refused(source))
    }

    fn file(&self) -> PathBuf {
        self.path.join(hosts::FILE)
    }

    fn merged(&self, mirror: &str, theirs: &str) -> Result<String, NodeError> {
        hosts::merged(mirror, theirs).map_err(|source| self.refused(source))
    }

    fn names(&self, mirror: &str, theirs: &str) -> Result<bool, NodeError> {
        hosts::names(mirror, theirs).map_err(|source| self.refused(source))
    }

    fn refused(&self, source: hosts::HostsError) -> NodeError {
        NodeError::Hosts {
            file: self.file(),
            source,
        }
    }
}

/// The text of `file`, if there is one.
pub(super) fn text(file: &Path) -> Result<Option<String>, NodeError> {
    let failed = |source| NodeError::Read {
        path: file.to_owned(),
        source,
    };
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
        // A link to nowhere is not the same as no file.
        Ok(_) => fs::read_to_string(file).map(Some).map_err(failed),
    }
}

/// The names in `folder`; none where there is no such folder.
pub(super) fn entries(folder: &Path) -> Result<Vec<String>, NodeError> {
    let failed = |source| NodeError::Read {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        outcome => outcome.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is none of a registry.
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
