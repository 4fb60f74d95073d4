//! What waits to be uploaded.
//!
//! The notes in the directory are the queue; what is in memory is the part of it that is looked at, so that memory is
//! bounded and a restart loses nothing. What is noted is not evicted before it is uploaded, as long as there is
//! [`Patience`]. A blob for which there was no room on disk has no name there and no note: its bytes are there for as
//! long as its file is held open.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::patience::Patience;
use crate::cache::evict::{Evictor, Reservation};
use crate::cache::shelf::told;
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::storage::shared::Error;
use crate::storage::{Local, Parcel, StoredBlob};

/// How many parcels are in memory at most, at some hundred bytes each. The others are found in the directory.
const IN_MEMORY_MAX: usize = 1024;

/// How many notes there may be, at an inode each. What an outage of the store leaves unsaid beyond that is uploaded when
/// it is fetched again.
const NOTES_MAX: usize = 64 * 1024;

/// How many files are held open at most: an eighth of the 1024 descriptors a process has where nobody raised that. They
/// are bounded in bytes as well, by the room they take of what is on its way.
const HELD_MAX: usize = 128;

/// What waits to be uploaded.
pub(super) struct Queue {
    storage: Local,
    evictor: Evictor,
    metrics: Metrics,
    state: Mutex<State>,
    /// Something came, or the end.
    came: Notify,
    /// A blob that was held is held no more.
    released: Notify,
}

#[derive(Default)]
struct State {
    /// Blobs whose files are held open.
    held: VecDeque<Held>,
    /// How many of them there are, with those that somebody uploads.
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
    patience: Patience,
    is_closed: bool,
}

/// A blob that has no name on disk, and is held open until it is uploaded.
#[derive(Debug)]
pub(in crate::cache) struct Held {
    pub(in crate::cache) digest: Digest,
    pub(in crate::cache) blob: StoredBlob,
    /// What its file takes. Dropped after it.
    pub(in crate::cache) _room: Reservation,
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
    pub(super) fn new(storage: Local, evictor: Evictor, metrics: Metrics) -> Self {
        let state = State {
            is_unread: true,
            ..State::default()
        };
        Self {
            storage,
            evictor,
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
            // What is noted twice is counted twice, so they are to be counted.
            state.is_unread = true;
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
        // First of all, so that it is still there when its turn comes.
        self.keep(&parcel);
        if told(self.storage.note(&parcel), &self.metrics).is_none() {
            self.let_evict(&parcel);
            return;
        }
        state.n_notes += 1;
        state.add(parcel);
        self.show(&state);
        drop(state);
        self.came.notify_one();
    }

    /// Takes in a blob whose file is open, where there is patience and room for that.
    pub(super) fn hold(&self, held: Held) {
        let mut state = self.state();
        let is_full = state.n_held >= HELD_MAX;
        if is_full || !self.waits(&state) {
            drop(state);
            drop(held);
            self.metrics.shared_dropped("no_room");
            if is_full {
                self.too_slow();
            }
            self.released.notify_waiters();
            return;
        }
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
            self.keep(&parcel);
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
            self.let_evict(parcel);
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

    /// A blob that is held is still to be uploaded.
    pub(super) fn hold_on(&self, held: Held) {
        let mut state = self.state();
        state.held.push_back(held);
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

    /// An upload has succeeded.
    pub(super) fn worked(&self) {
        let mut state = self.state();
        state.patience.worked(Instant::now());
        self.waits(&state);
    }

    /// An upload has failed and is to be made again. Where that has gone on for a while, what waits may be evicted from
    /// now on, and what is held is let go: others need its room more.
    pub(super) fn failed(&self, error: &Error) {
        let mut state = self.state();
        let is_news = state.patience.failed(Instant::now());
        if !self.waits(&state) {
            self.let_all_go(state);
        }
        if is_news {
            tracing::warn!(
                %error, cause = error.cause(),
                "uploads to the shared tier fail: what is evicted meanwhile is not uploaded"
            );
        }
    }

    /// Somebody has waited in vain for room that is held: the same holds for a while.
    pub(super) fn too_slow(&self) {
        let mut state = self.state();
        let is_news = state.patience.too_slow(Instant::now());
        self.waits(&state);
        self.let_all_go(state);
        if is_news {
            tracing::warn!(
                "the shared tier takes less than comes in: what is evicted meanwhile is not uploaded"
            );
        }
    }

    /// Whether uploads are waited for. Eviction is told.
    fn waits(&self, state: &State) -> bool {
        let is_left = state.patience.is_left(Instant::now());
        self.evictor.wait_for_uploads(is_left);
        is_left
    }

    /// Lets go of everything that is held and that nobody uploads at the moment.
    fn let_all_go(&self, mut state: MutexGuard<'_, State>) {
        let all = std::mem::take(&mut state.held);
        state.n_held -= all.len();
        self.show(&state);
        drop(state);
        for _ in &all {
            self.metrics.shared_dropped("no_room");
        }
        drop(all);
        self.released.notify_waiters();
    }

    /// When something is held no more from now on; `None` where nothing is held, or nobody waits for it.
    pub(super) fn next_release(&self) -> Option<Notified<'_>> {
        let released = self.released.notified();
        let state = self.state();
        (state.n_held > 0 && state.patience.is_left(Instant::now())).then_some(released)
    }

    /// What `parcel` is of is not evicted before it is uploaded.
    fn keep(&self, parcel: &Parcel) {
        if let Some(digest) = parcel.blob() {
            self.evictor.await_upload(digest);
        }
    }

    /// It may be from now on.
    fn let_evict(&self, parcel: &Parcel) {
        if let Some(digest) = parcel.blob() {
            self.evictor.upload_ended(digest);
        }
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
        let waiting = state.noted.len() + state.in_hand.len() + state.n_held + unread;
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
            return Some(Work::Held(held));
        }
        let parcel = self.noted.pop_front()?;
        self.known.remove(&parcel);
        self.in_hand.insert(parcel.clone(), false);
        Some(Work::Noted(parcel))
    }
}
