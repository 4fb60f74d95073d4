//! The bytes of a blob, or of a range of it, in order.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::fill::{Fill, FillError, Opened, Stream};
use super::through::{Origin, Through, hash_front};
use crate::http::{Chunk, Segment};
use crate::storage::StoredBlob;
use crate::upstream;

/// Why the bytes stop before their end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Upstream failed in the middle, or what it sent was wrong.
    #[error(transparent)]
    Fill(#[from] Unfinished),
    /// What was stored of it is less than it was, or cannot be read.
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
    /// The file of a fill. The origin is the caller's own, in case storage fails in the middle.
    Filling {
        fill: Arc<Fill>,
        opened: Opened,
        origin: Origin,
    },
    /// A connection of its own: storage is failing, or has no room.
    Through {
        origin: Origin,
        stream: Option<Box<Stream>>,
    },
}

impl Blob {
    pub(super) fn stored(blob: StoredBlob) -> Self {
        Self {
            size: blob.size,
            content: Content::Stored(blob.file),
        }
    }

    pub(super) fn filling(fill: Arc<Fill>, opened: Opened, origin: Origin) -> Self {
        Self {
            size: opened.size,
            content: Content::Filling {
                fill,
                opened,
                origin,
            },
        }
    }

    /// `stream` is the whole blob.
    pub(super) fn through(origin: Origin, stream: Stream) -> Self {
        let stream = Some(Box::new(stream));
        Self {
            size: origin.size,
            content: Content::Through { origin, stream },
        }
    }

    /// The size of the whole blob, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file its bytes come from, if they come from one.
    pub fn file(&self) -> Option<Arc<File>> {
        match &self.content {
            Content::Stored(file) => Some(Arc::clone(file)),
            Content::Filling { opened, .. } => Some(Arc::clone(&opened.file)),
            Content::Through { .. } => None,
        }
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
    /// All the bytes that are still to be read, where they are in a stored file.
    pub fn stored(&self) -> Option<Segment> {
        match &self.content {
            Content::Stored(file) => Some(self.segment(self.end, file)),
            Content::Filling { .. } | Content::Through { .. } => None,
        }
    }

    /// The next bytes, or where they are in a file, as far as they are there; `None` at the end.
    ///
    /// Not cancel-safe: a dropped call may have taken bytes from a connection.
    ///
    /// # Errors
    /// [`ReadError`]; what was given until then is all there will be.
    pub async fn chunk(&mut self) -> Result<Option<Chunk>, ReadError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let chunk = match &self.content {
            Content::Stored(file) => self.segment(self.end, file).into(),
            Content::Filling {
                fill,
                opened,
                origin,
            } => match fill.readable(opened, self.at, self.whole).await {
                Ok(readable) => self.segment(readable, &opened.file).into(),
                Err(FillError::Storage(_)) => {
                    let (origin, file) = (origin.clone(), Arc::clone(&opened.file));
                    let through = self.pass_through(origin, Some(file));
                    Chunk::Bytes(Box::pin(through).await?)
                }
                Err(FillError::BegunAnew) if self.at == self.start => {
                    Box::pin(self.open_again()).await?;
                    return Box::pin(self.chunk()).await;
                }
                Err(error) => return Err(Unfinished::from(error).into()),
            },
            Content::Through { origin, .. } => {
                let origin = origin.clone();
                Chunk::Bytes(Box::pin(self.pass_through(origin, None)).await?)
            }
        };
        self.at += chunk.length();
        Ok(Some(chunk))
    }

    /// The bytes of `file` from here up to `readable`, which lies behind.
    fn segment(&self, readable: u64, file: &Arc<File>) -> Segment {
        Segment {
            file: Arc::clone(file),
            offset: self.at,
            length: self.end.min(readable) - self.at,
        }
    }

    /// The fill began anew before anything was given of the first attempt.
    async fn open_again(&mut self) -> Result<(), ReadError> {
        if let Content::Filling {
            fill,
            opened,
            origin,
        } = &mut self.content
        {
            let again = fill
                .opened(&origin.source)
                .await
                .map_err(Unfinished::from)?;
            if again.size != self.size {
                return Err(Unfinished("the size of the blob changed".to_owned()).into());
            }
            *opened = again;
        }
        Ok(())
    }

    /// The next bytes straight from `origin`. `given` is the file the bytes before came from.
    async fn pass_through(
        &mut self,
        origin: Origin,
        given: Option<Arc<File>>,
    ) -> Result<Bytes, ReadError> {
        let mut through = match (self.through.take(), self.opened_stream()) {
            (Some(through), _) => through,
            (None, stream) => {
                let unverified = if self.whole {
                    Some(hash_front(origin.digest, given.as_ref(), self.at).await?)
                } else {
                    None
                };
                let through = match stream {
                    Some(stream) => Through::new(origin, *stream, self.at, unverified),
                    None => Through::open(origin, self.at, unverified).await?,
                };
                Box::new(through)
            }
        };
        let mut chunk = through.chunk().await?;
        chunk.truncate(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        self.through = Some(through);
        Ok(chunk)
    }

    /// The connection that told the size, where it can be read on: it begins at the first byte. Where it cannot, it is
    /// closed before another is opened.
    fn opened_stream(&mut self) -> Option<Box<Stream>> {
        let stream = match &mut self.content {
            Content::Through { stream, .. } => stream.take(),
            Content::Stored(_) | Content::Filling { .. } => None,
        };
        stream.filter(|_| self.at == 0)
    }
}
