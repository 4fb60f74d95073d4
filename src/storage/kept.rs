//! Blobs that are asked for again and again stay open.
//!
//! To open a blob takes a thread that may block; to look at an open one takes a microsecond. What a look has to show is
//! the same: that nobody has written to it, and that it still has its name.

use std::fs::File;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use moka::sync::Cache;
use rustix::fs::{Stat, fstat};

use super::local::{Local, StoredBlob};
use crate::oci::Digest;

/// Most blobs that are kept open: an eighth of the 1024 descriptors a process has where nobody raised that.
const KEPT_MAX: u64 = 128;

/// The open ones, by digest.
#[derive(Debug)]
pub(super) struct Kept(Cache<Digest, StoredBlob, DefaultHashBuilder>);

impl Kept {
    /// None yet.
    pub(super) fn new() -> Self {
        let open = Cache::builder().max_capacity(KEPT_MAX);
        Self(open.build_with_hasher(DefaultHashBuilder::default()))
    }

    /// Closes the blob `digest`, once those who read it are done: as long as it is open, its room is taken.
    pub(super) fn let_go(&self, digest: &Digest) {
        self.0.invalidate(digest);
        self.0.run_pending_tasks();
    }
}

impl Local {
    /// The blob `digest` where it is open already, and as it was when it was verified. Does not block.
    pub fn kept_blob(&self, digest: &Digest) -> Option<StoredBlob> {
        let kept = self.kept.0.get(digest)?;
        let Some(stat) = self.looked_at(digest, &kept.file) else {
            self.kept.let_go(digest);
            return None;
        };
        Some(StoredBlob::new(kept.file, &stat, kept.audience))
    }

    /// Whether `file`, which the blob `digest` was opened as, is it still: as it was when it was verified, and in its place.
    /// Does not block.
    pub fn is_still(&self, digest: &Digest, file: &File) -> bool {
        self.looked_at(digest, file).is_some()
    }

    fn looked_at(&self, digest: &Digest, file: &File) -> Option<Stat> {
        let stat = fstat(file).ok()?;
        // A file without a name has been deleted, or another has taken its place.
        (stat.st_nlink > 0 && self.is_whole(&stat, digest)).then_some(stat)
    }

    /// Keeps `blob` open, as long as others are not asked for more.
    pub fn keep_open(&self, digest: &Digest, blob: &StoredBlob) {
        let kept = self.kept.0.get(digest);
        if kept.is_none_or(|kept| !Arc::ptr_eq(&kept.file, &blob.file)) {
            self.kept.0.insert(*digest, blob.clone());
        }
    }

    /// Closes what others have deleted, so that its room is free. Does not block.
    pub fn close_deleted(&self) {
        for (digest, _) in &self.kept.0 {
            // It is closed where it is not what it was.
            let _ = self.kept_blob(&digest);
        }
        self.kept.0.run_pending_tasks();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use bytes::Bytes;

    use super::*;
    use crate::oci::Algorithm;
    use crate::storage::{Audience, layout};

    struct Bench {
        directory: tempfile::TempDir,
        local: Local,
        digest: Digest,
    }

    impl Bench {
        /// A stored blob that is kept open.
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let local = Local::open(directory.path()).expect("writable");
            let content = Bytes::from_static(b"a layer");
            let digest = Digest::of(Algorithm::Sha256, &content);
            let ingest = local.ingest(&digest, None).expect("an ingest file");
            ingest.write_at(&[content], 0).expect("written");
            ingest.publish(Audience::Everybody).expect("published");
            assert!(local.kept_blob(&digest).is_none(), "nobody asked for it");
            let blob = local.blob(&digest).expect("readable").expect("stored");
            local.keep_open(&digest, &blob);
            let bench = Self {
                directory,
                local,
                digest,
            };
            assert!(bench.is_kept());
            bench
        }

        fn path(&self) -> PathBuf {
            let place = layout::blob(&self.digest, Audience::Everybody);
            self.directory.path().join(place.path())
        }

        fn is_kept(&self) -> bool {
            self.local.kept_blob(&self.digest).is_some()
        }

        /// How many descriptors of the process are of files that have no name any more, below the directory.
        fn deleted_and_open(&self) -> usize {
            let ours = self.directory.path().display().to_string();
            let open = fs::read_dir("/proc/self/fd").expect("Linux").flatten();
            let names = open.filter_map(|entry| fs::read_link(entry.path()).ok());
            let names = names.map(|name| name.display().to_string());
            names
                .filter(|name| name.starts_with(&ours) && name.ends_with("(deleted)"))
                .count()
        }
    }

    #[test]
    fn what_strangers_delete_replace_or_write_to_is_not_kept() {
        let bench = Bench::new();
        fs::remove_file(bench.path()).expect("deleted");
        assert!(!bench.is_kept());

        let bench = Bench::new();
        let other = bench.directory.path().join("other");
        fs::write(&other, "b layer").expect("written");
        fs::rename(other, bench.path()).expect("replaced");
        assert!(!bench.is_kept());

        let bench = Bench::new();
        fs::write(bench.path(), "b layer").expect("written");
        assert!(!bench.is_kept());
    }

    #[test]
    fn what_we_remove_is_closed_at_once() {
        let bench = Bench::new();
        bench.local.remove_blob(&bench.digest).expect("removed");
        assert_eq!(bench.deleted_and_open(), 0);

        let bench = Bench::new();
        let file = bench.local.kept_blob(&bench.digest).expect("kept").file;
        bench
            .local
            .discard(&bench.digest, &file)
            .expect("discarded");
        drop(file);
        assert_eq!(bench.deleted_and_open(), 0);
    }

    #[test]
    fn what_is_in_quarantine_is_not_kept_whoever_put_it_there() {
        let bench = Bench::new();
        let other = Local::open(bench.directory.path()).expect("writable");
        let file = fs::File::open(bench.path()).expect("there");
        let moved = other.quarantine(&bench.digest, Audience::Everybody, &file);
        assert!(moved.expect("moved"));
        assert!(!bench.is_kept());
    }

    #[test]
    fn what_others_have_deleted_is_closed_when_it_is_looked_for() {
        let bench = Bench::new();
        fs::remove_file(bench.path()).expect("deleted");
        assert_eq!(bench.deleted_and_open(), 1);
        bench.local.close_deleted();
        assert_eq!(bench.deleted_and_open(), 0);
    }
}
