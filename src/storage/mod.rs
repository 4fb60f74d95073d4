//! Bytes at rest, by digest, and the small records beside them. Knows no upstream and no HTTP.
//!
//! The directory is the truth: nothing in memory says that a blob is present. Whatever is deleted, by whomever, is a
//! miss the next time it is asked for.

mod kept;
mod layout;
pub use layout::{Audience, RecordKey, RecordKind, RecordName};

mod local;
pub use local::{Access, Local, OpenError, StoredBlob};

mod descent;

mod records;
pub use records::RECORD_BYTES_MAX;

mod ingest;
pub use ingest::Ingest;

mod quarantine;

mod scrub;
pub use scrub::{Reread, Rereading, ScrubPosition};

mod seal;
pub use seal::LastUse;

mod survey;
pub use survey::{ListedBlob, RecordsMost, SHARDS, Space, Trimmed};

mod outbox;
pub use outbox::Parcel;

pub mod shared;

use std::io;
use std::sync::Arc;

/// Why storage did not do what was asked. The answer is always the same: do without.
#[derive(Debug, Clone, thiserror::Error)]
#[error("storage cannot {operation}")]
pub struct Error {
    /// What was tried; the metric label.
    pub operation: Operation,
    /// What the operating system said.
    #[source]
    pub cause: Arc<io::Error>,
}

/// What was asked of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Open a stored blob or record.
    Open,
    /// Read from one.
    Read,
    /// Find room for a blob within what the cache may take.
    Reserve,
    /// Make a file for a blob on its way in.
    Create,
    /// Write to it.
    Write,
    /// Make it durable and give it its final name.
    Publish,
    /// Remove a record, or a blob.
    Remove,
    /// Remember when a blob was last used.
    Touch,
}

impl Operation {
    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Reserve => "reserve",
            Self::Create => "create",
            Self::Write => "write",
            Self::Publish => "publish",
            Self::Remove => "remove",
            Self::Touch => "touch",
        }
    }

    /// Wraps what the operating system said about this operation.
    pub(crate) fn failed(self, cause: impl Into<io::Error>) -> Error {
        Error {
            operation: self,
            cause: Arc::new(cause.into()),
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
