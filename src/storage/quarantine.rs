//! What no longer hashes to its digest: out of the way at once, and kept for a look, within bounds.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, Dir, FileType, RenameFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, fstat,
    futimens, statat, unlinkat,
};
use rustix::io::{self, Errno};

use super::layout::{self, Audience};
use super::local::Local;
use super::{Error, Operation};
use crate::oci::Digest;

/// Most files that are kept: enough to see what a failing disk does to them.
const FILES_MAX: usize = 64;

/// Most bytes that are kept. No budget counts them, so they are few beside any disk that holds images.
const BYTES_MAX: u64 = 1 << 30;

/// Another modification time, and no other use.
const MODIFIED_NOW: Timestamps = Timestamps {
    last_access: Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    },
    last_modification: Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    },
};

impl Local {
    /// Takes the blob `digest` of one audience out of the way, as long as it is this `file`: what has taken its place
    /// meanwhile stays. Gives whether it went. The next caller has it fetched anew. Blocks.
    ///
    /// # Errors
    /// `Remove` when it is there and stays.
    pub fn quarantine(
        &self,
        digest: &Digest,
        audience: Audience,
        file: &File,
    ) -> Result<bool, Error> {
        let directory = self
            .claim_directory(&layout::quarantine_directory())
            .map_err(|error| Operation::Remove.failed(error))?;
        self.move_away(&directory, digest, audience, file)
            .and_then(|went| trim(&directory).map(|()| went))
            .map_err(|errno| Operation::Remove.failed(errno))
    }

    fn move_away(
        &self,
        directory: &OwnedFd,
        digest: &Digest,
        audience: Audience,
        file: &File,
    ) -> io::Result<bool> {
        let place = layout::blob(digest, audience).path();
        let name = layout::quarantined(digest, fastrand::u64(..));
        match rustix::fs::renameat(self.base(), &place, directory, &name) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        // Looked at afterwards, since nothing can come between then: a fill may just have brought the right bytes.
        let moved = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if identity(&moved) == identity(&fstat(file)?) {
            // Whoever has it open, in whatever process, finds the seal gone.
            futimens(file, &MODIFIED_NOW)?;
            self.kept.let_go(digest);
            return Ok(true);
        }
        let back = RenameFlags::NOREPLACE;
        if rustix::fs::renameat_with(directory, &name, self.base(), &place, back).is_err() {
            // There is another one already, or a file system that cannot do this: it costs a miss.
            unlinkat(directory, &name, AtFlags::empty())?;
        }
        Ok(false)
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Lets the oldest go where there is too much.
fn trim(directory: &OwnedFd) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_owned();
        let Ok(stat) = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            // Moving a file changes this time, and not that of its content.
            kept.push(((stat.st_ctime, stat.st_ctime_nsec), size, name));
        }
    }
    kept.sort_unstable_by(|a, b| b.cmp(a));
    let mut bytes = 0_u64;
    for (n, (_, size, name)) in kept.iter().enumerate() {
        bytes = bytes.saturating_add(*size);
        if n >= FILES_MAX || bytes > BYTES_MAX {
            match unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::*;
    use crate::oci::Algorithm;

    fn store(local: &Local, content: &'static [u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let ingest = local.ingest(&digest, None).expect("an ingest file");
        let chunks = [Bytes::from_static(content)];
        ingest.write_at(&chunks, 0).expect("written");
        ingest.publish(Audience::Everybody).expect("published");
        digest
    }

    fn n_kept(directory: &Path) -> usize {
        let directory = directory.join(layout::quarantine_directory().join("/"));
        std::fs::read_dir(directory).map_or(0, Iterator::count)
    }

    #[test]
    fn what_is_moved_away_is_missing_and_what_took_its_place_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = Local::open(directory.path()).expect("writable");
        let digest = store(&local, b"some bytes");
        let first = local.blob(&digest).expect("readable").expect("there").file;
        store(&local, b"some bytes");
        let quarantine = |file: &File| {
            let went = local.quarantine(&digest, Audience::Everybody, file);
            went.expect("it can be moved")
        };
        assert!(!quarantine(&first), "another one stands there");
        let second = local.blob(&digest).expect("readable").expect("there").file;
        assert_eq!(n_kept(directory.path()), 0);
        assert!(quarantine(&second));
        assert!(local.blob(&digest).expect("readable").is_none());
        assert_eq!(n_kept(directory.path()), 1);
        assert!(!quarantine(&second), "gone already");
    }

    #[test]
    fn no_more_is_kept_than_is_good_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = Local::open(directory.path()).expect("writable");
        for _ in 0..FILES_MAX + 3 {
            let digest = store(&local, b"some bytes");
            let file = local.blob(&digest).expect("readable").expect("there").file;
            let went = local.quarantine(&digest, Audience::Everybody, &file);
            assert!(went.expect("it can be moved"));
        }
        assert_eq!(n_kept(directory.path()), FILES_MAX);
        let digest = store(&local, b"some bytes");
        let file = local.blob(&digest).expect("readable").expect("there").file;
        let large = File::options().write(true).open(
            directory
                .path()
                .join(layout::blob(&digest, Audience::Everybody).path()),
        );
        large.expect("ours").set_len(BYTES_MAX + 1).expect("sparse");
        let went = local.quarantine(&digest, Audience::Everybody, &file);
        assert!(went.expect("it can be moved"));
        assert_eq!(n_kept(directory.path()), 0, "all together are too large");
    }
}
