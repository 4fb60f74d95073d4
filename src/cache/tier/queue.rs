//! What waits to be uploaded.
//!
//! The notes in the directory are the queue; what is in memory is the part of it that is looked at, so that memory is
//! bounded and a restart loses nothing. Blobs are held open besides, as far as there is room: eviction may be faster
//! than an upload, and the last bytes of a blob for which there is no room are there for as long as its file is open.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use crate::cache::evict::Reservation;
use crate::cache::shelf::told;
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::storage::{Local, Parcel, StoredBlob};

/// How many parcels are in memory at most, at some hundred bytes each. The others are found in the directory.
const IN_MEMORY_MAX: usize = 1024;

/// How many notes there may be, at an inode each. What an outage of the store leaves unsaid beyond that is uploaded when
/// it is fetched again.
const NOTES_MAX: usize = 64 * 1024;

/// What waits to be uploaded.
pub(super) struct Queue {
    storage: Local,
    metrics: Metrics,
    state: Mutex<State>,
    /// Something came, or the end.
    came: Notify,
    /// Something that was held is held no more.
    released: Notify,
}

#[derive(Default)]
struct State {
    /// Blobs whose files are held open.
    held: VecDeque<Held>,
    /// How many of them there are, with those in hand.
    n_held: usize,
    /// Notes that are known.
    noted: VecDeque<Parcel>,
    /// The same.
    known: HashSet<Parcel>,
    /// There may be notes that are not known.
    is_unread: bool,
    /// How many notes there are, about.
    n_notes: usize,
    /// What somebody works on, and whether it was noted again since.
    in_hand: HashMap<Parcel, bool>,
    is_closed: bool,
}

/// A blob that is held open until it is uploaded.
pub(super) struct Held {
    pub(super) digest: Digest,
    pub(super) blob: StoredBlob,
    /// Whether there is a note of it, and a file with a name.
    pub(super) is_kept: bool,
    /// What its file takes even after eviction.
    pub(super) _room: Reservation,
}

/// Something to upload.
pub(super) enum Work {
    /// A blob whose file is open.
    Held(Held),
    /// Whatever a note says.
    Noted(Parcel),
}

impl Queue {
    /// What an earlier process left is still to be read.
    pub(super) fn new(storage: Local, metrics: Metrics) -> Self {
        let state = State {
            is_unread: true,
            ..State::default()
        };
        Self {
            storage,
            metrics,
            state: Mutex::new(state),
            came: Notify::new(),
            released: Notify::new(),
        }
    }

    /// Remembers `parcel` on disk and in memory. Blocks.
    pub(super) fn note(&self, parcel: Parcel) {
        // Held while the files change, so that what is noted again is never forgotten by who has just uploaded it.
        let mut state = self.state();
        if state.n_notes >= NOTES_MAX {
            self.metrics.shared_dropped("queue_full");
            return;
        }
        let opposite = match &parcel {
            Parcel::Record(name) => Some(Parcel::Removal(name.clone())),
            Parcel::Removal(name) => Some(Parcel::Record(name.clone())),
            Parcel::Blob(_) | Parcel::Document(_) => None,
        };
        if let Some(opposite) = opposite {
            told(self.storage.forget_note(&opposite), &self.metrics);
        }
        if told(self.storage.note(&parcel), &self.metrics).is_none() {
            return;
        }
        state.n_notes += 1;
        state.add(parcel);
        self.show(&state);
        drop(state);
        self.came.notify_one();
    }

    /// Takes in a blob whose file is open.
    pub(super) fn hold(&self, held: Held) {
        let mut state = self.state();
        state.n_held += 1;
        state.held.push_back(held);
        self.show(&state);
        drop(state);
        self.came.notify_one();
    }

