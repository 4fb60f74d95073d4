//! A part of a body: bytes that are in memory, or bytes of a file that need not come there.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;

/// The next part of a body. Whoever gives one does not choose how it is sent: that is up to the server, which knows the
/// connection.
#[derive(Debug, Clone)]
pub enum Chunk {
    /// These bytes.
    Bytes(Bytes),
    /// Bytes of a file.
    File(Segment),
}

/// A stretch of a file. Its bytes are there, and do not change any more.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The open file. Its position is of no importance.
    pub file: Arc<File>,
    /// Where the stretch begins, in bytes from the start of the file.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

impl Chunk {
    /// How many bytes it is of the body.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(segment) => segment.length,
        }
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Segment> for Chunk {
    fn from(segment: Segment) -> Self {
        Self::File(segment)
    }
}

impl Segment {
    /// Where the stretch ends, in bytes from the start of the file.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// What is left of it behind the first `bytes`.
    #[must_use]
    pub fn after(&self, bytes: u64) -> Self {
        let bytes = bytes.min(self.length);
        Self {
            file: Arc::clone(&self.file),
            offset: self.offset + bytes,
            length: self.length - bytes,
        }
    }

    /// Its first `bytes`, or all of it where it is no longer.
    #[must_use]
    pub fn first(&self, bytes: u64) -> Self {
        Self {
            file: Arc::clone(&self.file),
            offset: self.offset,
            length: self.length.min(bytes),
        }
    }
}
