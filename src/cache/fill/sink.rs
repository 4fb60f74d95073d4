//! Where the bytes go: into the file, wherever they belong, and through the hash, front to back.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use bytes::Bytes;

use crate::oci::{Algorithm, Digest, Hasher};
use crate::storage::{self, Audience, Ingest, Operation};

/// How many bytes are read back for hashing at once. They were written moments ago, so they are in memory.
const READ_BACK_BYTES: usize = 1024 * 1024;

/// The ingest file of a fill, and the digest of its front. Every call blocks but [`Sink::hash`].
#[derive(Debug)]
pub(super) struct Sink {
    ingest: Ingest,
    front: Mutex<Front>,
}

/// How far the hash has come.
#[derive(Debug)]
struct Front {
    hasher: Hasher,
    at: u64,
}

impl Sink {
    /// A sink that has taken in nothing.
    pub(super) fn new(ingest: Ingest, algorithm: Algorithm) -> Self {
        let front = Front {
            hasher: Hasher::new(algorithm),
            at: 0,
        };
        Self {
            ingest,
            front: Mutex::new(front),
        }
    }

    /// The file.
    pub(super) fn file(&self) -> &Arc<File> {
        self.ingest.file()
    }

    /// Writes `chunks` at `offset`.
    ///
    /// # Errors
    /// `Write`, when the disk does not take them.
    pub(super) fn write(&self, chunks: &[Bytes], offset: u64) -> Result<(), storage::Error> {
        self.ingest.write_at(chunks, offset)
    }

    /// Hashes `chunks`, which belong at `offset`, if they are the next the hash needs. Does not block: while somebody
    /// else hashes, they will be caught up with.
    pub(super) fn hash(&self, chunks: &[Bytes], offset: u64) {
        let Some(mut front) = self.try_front() else {
            return;
        };
        if front.at == offset {
            for chunk in chunks {
                front.hasher.update(chunk);
                front.at += chunk.len() as u64;
            }
        }
    }

    /// Lets the hash follow over what was written out of order; `present` says up to where bytes are there from an
    /// offset on. Nobody waits for somebody else's hashing: whoever hashes catches up.
    ///
    /// # Errors
    /// `Read`, when the disk does not give back what it took.
    pub(super) fn catch_up(&self, present: impl Fn(u64) -> u64) -> Result<(), storage::Error> {
        let Some(mut front) = self.try_front() else {
            return Ok(());
        };
        // Only some at a time, so that this never holds up the bytes that come in meanwhile for long.
        let end = present(front.at).min(front.at + READ_BACK_BYTES as u64);
        front.catch_up(self.file(), end)
    }

    /// The front, unless somebody is at work on it.
    fn try_front(&self) -> Option<MutexGuard<'_, Front>> {
        match self.front.try_lock() {
            Ok(front) => Some(front),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        }
    }

    /// The digest of the first `size` bytes, all of which are there.
    ///
    /// # Errors
    /// `Read`, when the disk does not give back what it took.
    pub(super) fn digest(&self, size: u64) -> Result<Digest, storage::Error> {
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        front.catch_up(self.file(), size)?;
        Ok(front.hasher.clone().finish())
    }

    /// Makes the content durable and gives it its final name, as that of `audience`.
    ///
    /// # Errors
    /// `Publish`; nothing is then there that was not before.
    pub(super) fn publish(&self, audience: Audience) -> Result<(), storage::Error> {
        self.ingest.publish(audience)
    }
}

impl Front {
    fn catch_up(&mut self, file: &File, end: u64) -> Result<(), storage::Error> {
        if self.at >= end {
            return Ok(());
        }
        let mut buffer = vec![0; READ_BACK_BYTES];
        while self.at < end {
            let length = usize::try_from(end - self.at).unwrap_or(READ_BACK_BYTES);
            let wanted = &mut buffer[..length.min(READ_BACK_BYTES)];
            file.read_exact_at(wanted, self.at)
                .map_err(|error| Operation::Read.failed(error))?;
            self.hasher.update(wanted);
            self.at += wanted.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Local;

    #[test]
    fn the_digest_is_right_whatever_order_the_bytes_came_in() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let local = Local::open(directory.path()).expect("a writable directory");
        let content: Vec<u8> = (0..5_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let content = Bytes::from(content);
        let digest = Digest::of(Algorithm::Sha256, &content);
        let size = content.len() as u64;
        let ingest = local.ingest(&digest, Some(size)).expect("an ingest file");
        let sink = Sink::new(ingest, Algorithm::Sha256);
        let mut present = crate::cache::fill::extents::Extents::default();
        for range in [
            4_000_000..5_000_000,
            0..10,
            10..1_000_000,
            1_000_000..4_000_000,
        ] {
            let chunks = [content.slice(range.clone())];
            sink.hash(&chunks, range.start as u64);
            sink.write(&chunks, range.start as u64).expect("written");
            present.insert(range.start as u64..range.end as u64);
            sink.catch_up(|at| present.end_from(at)).expect("read back");
        }
        assert_eq!(sink.digest(size).expect("read back"), digest);
        sink.publish(Audience::Everybody).expect("published");
        assert!(local.blob(&digest).expect("readable").is_some());
    }
}
