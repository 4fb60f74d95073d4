//! Whether a file is still the one that was read, without reading it again.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What tells one version of a file from the next. The time of the last change is in it because a file may be replaced
/// by one of the same size and the same time of modification, as by `cp -p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of the file at `path`, which may be a link to it; `None` where it cannot be looked at, as between the two
    /// steps of a careless replacement. Blocks.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_by_one_that_looks_the_same_is_another() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key.pem");
        assert_eq!(Stamp::of(&path), None);
        fs::write(&path, "one").expect("written");
        let before = Stamp::of(&path);
        assert!(before.is_some());
        assert_eq!(Stamp::of(&path), before);
        let modified = fs::metadata(&path).and_then(|it| it.modified());
        let other = directory.path().join("other");
        fs::write(&other, "two").expect("written");
        let file = fs::File::options().write(true).open(&other);
        let file = file.expect("opened");
        file.set_modified(modified.expect("a time")).expect("set");
        fs::rename(other, &path).expect("replaced");
        assert_ne!(Stamp::of(&path), before);
    }
}
