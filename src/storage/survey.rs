//! What lies in the directory: for those who keep it small, part by part. Every call blocks.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::str;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, StatVfs, Timespec, Timestamps, UTIME_NOW, openat,
    statat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::layout::{self, Audience, Place, RecordKind};
use super::local::Local;
use super::seal::{self, LastUse};
use super::{Error, Operation};
use crate::oci::{Algorithm, Digest};

/// The two hex digits by which blobs and records lie in directories.
pub const SHARDS: std::ops::RangeInclusive<u8> = 0..=u8::MAX;

/// A file that is called like a blob. Whether it is one shows when it is opened.
#[derive(Debug, Clone, Copy)]
pub struct ListedBlob {
    /// What it is called.
    pub digest: Digest,
    /// How large it is, in bytes.
    pub size: u64,
    /// When it was last used.
    pub last_use: LastUse,
}

/// The room on the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What is in use and what we may still use, in bytes: without what is held back for root, as `df` counts. So a
    /// share of it is a share of what can ever be filled.
    pub total: u64,
    /// What we may still use, in bytes.
    pub available: u64,
}

impl Space {
    fn of(room: &StatVfs) -> Self {
        let used = room.f_blocks.saturating_sub(room.f_bfree);
        let usable = used.saturating_add(room.f_bavail);
        Self {
            total: usable.saturating_mul(room.f_frsize),
            available: room.f_bavail.saturating_mul(room.f_frsize),
        }
    }
}

/// How much there may be of the records of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordsMost {
    /// How many.
    pub records: usize,
    /// What they take on disk together, in bytes.
    pub bytes: u64,
}

/// What became of the records of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// How many there are now.
    pub left: usize,
    /// How many went.
    pub gone: usize,
}

impl Local {
    /// The room on the file system of the directory.
    ///
    /// # Errors
    /// `Open` when the file system does not say.
    pub fn space(&self) -> Result<Space, Error> {
        rustix::fs::fstatvfs(self.base())
            .map(|room| Space::of(&room))
            .map_err(|errno| Operation::Open.failed(errno))
    }

    /// The blobs of one shard. What is no file of ours, or not called like a blob, is left out.
    ///
    /// # Errors
    /// `Open` when the directory is there and cannot be listed.
    pub fn blobs_in(
        &self,
        audience: Audience,
        algorithm: Algorithm,
        shard: u8,
    ) -> Result<Vec<ListedBlob>, Error> {
        let mut found = Vec::new();
        self.each_file(
            &layout::blob_shard(audience, algorithm, shard),
            |name, stat| {
                let digest = format!("{}:{name}", algorithm.as_str()).parse::<Digest>();
                // A blob in the shard of others is never looked for there.
                if let Ok(digest) = digest
                    && digest.as_bytes().first() == Some(&shard)
                {
                    found.push(ListedBlob {
                        digest,
                        size: size_of(stat),
                        last_use: seal::last_use(stat),
                    });
                }
            },
        )?;
        Ok(found)
    }

    /// The content of a blob of at most `bytes_max`, without a use of it. Whether it is right is for the caller to see.
    ///
    /// # Errors
    /// `Open` or `Read` when it is there but cannot be read.
    pub fn small_blob(&self, digest: &Digest, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
        for audience in Audience::ALL {
            let opened = self.open_unnoticed(&layout::blob(digest, audience))?;
            let Some((file, _)) = opened.filter(|(_, stat)| size_of(stat) <= bytes_max) else {
                continue;
            };
            let mut content = Vec::new();
            file.take(bytes_max)
                .read_to_end(&mut content)
                .map_err(|error| Operation::Read.failed(error))?;
            return Ok(Some(content));
        }
        Ok(None)
    }

    /// The content of the records of one kind in one shard. What they say is for the caller to check.
    ///
    /// # Errors
    /// `Open` or `Read` when something is there and cannot be read.
    pub fn records_in(&self, kind: RecordKind, shard: u8) -> Result<Vec<Vec<u8>>, Error> {
        let place = layout::record_shard(kind, shard);
        let mut names = Vec::new();
        self.each_file(&place, |name, _| names.push(name.to_owned()))?;
        let directory: Vec<String> = place.split('/').map(str::to_owned).collect();
        let mut contents = Vec::new();
        for file in names {
            let directory = directory.clone();
            contents.extend(self.record_at(&Place { directory, file })?);
        }
        Ok(contents)
    }

