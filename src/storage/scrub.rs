//! Reading what is stored once more, to see whether it still hashes to its digest.
//!
//! The [seal] shows that nobody wrote to a file; what a disk does to it by itself only its bytes show.

use std::fs::File;
use std::io::{self, Read as _};

use rustix::fs::{Advice, Stat};
use serde::{Deserialize, Serialize};

use super::layout::{self, Audience};
use super::local::{Local, VERIFY_BYTES};
use super::{Error, Operation, seal};
use crate::oci::{Digest, Hasher};

/// A stored blob that is being read once more, a piece at a time. Nobody who uses it notices, and it counts as no use.
#[derive(Debug)]
pub struct Rereading {
    local: Local,
    digest: Digest,
    audience: Audience,
    file: File,
    stat: Stat,
    hasher: Hasher,
    buffer: Vec<u8>,
}

/// What came of reading a piece.
#[derive(Debug)]
pub enum Reread {
    /// So many bytes were read, and there may be more.
    Piece(u64),
    /// That was all, and it is what it is called.
    Right,
    /// That was all, and it is not: it is in quarantine, unless something else has taken its place meanwhile.
    Wrong,
}

/// How far a scrub has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubPosition {
    /// The part that was read last, by the first byte of the digests in it.
    pub part: u8,
    /// When it was begun, in seconds since 1970.
    pub begun: u64,
}

impl Local {
    /// The blob `digest` of one audience, to be read once more; `None` where it is gone. Blocks.
    ///
    /// # Errors
    /// `Open` when it is there but cannot be opened.
    pub fn reread(&self, digest: &Digest, audience: Audience) -> Result<Option<Rereading>, Error> {
        let place = layout::blob(digest, audience);
        let Some((file, stat)) = self.open_unnoticed(&place)? else {
            return Ok(None);
        };
        // Not to push out of memory what clients are sent. It is only advice.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::NoReuse);
        Ok(Some(Rereading {
            local: self.clone(),
            digest: *digest,
            audience,
            file,
            stat,
            hasher: Hasher::new(digest.algorithm()),
            buffer: vec![0; VERIFY_BYTES],
        }))
    }

    /// How far the last scrub of this directory came; `None` where nobody knows. Blocks.
    ///
    /// # Errors
    /// `Open` or `Read` when that is there but cannot be read.
    pub fn scrub_position(&self) -> Result<Option<ScrubPosition>, Error> {
        let record = self.record_at(&layout::scrub_position())?;
        Ok(record.and_then(|content| serde_json::from_slice(&content).ok()))
    }

    /// Remembers how far a scrub has come. Blocks.
    ///
    /// # Errors
    /// The step that failed; what was remembered before is then as it was.
    pub fn keep_scrub_position(&self, position: ScrubPosition) -> Result<(), Error> {
        // Two numbers always serialise; an empty record reads as none.
        let content = serde_json::to_vec(&position).unwrap_or_default();
        self.write_record_at(layout::scrub_position(), &content)
    }
}

