//! Who gives bytes of a blob: an upstream, or the shared tier.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::storage::shared::{self, SharedBlob, SharedStream};
use crate::upstream::{self, BlobSource, BlobStream, Extent, Repository};

/// Most connections to the shared tier for one blob. Stores bound what one connection gives to some ten MiB a second.
const SHARED_CONNECTIONS_MAX: usize = 4;

/// Who gives bytes of a blob. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Giver {
    /// A repository that a caller brought.
    Upstream(BlobSource),
    /// What the shared tier has.
    Shared(SharedBlob),
}

/// Bytes as they come.
#[derive(Debug)]
pub(in crate::cache) enum Stream {
    /// Of an upstream.
    Upstream(Box<BlobStream>),
    /// Of the shared tier.
    Shared(Box<SharedStream>),
}

impl Giver {
    /// The repository that is asked, where it is one.
    pub(super) fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Upstream(source) => Some(source.repository()),
            Self::Shared(_) => None,
        }
    }

    /// What it is called in metrics.
    pub(super) fn label(&self) -> &str {
        self.repository().map_or("shared", Repository::label)
    }

    /// Most connections to it for one blob.
    pub(super) fn connections_max(&self) -> usize {
        self.repository()
            .map_or(SHARED_CONNECTIONS_MAX, Repository::connections_per_blob)
    }

    /// How long it is left alone, where it is worth waiting for.
    pub(super) fn left_alone_for(&self) -> Option<Duration> {
        self.repository()?.left_alone_for()
    }

    /// Whether it is asked again where it fails: not where there is another to ask.
    pub(super) fn is_asked_again(&self) -> bool {
        matches!(self, Self::Upstream(_))
    }

    /// The bytes of the blob, or of a part of it; see [`BlobSource::get`].
    ///
    /// # Errors
    /// As there; trouble of the shared tier is `Unavailable`.
    pub(super) async fn get(&self, extent: Extent) -> Result<Stream, upstream::Error> {
        match self {
            Self::Upstream(source) => source.get(extent).await.map(Stream::from),
            Self::Shared(blob) => get_shared(blob, extent).await,
        }
    }

    /// As [`get`](Self::get), for a connection that only helps.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn get_if_free(&self, extent: Extent) -> Result<Stream, upstream::Error> {
        match self {
            Self::Upstream(source) => source.get_if_free(extent).await.map(Stream::from),
            Self::Shared(blob) => get_shared(blob, extent).await,
        }
    }
}

async fn get_shared(blob: &SharedBlob, extent: Extent) -> Result<Stream, upstream::Error> {
    let range = match extent {
        Extent::Whole => 0..blob.size(),
        Extent::Rest { from, .. } => from..blob.size(),
        Extent::Part { range, .. } => range,
    };
    let stream = blob.get(range).await.map_err(unavailable)?;
    Ok(Stream::Shared(Box::new(stream)))
}

fn unavailable(error: shared::Error) -> upstream::Error {
    upstream::Error::Unavailable(Arc::new(error))
}

impl From<BlobStream> for Stream {
    fn from(stream: BlobStream) -> Self {
        Self::Upstream(Box::new(stream))
    }
}

impl Stream {
    /// Where it begins, counted from the start of the blob.
    pub(in crate::cache) fn offset(&self) -> u64 {
        match self {
            Self::Upstream(stream) => stream.offset(),
            Self::Shared(stream) => stream.offset(),
        }
    }

    /// Where it ends, where that is known.
    pub(in crate::cache) fn end(&self) -> Option<u64> {
        match self {
            Self::Upstream(stream) => stream.end(),
            Self::Shared(stream) => Some(stream.end()),
        }
    }

    /// The size of the whole blob, where that is known.
    pub(in crate::cache) fn total(&self) -> Option<u64> {
        match self {
            Self::Upstream(stream) => stream.total(),
            Self::Shared(stream) => Some(stream.total()),
        }
    }

    /// The next bytes; `None` at the end.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// What kept them from coming.
    pub(in crate::cache) async fn chunk(&mut self) -> Result<Option<Bytes>, upstream::Error> {
        match self {
            Self::Upstream(stream) => stream.chunk().await,
            Self::Shared(stream) => stream.chunk().await.map_err(unavailable),
        }
    }
}
