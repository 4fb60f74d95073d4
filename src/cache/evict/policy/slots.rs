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
    slots: Vec<Slot<K>>,
    free: Vec<u32>,
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
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// How many blobs there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// All blobs there are.
    pub(super) fn live(&self) -> impl Iterator<Item = &Slot<K>> {
        self.slots.iter().filter(|slot| slot.is_live)
    }

    /// How many slots there are, free ones and all.
    #[cfg(test)]
    pub(super) fn made(&self) -> usize {
        self.slots.len()
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
            if self.slots.len() == self.slots.capacity() {
                // Not twice as much, as is usual: with a million blobs, half of it would be nothing.
                self.slots.reserve_exact(self.slots.len() / 8 + 64);
            }
            self.slots.push(slot);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        let rehash = |at: &u32| hasher.hash_one(&slots[*at as usize].key);
        self.table.insert_unique(hash, at, rehash);
        at
    }

    /// Takes a blob out of the table. Its slot stays as it is until it is free.
    pub(super) fn forget(&mut self, key: &K) -> Option<&Slot<K>> {
        let hash = self.hash(key);
        let slots = &self.slots;
        let is_it = |at: &u32| slots[*at as usize].key == *key;
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
        &self.slots[at as usize]
    }
}

impl<K> IndexMut<u32> for Slots<K> {
    fn index_mut(&mut self, at: u32) -> &mut Slot<K> {
        &mut self.slots[at as usize]
    }
}
