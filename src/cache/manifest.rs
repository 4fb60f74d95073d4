//! A manifest in memory.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::http::PreparedHead;
use crate::oci::Descriptor;
use crate::storage::Audience;

/// What a manifest takes beside its bytes: its key, its descriptor, its head, its place in the map.
const ENTRY_BYTES: usize = 3072;

/// A manifest whose bytes hash to its digest.
#[derive(Debug)]
pub struct Manifest {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes, exactly as upstream sent them.
    pub bytes: Bytes,
    /// Whose it is, in this repository.
    pub(super) audience: Audience,
    /// See [`Manifest::head`].
    head: OnceLock<Arc<PreparedHead>>,
    /// When the evictor was told last that it is in use.
    pub(super) told_used: AtomicU32,
}

impl Manifest {
    /// `bytes` as they were found to be what `descriptor` says.
    pub(super) fn new(descriptor: Descriptor, bytes: Bytes, audience: Audience) -> Self {
        Self {
            descriptor,
            bytes,
            audience,
            head: OnceLock::new(),
            told_used: AtomicU32::new(0),
        }
    }

    /// What it takes of memory, in bytes.
    pub(super) fn weight(&self) -> u32 {
        // It is at most some MiB; one too large for the count weighs as much as can be said.
        u32::try_from(self.bytes.len() + ENTRY_BYTES).unwrap_or(u32::MAX)
    }

    /// The head of the answers that send it, which `make` puts together for the first of them.
    pub fn head(&self, make: impl FnOnce() -> PreparedHead) -> &Arc<PreparedHead> {
        self.head.get_or_init(|| Arc::new(make()))
    }
}
