//! The bytes of a blob, or of a range of it, in order.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::fill::{Fill, FillError, Opened};
use super::through::{Through, hash_front};
use crate::oci::Digest;
use crate::storage::StoredBlob;
use crate::upstream::{self, BlobStream, Repository};

/// How many bytes are read from a file at once. Every connection that is being served holds this much.
const READ_BYTES: u64 = 64 * 1024;

/// Why the bytes stop before their end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Upstream failed in the middle, or what it sent was wrong.
    #[error(transparent)]
    Fill(#[from] Unfinished),
    /// The stored file is shorter than it was, or cannot be read.
    #[error("the stored blob cannot be read")]
    Stored(#[source] io::Error),
}

/// A blob that did not come whole.
#[derive(Debug, thiserror::Error)]
#[error("the blob did not come whole: {0}")]
pub struct Unfinished(pub(super) String);

impl From<FillError> for Unfinished {
    fn from(error: FillError) -> Self {
        Self(error.to_string())
    }
}

impl From<upstream::Error> for Unfinished {
    fn from(error: upstream::Error) -> Self {
        Self(error.to_string())
    }
}

/// A blob that can be read.
#[derive(Debug)]
pub struct Blob {
    size: u64,
    content: Content,
}

/// Where the bytes come from.
#[derive(Debug)]
enum Content {
    /// A stored file, verified when it was stored.
    Stored(Arc<File>),
    /// The file of a fill. The source is the caller's own, in case storage fails in the middle.
    Filling {
        fill: Arc<Fill>,
        opened: Opened,
        source: Repository,
    },
    /// Nowhere but upstream: storage is failing.
    Upstream {
        digest: Digest,
        source: Repository,
        stream: Option<Box<BlobStream>>,
    },
}

impl Blob {
    pub(super) fn stored(blob: StoredBlob) -> Self {
        Self {
            size: blob.size,
            content: Content::Stored(blob.file),
        }
    }

    pub(super) fn filling(fill: Arc<Fill>, opened: Opened, source: Repository) -> Self {
        Self {
            size: opened.size,
            content: Content::Filling {
                fill,
                opened,
                source,
            },
        }
    }

    /// `stream` is the whole blob.
    pub(super) fn upstream(
        digest: Digest,
        size: u64,
        source: Repository,
        stream: BlobStream,
    ) -> Self {
        let stream = Some(Box::new(stream));
        Self {
            size,
            content: Content::Upstream {
                digest,
                source,
                stream,
            },
        }
    }

    /// The size of the whole blob, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A reader of the bytes of `range`, which must lie within the blob.
    pub fn read(self, range: Range<u64>) -> BlobReader {
        let whole = range == (0..self.size);
        let Self { size, content } = self;
        BlobReader {
            size,
            content,
            start: range.start,
            at: range.start,
            end: range.end,
            whole,
            through: None,
        }
    }
}

/// Reads a range of a blob.
#[derive(Debug)]
pub struct BlobReader {
    /// The size of the whole blob.
    size: u64,
    content: Content,
    start: u64,
    /// The next byte, counted from the start of the blob.
    at: u64,
    end: u64,
    /// Whether the range is all of the blob, which must then not end before its digest is known to be right.
    whole: bool,
    /// The connection of its own that takes over where storage has failed.
    through: Option<Box<Through>>,
}

impl BlobReader {
    /// The next bytes, or `None` at the end.
    ///
    /// Not cancel-safe: a dropped call may have taken bytes from a connection.
    ///
    /// # Errors
    /// [`ReadError`]; what was given until then is all there will be.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let chunk = match &self.content {
            Content::Stored(file) => read(file, self.at, self.end).await?,
            Content::Filling {
                fill,
                opened,
                source,
            } => match fill.readable(opened, self.at, self.whole).await {
                Ok(readable) => read(&opened.file, self.at, self.end.min(readable)).await?,
                Err(FillError::Storage(_)) => {
                    let (digest, source) = (fill.digest(), source.clone());
                    let file = Arc::clone(&opened.file);
                    self.pass_through(digest, &source, Some(file)).await?
                }
                Err(FillError::BegunAnew) if self.at == self.start => {
                    self.open_again().await?;
                    return Box::pin(self.chunk()).await;
                }
                Err(error) => return Err(Unfinished::from(error).into()),
            },
            Content::Upstream { digest, source, .. } => {
                let (digest, source) = (*digest, source.clone());
                self.pass_through(digest, &source, None).await?
            }
        };
        self.at += chunk.len() as u64;
        Ok(Some(chunk))
    }

    /// The fill began anew before anything was given of the first attempt.
    async fn open_again(&mut self) -> Result<(), ReadError> {
        if let Content::Filling {
            fill,
            opened,
            source,
        } = &mut self.content
        {
            let again = fill.opened(source).await.map_err(Unfinished::from)?;
            if again.size != self.size {
                return Err(Unfinished("the size of the blob changed".to_owned()).into());
            }
            *opened = again;
        }
        Ok(())
    }

    /// The next bytes straight from upstream. `given` is the file the bytes before came from.
    async fn pass_through(
        &mut self,
        digest: Digest,
        source: &Repository,
        given: Option<Arc<File>>,
    ) -> Result<Bytes, ReadError> {
        let mut through = match (self.through.take(), self.opened_stream()) {
            (Some(through), _) => through,
            (None, stream) => {
                let unverified = if self.whole {
                    Some(hash_front(digest, given.as_ref(), self.at).await?)
                } else {
                    None
                };
                let through = match stream {
                    Some(stream) => Through::new(*stream, digest, self.at, unverified),
                    None => Through::open(source, digest, self.at, self.size, unverified).await?,
                };
                Box::new(through)
            }
        };
        let mut chunk = through.chunk().await?;
        chunk.truncate(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        self.through = Some(through);
        Ok(chunk)
    }

    /// The connection that told the size, where it can be read on: it begins at the first byte.
    fn opened_stream(&mut self) -> Option<Box<BlobStream>> {
        match &mut self.content {
            Content::Upstream { stream, .. } if self.at == 0 => stream.take(),
            Content::Stored(_) | Content::Filling { .. } | Content::Upstream { .. } => None,
        }
    }
}

/// Reads at most [`READ_BYTES`] between `at` and `end`, at least one.
pub(super) async fn read(file: &Arc<File>, at: u64, end: u64) -> Result<Bytes, ReadError> {
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
