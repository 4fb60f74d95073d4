//! Blobs that stay until they are in the shared tier: on this disk is the only copy there is.

use std::collections::HashSet;

use super::{Evictor, Key, State};
use crate::oci::Digest;

/// Blobs whose upload is awaited. There are as many as there may be notes of what is to be uploaded.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    keys: HashSet<Key>,
    /// They go like all others: the shared tier does not take them.
    are_given_up: bool,
}

impl Awaited {
    /// Whether `key` does not go yet.
    pub(super) fn stays(&self, key: &Key) -> bool {
        !self.are_given_up && self.keys.contains(key)
    }
}

impl Evictor {
    /// The blob `digest`, stored or about to be, stays until it is uploaded.
    pub(in crate::cache) fn await_upload(&self, digest: &Digest) {
        self.state().awaited.keys.insert(Key::from(digest));
    }

    /// The blob `digest` is uploaded, or never will be.
    pub(in crate::cache) fn upload_ended(&self, digest: &Digest) {
        let State { awaited, .. } = &mut *self.state();
        awaited.keys.remove(&Key::from(digest));
    }

    /// Whether blobs stay for the sake of their uploads at all.
    pub(in crate::cache) fn wait_for_uploads(&self, waits: bool) {
        self.state().awaited.are_given_up = !waits;
    }
}
