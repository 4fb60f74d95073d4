//! A blob straight from upstream to one reader, for as long as storage is failing.
//!
//! The rule of the fill holds here, too: a reader of the whole blob gets its end only when the digest is right.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::fill::WITHHELD_BYTES;
use super::reader::{ReadError, Unfinished};
use crate::oci::{Digest, Hasher};
use crate::upstream::{self, BlobStream, Extent, Repository};

/// How many bytes are read at once of a file that is hashed.
const READ_BYTES: u64 = 64 * 1024;

/// A connection of one reader's own.
#[derive(Debug)]
pub(super) struct Through {
    stream: BlobStream,
    /// How many bytes of the stream lie before those the reader wants.
    skip: u64,
    /// What the whole blob hashes to so far; `None` for a reader of a part, and when the digest was right.
    unverified: Option<Hasher>,
    digest: Digest,
    /// What came and waits for the digest.
    held: VecDeque<Bytes>,
    held_bytes: u64,
}

impl Through {
    /// Opens the blob at `at`. For a reader of the whole blob `unverified` has taken in the bytes before that; a
    /// reader of a part passes `None`.
    pub(super) async fn open(
        source: &Repository,
        digest: Digest,
        at: u64,
        size: u64,
        unverified: Option<Hasher>,
    ) -> Result<Self, ReadError> {
        let rest = Extent::Rest {
            from: at,
            total: Some(size),
        };
        let stream = source
            .get_blob(&digest, rest)
            .await
            .map_err(Unfinished::from)?;
        if stream.total() != Some(size) {
            return Err(Unfinished("the size of the blob changed".to_owned()).into());
        }
        Ok(Self::new(stream, digest, at, unverified))
    }

    /// A connection that is open already.
    pub(super) fn new(
        stream: BlobStream,
        digest: Digest,
        at: u64,
        unverified: Option<Hasher>,
    ) -> Self {
        Self {
            skip: at.saturating_sub(stream.offset()),
            stream,
            unverified,
            digest,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// The next bytes, at least one. Not to be called again after the last.
    pub(super) async fn chunk(&mut self) -> Result<Bytes, ReadError> {
        loop {
            let enough = match &self.unverified {
                Some(_) => WITHHELD_BYTES,
                None => 0,
            };
            let front = self.held.front().map_or(0, |front| front.len() as u64);
            if front > 0 && self.held_bytes - front >= enough {
                self.held_bytes -= front;
                return self.held.pop_front().ok_or_else(ended_early);
            }
            match self.stream.chunk().await.map_err(Unfinished::from)? {
                Some(chunk) => self.hold(chunk),
                None => self.verify()?,
            }
        }
    }

    fn hold(&mut self, mut chunk: Bytes) {
        let skipped = usize::try_from(self.skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
        self.skip -= skipped as u64;
        let wanted = chunk.split_off(skipped);
        if wanted.is_empty() {
            return;
        }
        if let Some(hasher) = &mut self.unverified {
            hasher.update(&wanted);
        }
        self.held_bytes += wanted.len() as u64;
        self.held.push_back(wanted);
    }

    /// At the end of the stream: what is still held may go out if the digest is right.
    fn verify(&mut self) -> Result<(), ReadError> {
        let found = self.unverified.take().map(Hasher::finish);
        match found {
            Some(found) if found == self.digest => Ok(()),
            Some(_) => Err(Unfinished("upstream sent wrong bytes".to_owned()).into()),
            None => Err(ended_early()),
        }
    }
}

fn ended_early() -> ReadError {
    Unfinished(upstream::Error::Protocol("the body ended early".to_owned()).to_string()).into()
}

/// Takes in the bytes before `end`, which the reader was given already, from the file they came from.
pub(super) async fn hash_front(
    digest: Digest,
    file: Option<&Arc<File>>,
    end: u64,
) -> Result<Hasher, ReadError> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut at = 0;
    while let Some(file) = file
        && at < end
    {
        let chunk = read(file, at, end).await?;
        at += chunk.len() as u64;
        hasher.update(&chunk);
    }
    Ok(hasher)
}

/// Reads at most [`READ_BYTES`] between `at` and `end`, at least one.
async fn read(file: &Arc<File>, at: u64, end: u64) -> Result<Bytes, ReadError> {
    let file = Arc::clone(file);
    let length = usize::try_from((end - at).min(READ_BYTES)).unwrap_or(0);
    let read = spawn_blocking(move || {
        let mut buffer = vec![0; length];
        let read = file.read_at(&mut buffer, at)?;
        buffer.truncate(read);
        Ok(buffer)
    });
    let buffer: io::Result<Vec<u8>> = read.await.unwrap_or_else(|join| Err(join.into()));
    match buffer {
        // The file was cut short after it was opened.
        Ok(buffer) if buffer.is_empty() => {
            Err(ReadError::Stored(io::ErrorKind::UnexpectedEof.into()))
        }
        Ok(buffer) => Ok(buffer.into()),
        Err(error) => Err(ReadError::Stored(error)),
    }
}
