//! Which blob goes next: S3-FIFO by bytes (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023).
//!
//! What is new is on probation, in a queue of its own with a tenth of the bytes. What was used again by the time it
//! comes to the head of that queue moves to the main queue; what was not goes, and is remembered for a while by a
//! fingerprint: if it comes back, it goes to the main queue at once. There, what was used since it was last looked at
//! is put back to the end. So the many layers that are pulled once never push out those that are pulled every day.
//!
//! Two things differ from the paper. Uses within [`TOGETHER_SECONDS`] count as one, because a roll-out pulls a layer
//! a hundred times in a minute and then never again. And small blobs, [`SMALL_BYTES`], skip probation: manifests and
//! configurations are a ten-thousandth of the bytes and every other request.
//!
//! Pure: no clock, no I/O; times are seconds since 1970.

mod ghosts;
use ghosts::Ghosts;

mod slots;
use slots::{Slot, Slots};

use std::collections::VecDeque;
use std::hash::Hash;
use std::ops::Range;

/// Uses of a blob within this many seconds are one use. Recency on disk is written no more often either.
pub(super) const TOGETHER_SECONDS: u32 = 60;

/// What is no larger than this skips probation, in bytes.
const SMALL_BYTES: u64 = 64 * 1024;

/// Which part of the bytes may be on probation before the main queue has to give: one in so many (section 4.1 of the
/// paper).
const PROBATION_PART: u64 = 10;

/// How often a blob in the main queue is put back at most without being used again.
const USES_MAX: u8 = 3;

/// What is known of the blobs, for eviction alone: it never says that one is there.
#[derive(Debug)]
pub(super) struct Policy<K> {
    slots: Slots<K>,
    probation: Queue,
    main: Queue,
    ghosts: Ghosts,
    /// The number of the pass over the directory that is under way.
    pass: u8,
}

/// First in, first out; what is gone is left out when its turn comes.
#[derive(Debug, Default)]
struct Queue {
    slots: VecDeque<u32>,
    bytes: u64,
}

/// What eviction has to remember of a blob beside its last use. It survives a restart as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    is_main: bool,
    /// Uses since it was last looked at, up to [`USES_MAX`].
    uses: u8,
}

/// What goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Victim<K> {
    pub(super) key: K,
    pub(super) bytes: u64,
    /// When it was last used.
    pub(super) used: u32,
}

impl Queue {
    /// One more at the end.
    fn push(&mut self, at: u32) {
        if self.slots.len() == self.slots.capacity() {
            // Not twice as much, as is usual: with a million blobs, half of it would be nothing.
            self.slots.reserve_exact(self.slots.len() / 8 + 64);
        }
        self.slots.push_back(at);
    }
}

impl Note {
    /// As a number from 1 on; 0 is no note.
    pub(super) fn to_number(self) -> u32 {
        1 + u32::from(self.uses)
            + if self.is_main {
                u32::from(USES_MAX) + 1
            } else {
                0
            }
    }

    /// What a number stands for; `None` where it was never a note.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        let uses_of = u32::from(USES_MAX) + 1;
        let number = number
            .checked_sub(1)
            .filter(|number| *number < 2 * uses_of)?;
        Some(Self {
            is_main: number >= uses_of,
            uses: u8::try_from(number % uses_of).unwrap_or(USES_MAX),
        })
    }
}

impl<K: Clone + Eq + Hash> Policy<K> {
    /// Knows of nothing.
    pub(super) fn new() -> Self {
        Self {
            slots: Slots::new(),
            probation: Queue::default(),
            main: Queue::default(),
            ghosts: Ghosts::default(),
            pass: 0,
        }
    }

    /// How many bytes all blobs have together.
    pub(super) fn bytes(&self) -> u64 {
        self.probation.bytes + self.main.bytes
    }

    /// How many blobs there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// When the blob that nobody has used for longest was used.
    pub(super) fn oldest(&self) -> Option<u32> {
        self.slots.live().map(|slot| slot.used).min()
    }

    /// A blob was stored. It was used just now.
    pub(super) fn insert(&mut self, key: K, bytes: u64, now: u32) -> Note {
        let is_back = self.ghosts.take(self.slots.hash(&key));
        let is_main = is_back || bytes <= SMALL_BYTES;
        self.restore(key, bytes, now, Some(Note { is_main, uses: 0 }))
    }

    /// A blob was found in the directory, last used at `used`; `note` is what was remembered of it.
    pub(super) fn restore(&mut self, key: K, bytes: u64, used: u32, note: Option<Note>) -> Note {
        if let Some(at) = self.slots.find(&key) {
            let slot = &mut self.slots[at];
            slot.seen = self.pass;
            // Another process may have used it.
            slot.used = slot.used.max(used);
            let (before, note) = (slot.bytes, slot.note);
            slot.bytes = bytes;
            let queue = self.queue(note.is_main);
            queue.bytes = queue.bytes - before + bytes;
            return note;
        }
        let note = note.unwrap_or(Note {
            is_main: bytes <= SMALL_BYTES,
            uses: 0,
        });
        let at = self.slots.place(Slot {
            key,
            bytes,
            used,
            note,
            seen: self.pass,
            is_live: true,
        });
        let queue = self.queue(note.is_main);
        queue.push(at);
        queue.bytes += bytes;
        note
    }

