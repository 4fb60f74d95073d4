//! A blob past the disk to one reader: from the shared tier or from upstream, while storage is failing or has no room.
//!
//! The rule of the fill holds here, too: a reader of the whole blob gets its end only when the digest is right.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::fill::{Stream, WITHHELD_BYTES};
use super::reader::{ReadError, Unfinished};
use super::tier::Tier;
use crate::oci::{Digest, Hasher};
use crate::storage::shared::SharedBlob;
use crate::upstream::{self, Extent, Repository};

/// How many bytes are read at once of a file that is hashed.
const READ_BYTES: u64 = 64 * 1024;

/// Where a reader that is served past the disk has its bytes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) digest: Digest,
    /// The size of the blob, in bytes.
    pub(super) size: u64,
    /// The caller's own.
    pub(super) source: Repository,
    pub(super) tier: Tier,
    /// What the shared tier has and this caller may read. It is asked before the source, until it fails.
    pub(super) shared: Option<SharedBlob>,
}

impl Origin {
    /// Begins to read at `at`.
    async fn ask(&mut self, at: u64) -> Result<Stream, ReadError> {
        if let Some(shared) = &self.shared {
            match shared.get(at..self.size).await {
                Ok(stream) => return Ok(Stream::Shared(Box::new(stream))),
                Err(error) => self.do_without_shared(&error),
            }
        }
        let rest = Extent::Rest {
            from: at,
            total: Some(self.size),
        };
        let stream = self.source.get_blob(&self.digest, rest).await;
        let stream = stream.map_err(Unfinished::from)?;
        if stream.total() != Some(self.size) {
            return Err(Unfinished("the size of the blob changed".to_owned()).into());
        }
        Ok(stream.into())
    }

    fn do_without_shared(&mut self, error: &impl std::fmt::Display) {
        tracing::debug!(digest = %self.digest, %error, "the shared tier does not give the blob");
        self.shared = None;
    }
}

/// A connection of one reader's own.
#[derive(Debug)]
pub(super) struct Through {
    origin: Origin,
    stream: Stream,
    /// The next byte of the stream, counted from the start of the blob.
    at: u64,
    /// How many bytes lie before those the reader wants from there.
    skip: u64,
    /// What the whole blob hashes to so far; `None` for a reader of a part, and when the digest was right.
    unverified: Option<Hasher>,
    /// The shared tier's, while all of it comes from there.
    of_shared: Option<SharedBlob>,
    /// What came and waits for the digest.
    held: VecDeque<Bytes>,
    held_bytes: u64,
}

impl Through {
    /// Opens the blob at `at`. For a reader of the whole blob `unverified` has taken in the bytes before that; a
    /// reader of a part passes `None`.
    pub(super) async fn open(
        mut origin: Origin,
        at: u64,
        unverified: Option<Hasher>,
    ) -> Result<Self, ReadError> {
        let stream = origin.ask(at).await?;
        Ok(Self::new(origin, stream, at, unverified))
    }

    /// A connection that is open already.
    pub(super) fn new(origin: Origin, stream: Stream, at: u64, unverified: Option<Hasher>) -> Self {
        Self {
            at: stream.offset(),
            skip: at.saturating_sub(stream.offset()),
            stream,
            unverified,
            of_shared: origin.shared.clone(),
            origin,
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
            match self.stream.chunk().await {
                // More than the blob would push its end out of what is withheld.
                Ok(Some(chunk)) if self.at + chunk.len() as u64 > self.origin.size => {
                    return Err(Unfinished("the body is longer than the blob".to_owned()).into());
                }
                Ok(Some(chunk)) => self.hold(chunk),
                Ok(None) if self.at < self.origin.size => return Err(ended_early()),
                Ok(None) => self.verify().await?,
                // Upstream has the rest.
                Err(error) if matches!(self.stream, Stream::Shared(_)) => {
                    self.origin.do_without_shared(&error);
                    self.go_on().await?;
                }
                Err(error) => return Err(Unfinished::from(error).into()),
            }
        }
    }

    /// Another connection goes on where this one stopped.
    async fn go_on(&mut self) -> Result<(), ReadError> {
        // Should the whole be wrong, nobody knows whose part it was.
        self.of_shared = None;
        self.stream = self.origin.ask(self.at).await?;
        self.skip += self.at.saturating_sub(self.stream.offset());
        self.at = self.stream.offset();
        Ok(())
    }

    fn hold(&mut self, mut chunk: Bytes) {
        self.at += chunk.len() as u64;
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
    async fn verify(&mut self) -> Result<(), ReadError> {
        let found = self.unverified.take().map(Hasher::finish);
        let digest = &self.origin.digest;
        match (found, &self.of_shared) {
            (Some(found), _) if found == *digest => Ok(()),
            (Some(found), Some(blob)) => {
                self.origin.tier.gave_wrong(digest, blob).await;
                Err(Unfinished(format!("the shared tier has bytes that hash to {found}")).into())
            }
            (Some(_), None) => Err(Unfinished("upstream sent wrong bytes".to_owned()).into()),
            (None, _) => Err(ended_early()),
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
