//! What went lately, as little of it as tells whether it comes back.

use std::collections::{HashSet, VecDeque};

/// Some are remembered however few blobs there are.
const GHOSTS_MIN: usize = 1024;

/// Fingerprints of what went while it was on probation: as many as there are blobs. One in four thousand million is
/// taken for another, which does no harm.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    order: VecDeque<u32>,
    known: HashSet<u32>,
}

impl Ghosts {
    /// Something with this `hash` went, while there are `n_blobs` others.
    pub(super) fn remember(&mut self, hash: u64, n_blobs: usize) {
        let ghosts_max = n_blobs.max(GHOSTS_MIN);
        if self.known.insert(fingerprint(hash)) {
            self.order.push_back(fingerprint(hash));
        }
        while self.order.len() > ghosts_max {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Whether it is remembered; it is then forgotten.
    pub(super) fn take(&mut self, hash: u64) -> bool {
        // Its place in the order stays, and is passed over in its time.
        self.known.remove(&fingerprint(hash))
    }
}

/// The lower half of a hash.
#[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
fn fingerprint(hash: u64) -> u32 {
    hash as u32
}