    /// Tells a mirror that runs beside that there is more or less in the directory than it knows of: it looks through
    /// it within a minute.
    ///
    /// # Errors
    /// `Touch` when the file system does not take it.
    pub fn note_change(&self) -> Result<(), Error> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        utimensat(
            self.base(),
            layout::VERSION,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|errno| Operation::Touch.failed(errno))
    }

    /// When that was last said, as some number; `None` where nobody knows.
    pub fn changed(&self) -> Option<(i64, i64)> {
        let stat = statat(self.base(), layout::VERSION, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_mtime, i64::try_from(stat.st_mtime_nsec).ok()?))
    }

    /// Removes the blob `digest`, whosever it is. Gives whether there was one.
    ///
    /// # Errors
    /// `Remove` when it is there and stays.
    pub fn remove_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let mut was_there = false;
        for audience in Audience::ALL {
            let path = layout::blob(digest, audience).path();
            match unlinkat(self.base(), path, AtFlags::empty()) {
                Ok(()) => was_there = true,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR) => {}
                Err(errno) => return Err(Operation::Remove.failed(errno)),
            }
        }
        self.kept.let_go(digest);
        Ok(was_there)
    }

    /// Leaves the newest records of one kind in one shard, as many as there may be at `most`.
    ///
    /// # Errors
    /// `Open` when the directory is there and cannot be listed; `Remove` when a record stays that should go.
    pub fn trim_records(
        &self,
        kind: RecordKind,
        shard: u8,
        most: RecordsMost,
    ) -> Result<Trimmed, Error> {
        let place = layout::record_shard(kind, shard);
        let mut records = Vec::new();
        let directory = self.each_file(&place, |name, stat| {
            records.push((stat.st_mtime, name.to_owned(), bytes_on_disk(stat)));
        })?;
        // The newest first.
        records.sort_unstable_by(|a, b| b.cmp(a));
        let mut bytes = 0_u64;
        let fitting = records.iter().take(most.records).take_while(|record| {
            bytes = bytes.saturating_add(record.2);
            bytes <= most.bytes
        });
        let gone = records.split_off(fitting.count());
        let trimmed = Trimmed {
            left: records.len(),
            gone: gone.len(),
        };
        let Some(directory) = directory.filter(|_| !gone.is_empty()) else {
            return Ok(trimmed);
        };
        for (_, name, _) in &gone {
            match unlinkat(&directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(Operation::Remove.failed(errno)),
            }
        }
        Ok(trimmed)
    }

    /// Calls `found` for every regular file of a directory, which need not be there, and gives the directory.
    fn each_file(
        &self,
        place: &str,
        mut found: impl FnMut(&str, &Stat),
    ) -> Result<Option<OwnedFd>, Error> {
        let failed = |error: io::Error| Operation::Open.failed(error);
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = match openat(self.base(), place, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(failed(errno.into())),
        };
        for entry in Dir::read_from(&directory).map_err(|errno| failed(errno.into()))? {
            let entry = entry.map_err(|errno| failed(errno.into()))?;
            let Ok(name) = str::from_utf8(entry.file_name().to_bytes()) else {
                continue;
            };
            // Whatever goes meanwhile is not there.
            if let Ok(stat) = statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            {
                found(name, &stat);
            }
        }
        Ok(Some(directory))
    }
}

fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// What a file takes on disk. A file system that keeps small files elsewhere says that they take no blocks.
fn bytes_on_disk(stat: &Stat) -> u64 {
    /// The unit of `st_blocks`, whatever the blocks of the file system are: stat(2).
    const BLOCK_BYTES: u64 = 512;
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    size_of(stat).max(blocks.saturating_mul(BLOCK_BYTES))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use bytes::Bytes;

    use super::*;

    fn store(local: &Local, content: &'static [u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let ingest = local.ingest(&digest, None).expect("an ingest file");
        let chunks = [Bytes::from_static(content)];
        ingest.write_at(&chunks, 0).expect("written");
        ingest.publish(Audience::Everybody).expect("published");
        digest
    }

    fn all_blobs(local: &Local) -> Vec<ListedBlob> {
        let list = |shard| {
            local
                .blobs_in(Audience::Everybody, Algorithm::Sha256, shard)
                .expect("it can be listed")
        };
        SHARDS.flat_map(list).collect()
    }

    #[test]
    fn blobs_are_listed_with_what_is_known_of_them_and_strangers_files_are_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = Local::open(directory.path()).expect("writable");
        let digest = store(&local, b"some bytes");
        let blob = local.blob(&digest).expect("readable").expect("there");
        let last_use = LastUse {
            at: 1_000_000,
            note: 5,
        };
        local.touch(&blob, last_use).expect("it is ours");
        let shard = directory
            .path()
            .join(layout::blob(&digest, Audience::Everybody).path());
        let shard = shard.parent().expect("a directory");
        fs::write(shard.join("notes.txt"), b"x").expect("written");
        fs::write(shard.join("0".repeat(64)), b"in the wrong shard").expect("written");
        let mut name = digest.hex();
        name.replace_range(62.., "zz");
        fs::write(shard.join(name), b"no hex").expect("written");
        let mut name = digest.hex();
        name.replace_range(60.., "0000");
        symlink("/etc/passwd", shard.join(&name)).expect("linked");
        let found = all_blobs(&local);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].digest, found[0].size), (digest, 10));
        assert_eq!(found[0].last_use, last_use);
        let blob = local.blob(&digest).expect("readable");
        assert!(blob.is_some(), "the seal is what it was");
        assert!(local.remove_blob(&digest).expect("removed"));
        assert!(!local.remove_blob(&digest).expect("gone"));
        assert!(all_blobs(&local).is_empty());
    }

    #[test]
    fn the_oldest_records_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = Local::open(directory.path()).expect("writable");
        let shelf = directory
            .path()
            .join(layout::record_shard(RecordKind::Tag, 7));
        let trim = |records| {
            let most = RecordsMost {
                records,
                bytes: u64::MAX,
            };
            let trimmed = local.trim_records(RecordKind::Tag, 7, most);
            let Trimmed { left, gone } = trimmed.expect("trimmed");
            (left, gone)
        };
        assert_eq!(trim(3), (0, 0), "a directory that is not there has none");
        fs::create_dir_all(&shelf).expect("made");
        for n in 0..10_u64 {
            let file = fs::File::create(shelf.join(format!("{n}.json"))).expect("made");
            let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 * n);
            file.set_modified(then).expect("set");
        }
        assert_eq!(trim(20), (10, 0));
        assert_eq!(trim(3), (3, 7));
        for n in 0..10_u64 {
            let is_there = shelf.join(format!("{n}.json")).exists();
            assert_eq!(is_there, n >= 7, "{n}");
        }
    }

    #[test]
    fn the_oldest_records_go_where_they_take_too_much() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = Local::open(directory.path()).expect("writable");
        let shelf = directory
            .path()
            .join(layout::record_shard(RecordKind::List, 7));
        fs::create_dir_all(&shelf).expect("made");
        let large = vec![b' '; 48 * 1024];
        for n in 0..10_u64 {
            let path = shelf.join(format!("{n}.json"));
            fs::write(&path, &large).expect("written");
            let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 * n);
            let file = fs::File::options().append(true).open(path).expect("there");
            file.set_modified(then).expect("set");
        }
        let trim = |bytes| {
            let records = 100;
            local
                .trim_records(RecordKind::List, 7, RecordsMost { records, bytes })
                .expect("trimmed")
        };
        // Whatever a block is: three fit, and four do not.
        assert_eq!(trim(10 * 64 * 1024), Trimmed { left: 10, gone: 0 });
        assert_eq!(trim(190 * 1024), Trimmed { left: 3, gone: 7 });
        for n in 0..10_u64 {
            let is_there = shelf.join(format!("{n}.json")).exists();
            assert_eq!(is_there, n >= 7, "{n}");
        }
        assert_eq!(trim(0), Trimmed { left: 0, gone: 3 });
    }

    /// What is held back (root's part, or what a host promises to many) can never be filled by us, so that counting it
    /// would have a disk look full that is not.
    #[test]
    fn room_that_is_held_back_does_not_count() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut room = rustix::fs::statvfs(directory.path()).expect("known");
        (room.f_frsize, room.f_blocks) = (4096, 1000);
        (room.f_bfree, room.f_bavail) = (700, 300);
        let space = Space::of(&room);
        assert_eq!(space.total, 600 * 4096);
        assert_eq!(space.available, 300 * 4096);
    }
}