    /// A blob is used now. Gives what to remember of it, where it is known and this is another use than the last.
    pub(super) fn used(&mut self, key: &K, now: u32) -> Option<Note> {
        let at = self.slots.find(key)?;
        let slot = &mut self.slots[at];
        if slot.used.abs_diff(now) < TOGETHER_SECONDS {
            return None;
        }
        slot.used = now;
        slot.note.uses = (slot.note.uses + 1).min(USES_MAX);
        Some(slot.note)
    }

    /// A blob is gone. Gives its bytes.
    pub(super) fn remove(&mut self, key: &K) -> Option<u64> {
        let slot = self.slots.forget(key)?;
        let (bytes, is_main) = (slot.bytes, slot.note.is_main);
        self.queue(is_main).bytes -= bytes;
        Some(bytes)
    }

    /// Takes out what is to go next; nothing that was used during `spared` goes, and nothing that `stays`. A time beyond
    /// that is one of a clock that was wrong, and spares nothing.
    pub(super) fn evict(
        &mut self,
        spared: &Range<u32>,
        stays: impl Fn(&K) -> bool,
    ) -> Option<Victim<K>> {
        // Each is looked at so often that whatever may go has gone.
        let mut looks = [
            self.probation.slots.len(),
            self.main.slots.len() * (usize::from(USES_MAX) + 2),
        ];
        loop {
            let is_over = self.probation.bytes.saturating_mul(PROBATION_PART) > self.bytes();
            let is_main = match looks {
                [0, 0] => return None,
                [0, _] => true,
                [_, 0] => false,
                [_, _] => !is_over,
            };
            let left = &mut looks[usize::from(is_main)];
            *left -= 1;
            let Some(at) = self.queue(is_main).slots.pop_front() else {
                *left = 0;
                continue;
            };
            let slot = &mut self.slots[at];
            if !slot.is_live {
                self.slots.free(at);
            } else if spared.contains(&slot.used) || stays(&slot.key) {
                self.queue(is_main).push(at);
            } else if slot.note.uses == 0 {
                return Some(self.take(at));
            } else if is_main {
                slot.note.uses -= 1;
                self.main.push(at);
            } else {
                slot.note = Note {
                    is_main: true,
                    uses: 0,
                };
                let bytes = slot.bytes;
                self.probation.bytes -= bytes;
                self.main.bytes += bytes;
                self.main.push(at);
                looks[1] += 1;
            }
        }
    }

    /// A pass over the directory begins.
    pub(super) fn begin_pass(&mut self) {
        self.pass = self.pass.wrapping_add(1);
    }

    /// A pass over the directory is over: what it did not see is gone, but for what was stored since, or just before.
    /// Gives how many that were.
    pub(super) fn end_pass(&mut self, since: u32) -> usize {
        let live = self.slots.live();
        let gone = live.filter(|slot| slot.seen != self.pass && slot.used < since);
        let gone: Vec<K> = gone.map(|slot| slot.key.clone()).collect();
        for key in &gone {
            self.remove(key);
        }
        // Otherwise what strangers remove would stay in line until its turn comes, which may be never.
        for queue in [&mut self.probation, &mut self.main] {
            queue.slots.retain(|at| {
                let is_live = self.slots[*at].is_live;
                if !is_live {
                    self.slots.free(*at);
                }
                is_live
            });
        }
        gone.len()
    }

    /// Puts the queues into the order of last use: that in which a directory is listed means nothing.
    pub(super) fn sort(&mut self) {
        let slots = &self.slots;
        for queue in [&mut self.probation, &mut self.main] {
            let queue = queue.slots.make_contiguous();
            queue.sort_unstable_by_key(|at| slots[*at].used);
        }
    }

    fn queue(&mut self, is_main: bool) -> &mut Queue {
        if is_main {
            &mut self.main
        } else {
            &mut self.probation
        }
    }

    /// Takes out a slot that its queue has let go of already.
    fn take(&mut self, at: u32) -> Victim<K> {
        let slot = &self.slots[at];
        let victim = Victim {
            key: slot.key.clone(),
            bytes: slot.bytes,
            used: slot.used,
        };
        let is_main = slot.note.is_main;
        self.remove(&victim.key);
        self.slots.free(at);
        if !is_main {
            let hash = self.slots.hash(&victim.key);
            self.ghosts.remember(hash, self.slots.len());
        }
        victim
    }
}

#[cfg(test)]
mod tests;
