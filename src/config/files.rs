//! Which files a configuration was read from, and what was in them: what to look at to know whether it has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::file::{Access, FileError, read_bytes, text_of};
use crate::oci::{Algorithm, Digest};

/// The files a configuration was read from. Holds none of their contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, State>);

/// What was found at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing that can be read.
    Nothing,
    /// A file with this content.
    Content {
        digest: Digest,
        bytes: usize,
        access: Access,
    },
}

impl State {
    fn of(read: &Result<(Vec<u8>, Access), FileError>) -> Self {
        match read {
            Ok((bytes, access)) => Self::Content {
                digest: Digest::of(Algorithm::Sha256, bytes),
                bytes: bytes.len(),
                access: *access,
            },
            Err(_) => Self::Nothing,
        }
    }

    const fn is_empty(self) -> bool {
        matches!(self, Self::Content { bytes: 0, .. })
    }
}

impl Files {
    /// Reads a file and takes down what is in it.
    pub(super) fn read_bytes(&mut self, path: &Path) -> Result<(Vec<u8>, Access), FileError> {
        let read = read_bytes(path);
        self.0.insert(path.to_owned(), State::of(&read));
        read
    }

    /// Reads a file of text and takes down what is in it.
    pub(super) fn read_text(&mut self, path: &Path) -> Result<(String, Access), FileError> {
        let (bytes, access) = self.read_bytes(path)?;
        Ok((text_of(bytes)?, access))
    }

    /// Whether any of them holds something else by now, may be read by others, or is there no more. Blocks.
    pub fn have_changed(&self) -> bool {
        let mut files = self.0.iter();
        files.any(|(path, state)| State::of(&read_bytes(path)) != *state)
    }

    /// A file that holds nothing, where `before` it held something: whoever writes a file may empty it first.
    pub fn emptied_since(&self, before: &Self) -> Option<&Path> {
        let emptied = self.0.iter().find(|(path, state)| {
            let before = before.0.get(*path);
            state.is_empty() && before.is_some_and(|before| !before.is_empty())
        });
        emptied.map(|(path, _)| path.as_path())
    }

    /// The directories in which something happens when one of them is replaced: those that their paths name, and those
    /// that links in the place of the files lead to. A Kubernetes volume replaces a link beside the files (`..data`).
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        let parents = self.0.keys().flat_map(|path| {
            let real = path.canonicalize().ok();
            [Some(parent(path)), real.as_deref().map(parent)]
        });
        parents.flatten().collect()
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn read(path: &Path) -> Files {
        let mut files = Files::default();
        let _ = files.read_text(path);
        files
    }

    #[test]
    fn what_is_written_again_has_not_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.yaml");
        let missing = read(&path);
        assert!(!missing.have_changed());
        fs::write(&path, "a").expect("written");
        assert!(missing.have_changed());
        let files = read(&path);
        fs::write(&path, "a").expect("written");
        assert!(!files.have_changed());
        fs::write(&path, "b").expect("written");
        assert!(files.have_changed());
        fs::write(&path, "a").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
        assert!(files.have_changed(), "fewer may read it");
        fs::remove_file(&path).expect("removed");
        assert!(read(&path) != files && files.have_changed());
    }

    #[test]
    fn a_file_that_is_being_written_is_empty_at_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.yaml");
        fs::write(&path, "a").expect("written");
        let before = read(&path);
        fs::write(&path, "").expect("written");
        assert_eq!(read(&path).emptied_since(&before), Some(&*path));
        assert_eq!(read(&path).emptied_since(&read(&path)), None);
        assert_eq!(read(&path).emptied_since(&Files::default()), None);
        assert_eq!(before.emptied_since(&read(&path)), None);
    }

    #[test]
    fn links_are_followed_to_the_directories_on_both_sides() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("there");
        fs::create_dir(root.join("..1")).expect("made");
        fs::write(root.join("..1/a.yaml"), "a").expect("written");
        symlink("..1", root.join("..data")).expect("linked");
        symlink("..data/a.yaml", root.join("a.yaml")).expect("linked");
        let directories = read(&root.join("a.yaml")).directories();
        assert_eq!(directories, [root.clone(), root.join("..1")].into());
        assert_eq!(parent(Path::new("a.yaml")), Path::new("."));
    }
}