impl Rereading {
    /// Reads the next piece. What cannot be read is as good as wrong. Blocks.
    ///
    /// # Errors
    /// `Remove` when it is wrong and stays where it is.
    pub fn step(&mut self) -> Result<Reread, Error> {
        match self.file.read(&mut self.buffer) {
            Ok(0) => {}
            Ok(read) => {
                self.hasher.update(&self.buffer[..read]);
                return Ok(Reread::Piece(read as u64));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return Ok(Reread::Piece(0));
            }
            Err(error) => {
                let error = Operation::Read.failed(error);
                tracing::warn!(digest = %self.digest, cause = %error.cause, "a stored blob cannot be read");
                return self.quarantine();
            }
        }
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(self.digest.algorithm()));
        if hasher.finish() != self.digest {
            return self.quarantine();
        }
        if !self.local.is_whole(&self.stat, &self.digest) {
            // A copy, say. It need not be verified again when somebody asks for it; where it cannot be sealed, it is.
            let _ = seal::seal(&self.file, &self.digest);
        }
        Ok(Reread::Right)
    }

    fn quarantine(&self) -> Result<Reread, Error> {
        let (digest, audience) = (&self.digest, self.audience);
        let moved = self.local.quarantine(digest, audience, &self.file)?;
        tracing::warn!(%digest, bytes = self.stat.st_size, moved, "a stored blob has other bytes than it had");
        Ok(Reread::Wrong)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use bytes::Bytes;
    use rustix::fs::Timestamps;

    use super::*;
    use crate::oci::Algorithm;
    use crate::storage::LastUse;

    fn store(local: &Local, content: &[u8], audience: Audience) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let ingest = local.ingest(&digest, None).expect("an ingest file");
        let chunks = [Bytes::copy_from_slice(content)];
        ingest.write_at(&chunks, 0).expect("written");
        ingest.publish(audience).expect("published");
        digest
    }

    /// Reads the whole blob; gives its bytes, and whether it is right.
    fn reread(local: &Local, digest: &Digest, audience: Audience) -> (u64, bool) {
        let found = local.reread(digest, audience).expect("it can be opened");
        let (mut rereading, mut bytes) = (found.expect("it is there"), 0);
        loop {
            match rereading.step().expect("it can be moved") {
                Reread::Piece(read) => bytes += read,
                Reread::Right => return (bytes, true),
                Reread::Wrong => return (bytes, false),
            }
        }
    }

    #[test]
    fn what_is_right_stays_and_counts_as_not_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = Local::open(directory.path()).expect("writable");
        let content = vec![7; VERIFY_BYTES + 1];
        for audience in Audience::ALL {
            let digest = store(&local, &content, audience);
            let blob = local.blob(&digest).expect("readable").expect("there");
            let last_use = LastUse { at: 1_000, note: 5 };
            local.touch(&blob, last_use).expect("ours");
            assert_eq!(
                reread(&local, &digest, audience),
                (content.len() as u64, true)
            );
            let blob = local.blob(&digest).expect("readable").expect("there");
            assert_eq!(blob.last_use, last_use);
            local.remove_blob(&digest).expect("removed");
        }
    }

    #[test]
    fn a_bit_that_flipped_by_itself_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = Local::open(directory.path()).expect("writable");
        for audience in Audience::ALL {
            let digest = store(&local, b"some bytes", audience);
            let path = directory
                .path()
                .join(layout::blob(&digest, audience).path());
            let file = File::options().write(true).open(&path).expect("ours");
            let before = rustix::fs::fstat(&file).expect("known");
            file.write_all_at(b"S", 0).expect("written");
            let times = Timestamps {
                last_access: rustix::fs::Timespec {
                    tv_sec: before.st_atime,
                    tv_nsec: 0,
                },
                last_modification: rustix::fs::Timespec {
                    tv_sec: before.st_mtime,
                    tv_nsec: i64::try_from(before.st_mtime_nsec).expect("nanoseconds"),
                },
            };
            rustix::fs::futimens(&file, &times).expect("ours");
            assert!(
                local.blob(&digest).expect("readable").is_some(),
                "the seal does not show it"
            );
            assert!(!reread(&local, &digest, audience).1);
            assert!(local.blob(&digest).expect("readable").is_none());
            assert!(local.reread(&digest, audience).expect("no error").is_none());
        }
    }

    #[test]
    fn a_copy_is_sealed_once_it_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = Local::open(directory.path()).expect("writable");
        let digest = store(&local, b"some bytes", Audience::Everybody);
        let path = layout::blob(&digest, Audience::Everybody).path();
        let file = File::open(directory.path().join(path)).expect("there");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .expect("ours");
        assert!(local.blob(&digest).expect("readable").is_none());
        assert!(reread(&local, &digest, Audience::Everybody).1);
        assert!(local.blob(&digest).expect("readable").is_some());
    }

    #[test]
    fn how_far_it_came_is_remembered() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = Local::open(directory.path()).expect("writable");
        assert_eq!(local.scrub_position().expect("readable"), None);
        let position = ScrubPosition {
            part: 200,
            begun: 1_000,
        };
        local.keep_scrub_position(position).expect("written");
        assert_eq!(local.scrub_position().expect("readable"), Some(position));
        let path = directory.path().join(layout::scrub_position().path());
        std::fs::write(path, b"{").expect("written");
        assert_eq!(local.scrub_position().expect("readable"), None);
    }
}
