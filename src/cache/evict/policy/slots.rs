//! What is known of each blob, in slots, and in which of them a blob is.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use super::Note;

/// Blobs in slots, by their keys. Who has to do with one by its number keeps that until the slot is free.
#[derive(Debug)]
pub(super) struct Slots<K> {
    hasher: RandomState,
    /// From a key to its slot.
    table: HashTable<u32>,
    /// Pieces of [`PIECE`] slots each; the last may have fewer. They never move: one array of a million would be copied
    /// whenever it grows, and what it leaves behind stays with the allocator.
    pieces: Vec<Vec<Slot<K>>>,
    free: Vec<u32>,
}

/// How many slots are made at once: some 60 KiB.
const PIECE: usize = 1024;

/// In which piece a slot is, and where in it.
fn split(at: u32) -> (usize, usize) {
    let at = at as usize;
    (at / PIECE, at % PIECE)
}

/// One blob.
#[derive(Debug)]
pub(super) struct Slot<K> {
    pub(super) key: K,
    pub(super) bytes: u64,
    /// When it was last used.
    pub(super) used: u32,
    pub(super) note: Note,
    /// The last pass over the directory that saw it.
    pub(super) seen: u8,
    /// Cleared when it is gone; the slot is free once its queue lets go of it.
    pub(super) is_live: bool,
}

impl<K: Eq + Hash> Slots<K> {
    /// None.
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            table: HashTable::new(),
            pieces: Vec::new(),
            free: Vec::new(),
        }
    }

    /// How many blobs there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// All blobs there are.
    pub(super) fn live(&self) -> impl Iterator<Item = &Slot<K>> {
        self.pieces.iter().flatten().filter(|slot| slot.is_live)
    }

    /// How many slots there are, free ones and all.
    #[cfg(test)]
    pub(super) fn made(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    /// How many bytes all of it takes.
    #[cfg(test)]
    pub(super) fn bytes_in_memory(&self) -> usize {
        let slots: usize = self.pieces.iter().map(Vec::capacity).sum();
        let pieces = self.pieces.capacity() * size_of::<Vec<Slot<K>>>();
        let free = self.free.capacity() * size_of::<u32>();
        slots * size_of::<Slot<K>>() + pieces + free + self.table.allocation_size()
    }

    pub(super) fn hash(&self, key: &K) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(super) fn find(&self, key: &K) -> Option<u32> {
        let is_it = |at: &u32| self[*at].key == *key;
        self.table.find(self.hash(key), is_it).copied()
    }

    /// Puts a slot into the table. There are at most some thousand million of them.
    pub(super) fn place(&mut self, slot: Slot<K>) -> u32 {
        let hash = self.hash(&slot.key);
        let at = if let Some(at) = self.free.pop() {
            self[at] = slot;
            at
        } else {
            self.push(slot)
        };
        let (pieces, hasher) = (&self.pieces, &self.hasher);
        let rehash = |at: &u32| {
            let (piece, at) = split(*at);
            hasher.hash_one(&pieces[piece][at].key)
        };
        self.table.insert_unique(hash, at, rehash);
        at
    }

    fn push(&mut self, slot: Slot<K>) -> u32 {
        let n_full = self.pieces.len().saturating_sub(1);
        let at = match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE => {
                piece.push(slot);
                n_full * PIECE + piece.len() - 1
            }
            Some(_) | None => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(slot);
                self.pieces.push(piece);
                (self.pieces.len() - 1) * PIECE
            }
        };
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// Takes a blob out of the table. Its slot stays as it is until it is free.
    pub(super) fn forget(&mut self, key: &K) -> Option<&Slot<K>> {
        let hash = self.hash(key);
        let pieces = &self.pieces;
        let is_it = |at: &u32| {
            let (piece, at) = split(*at);
            pieces[piece][at].key == *key
        };
        let (at, _) = self.table.find_entry(hash, is_it).ok()?.remove();
        let slot = &mut self[at];
        slot.is_live = false;
        Some(slot)
    }

    /// Nobody has to do any more with a slot whose blob was forgotten.
    pub(super) fn free(&mut self, at: u32) {
        self.free.push(at);
    }
}

impl<K> Index<u32> for Slots<K> {
    type Output = Slot<K>;

    fn index(&self, at: u32) -> &Slot<K> {
        let (piece, at) = split(at);
        &self.pieces[piece][at]
    }
}

impl<K> IndexMut<u32> for Slots<K> {
    fn index_mut(&mut self, at: u32) -> &mut Slot<K> {
        let (piece, at) = split(at);
        &mut self.pieces[piece][at]
    }
}