    /// The next to upload; `None` when that is over.
    ///
    /// Cancel-safe.
    pub(super) async fn next(self: &Arc<Self>) -> Option<Work> {
        loop {
            let came = self.came.notified();
            let is_unread = {
                let mut state = self.state();
                if state.is_closed {
                    return None;
                }
                if let Some(work) = state.take() {
                    self.show(&state);
                    return Some(work);
                }
                std::mem::take(&mut state.is_unread)
            };
            if is_unread {
                let this = Arc::clone(self);
                // A panic there is told by the runtime.
                let _ = spawn_blocking(move || this.read()).await;
            } else {
                came.await;
            }
        }
    }

    /// Reads some of the notes in the directory.
    fn read(&self) {
        let found = told(self.storage.notes(NOTES_MAX), &self.metrics).unwrap_or_default();
        let mut state = self.state();
        state.n_notes = found.len();
        for parcel in found {
            state.add(parcel);
        }
        self.show(&state);
        drop(state);
        self.came.notify_waiters();
    }

    /// `parcel` needs no upload any more, unless it was noted again meanwhile. Blocks.
    pub(super) fn done(&self, parcel: &Parcel) {
        let mut state = self.state();
        let again = state.in_hand.remove(parcel).unwrap_or(false);
        if again {
            state.add(parcel.clone());
        } else {
            told(self.storage.forget_note(parcel), &self.metrics);
            state.n_notes = state.n_notes.saturating_sub(1);
        }
        self.show(&state);
        drop(state);
        self.came.notify_one();
    }

    /// `parcel` is still to be uploaded.
    pub(super) fn put_back(&self, parcel: Parcel) {
        let mut state = self.state();
        state.in_hand.remove(&parcel);
        state.add(parcel);
        self.show(&state);
    }

    /// A blob that was held is held no more.
    pub(super) fn let_go(&self, held: Held) {
        drop(held);
        let mut state = self.state();
        state.n_held -= 1;
        self.show(&state);
        drop(state);
        self.released.notify_waiters();
    }

    /// The store is in trouble: lets go of everything that is held, whose room others need more.
    pub(super) fn let_all_go(&self) {
        let mut state = self.state();
        let all = std::mem::take(&mut state.held);
        state.n_held -= all.len();
        self.show(&state);
        drop(state);
        for _ in all.iter().filter(|held| !held.is_kept) {
            self.metrics.shared_dropped("no_room");
        }
        drop(all);
        self.released.notify_waiters();
    }

    /// Waits until something is held no more; `false` where nothing is held.
    pub(super) async fn released(&self) -> bool {
        let released = self.released.notified();
        if self.state().n_held == 0 {
            return false;
        }
        released.await;
        true
    }

    /// Nothing is uploaded any more.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.came.notify_waiters();
        // Whoever looks next sees it, too.
        self.came.notify_one();
    }

    fn show(&self, state: &State) {
        let unread = usize::from(state.is_unread);
        let held = state.held.iter().filter(|held| !held.is_kept).count();
        let waiting = state.noted.len() + state.in_hand.len() + held + unread;
        self.metrics.shared_waiting(waiting);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Remembers a note, as far as memory goes.
    fn add(&mut self, parcel: Parcel) {
        if let Some(again) = self.in_hand.get_mut(&parcel) {
            *again = true;
        } else if self.known.contains(&parcel) {
            // It waits already.
        } else if self.noted.len() < IN_MEMORY_MAX {
            self.known.insert(parcel.clone());
            self.noted.push_back(parcel);
        } else {
            self.is_unread = true;
        }
    }

    /// What is held comes first: it takes room.
    fn take(&mut self) -> Option<Work> {
        if let Some(held) = self.held.pop_front() {
            let parcel = Parcel::Blob(held.digest);
            self.known.remove(&parcel);
            self.noted.retain(|noted| *noted != parcel);
            self.in_hand.insert(parcel, false);
            return Some(Work::Held(held));
        }
        let parcel = self.noted.pop_front()?;
        self.known.remove(&parcel);
        self.in_hand.insert(parcel.clone(), false);
        Some(Work::Noted(parcel))
    }
}
