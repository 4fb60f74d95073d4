//! Keeps the directory within its budget.
//!
//! What is remembered here serves eviction alone: whether a blob is there, only the directory says. The
//! [policy] is a list of what may go; a [survey] of the directory, at the start and now and then, puts
//! right what strangers, other processes and crashes have changed. Until the first is over, little is known and little
//! goes; the floor of free room holds all the same.
//!
//! Bytes on their way in count, too: a fill reserves them before it begins, and that is when others have to go. Not at
//! any price: what was stored or used in the last minute stays, because whoever asked is about to ask for the rest.
//! Where it is all that is left, a fill still runs, for everybody who wants it, and its blob is not kept. So what is
//! kept never exceeds the budget, and what is on its way never does. What the shared tier has still to get stays, too, as
//! long as it takes anything: it would have to be fetched again.

mod awaited;
use awaited::Awaited;

mod budget;
pub use budget::{Amount, Budget};

mod policy;
mod room;
pub(super) use room::Reservation;

mod survey;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use super::behind::Behind;
use super::shelf::told;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::storage::{LastUse, Local, Space, StoredBlob};

use policy::{Note, Policy, TOGETHER_SECONDS};

/// Once something has to go, so much of the limit is left, in hundredths: room is made seldom, and then a lot of it.
const LOW_WATER: u64 = 90;

/// What was stored or used within this time does not go, in seconds: an image's manifest comes before its layers, and
/// a client that was told that a blob is there comes back for it within seconds.
const SPARED_SECONDS: u32 = 60;

/// The budget of a directory, and what is known to take from it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Evictor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Local,
    budget: Budget,
    clock: Clock,
    metrics: Metrics,
    behind: Behind,
    state: Mutex<State>,
    /// Whether somebody is at work on getting down to the low water.
    is_lowering: AtomicBool,
    /// The directory is not as it was thought to be: somebody else is at work there.
    is_doubtful: AtomicBool,
    /// How much the cache might take when that was last found out, in bytes.
    limit_bytes: AtomicU64,
    /// When it was last said that others leave us no room, in seconds since 1970; 0 for never.
    warned_at: AtomicU32,
}

#[derive(Debug)]
struct State {
    policy: Policy<Key>,
    awaited: Awaited,
    /// Bytes that are on their way in.
    in_flight: u64,
    /// Those of them that are to be kept, and are being put where they belong.
    admitted: u64,
}

/// A digest, as small as can be: there may be millions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Sha256([u8; 32]),
    /// Boxed, since hardly any blob is called so.
    Sha512(Box<[u8; 64]>),
}

/// Seconds between two warnings that others leave us no room.
const WARN_EVERY_SECONDS: u32 = 60 * 60;

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// There is more than `max_size`.
    MaxSize,
    /// There is less free room than `min_free`.
    MinFree,
}

/// How much the cache may take now, and why not more.
#[derive(Debug, Clone, Copy)]
struct Limit {
    bytes: u64,
    reason: Reason,
}

impl Evictor {
    /// Knows of nothing yet. Must be called inside a tokio runtime, where it looks after the directory from now on.
    pub(super) fn start(
        storage: Local,
        budget: Budget,
        clock: Clock,
        metrics: Metrics,
        behind: Behind,
    ) -> Self {
        let state = State {
            policy: Policy::new(),
            awaited: Awaited::default(),
            in_flight: 0,
            admitted: 0,
        };
        let evictor = Self(Arc::new(Inner {
            storage,
            budget,
            clock,
            metrics,
            behind,
            state: Mutex::new(state),
            is_lowering: AtomicBool::new(false),
            is_doubtful: AtomicBool::new(true),
            limit_bytes: AtomicU64::new(u64::MAX),
            warned_at: AtomicU32::new(0),
        }));
        survey::start(&evictor);
        evictor
    }

    /// Whether a use of a stored blob now is none that has to be remembered.
    pub(super) fn was_just_used(&self, blob: &StoredBlob) -> bool {
        blob.last_use.at.abs_diff(u64::from(self.now())) < u64::from(TOGETHER_SECONDS)
    }

    /// A stored blob is used now. Remembers it on disk, too, at most once a minute. May block for that.
    pub(super) fn used(&self, digest: &Digest, blob: &StoredBlob) {
        if self.was_just_used(blob) {
            return;
        }
        let now = self.now();
        let key = Key::from(digest);
        let mut state = self.state();
        let note = state.policy.used(&key, now);
        drop(state);
        let last_use = LastUse {
            at: u64::from(now),
            note: note.map_or(blob.last_use.note, Note::to_number),
        };
        told(self.0.storage.touch(blob, last_use), &self.0.metrics);
    }

    /// A blob whose content is in memory is used now. Does not block: while the list is busy, nothing is remembered.
    /// `told_used` is when it was told last: no more than once a second has to be.
    pub(super) fn used_in_memory(&self, digest: &Digest, told_used: &AtomicU32) {
        let now = self.now();
        if told_used.load(Ordering::Relaxed) == now {
            return;
        }
        let note = match self.0.state.try_lock() {
            Ok(mut state) => {
                told_used.store(now, Ordering::Relaxed);
                state.policy.used(&Key::from(digest), now)
            }
            Err(_) => None,
        };
        let Some(note) = note else {
            return;
        };
        let (storage, metrics, digest) = (self.0.storage.clone(), self.0.metrics.clone(), *digest);
        let last_use = LastUse {
            at: u64::from(now),
            note: note.to_number(),
        };
        self.0.behind.run(move || {
            if let Some(Some(blob)) = told(storage.blob(&digest), &metrics) {
                told(storage.touch(&blob, last_use), &metrics);
            }
        });
    }

    /// A blob is not there, whatever was thought.
    pub(super) fn missing(&self, digest: &Digest) {
        let mut state = self.state();
        if state.policy.remove(&Key::from(digest)).is_some() {
            self.show(&state);
            // Where one was removed, more may have been.
            self.0.is_doubtful.store(true, Ordering::Relaxed);
        }
    }

    /// Lets others go until what is there and on its way is within `limit`, and then, behind, some more.
    fn make_room(&self, limit: Limit) {
        if !self.is_over(limit.bytes) {
            return;
        }
        self.evict_to(limit, limit.bytes);
        if self.0.is_lowering.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.clone();
        self.0.behind.run(move || {
            this.evict_to(limit, limit.bytes / 100 * LOW_WATER);
            this.0.is_lowering.store(false, Ordering::Release);
        });
    }

    fn is_over(&self, bytes: u64) -> bool {
        let state = self.state();
        state.policy.bytes() + state.in_flight > bytes
    }

    /// Lets blobs go until there are `bytes`, as far as they may go. Blocks.
    fn evict_to(&self, limit: Limit, bytes: u64) {
        let started = Instant::now();
        let now = self.now();
        let spared = now.saturating_sub(SPARED_SECONDS)..now.saturating_add(SPARED_SECONDS);
        let (mut n_blobs, mut freed, mut n_missing) = (0_u64, 0_u64, 0_u64);
        while let Some((digest, size)) = self.next_victim(limit.reason, bytes, &spared) {
            match self.0.storage.remove_blob(&digest) {
                Ok(true) => {
                    n_blobs += 1;
                    freed += size;
                    self.0.metrics.evicted(limit.reason.as_str(), size);
                }
                Ok(false) => n_missing += 1,
                Err(error) => {
                    // It is off the list; the next survey finds it again.
                    told::<()>(Err(error), &self.0.metrics);
                    self.0.is_doubtful.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
        if n_missing > 0 {
            self.0.is_doubtful.store(true, Ordering::Relaxed);
        }
        let state = self.state();
        self.show(&state);
        if n_blobs > 0 {
            tracing::info!(
                reason = limit.reason.as_str(),
                blobs = n_blobs,
                bytes = freed,
                left_bytes = state.policy.bytes(),
                limit_bytes = limit.bytes,
                missing = n_missing,
                elapsed = ?started.elapsed(),
                "evicted"
            );
        }
    }

    /// The next blob to go, while there are more than `bytes`. Others need the disk more than the shared tier needs what
    /// waits for it.
    fn next_victim(
        &self,
        reason: Reason,
        bytes: u64,
        spared: &Range<u32>,
    ) -> Option<(Digest, u64)> {
        let mut state = self.state();
        if state.policy.bytes() + state.in_flight <= bytes {
            return None;
        }
        let State {
            policy, awaited, ..
        } = &mut *state;
        let victim = policy.evict(spared, |key| awaited.stays(key));
        let victim = match reason {
            Reason::MaxSize => victim,
            Reason::MinFree => victim.or_else(|| policy.evict(spared, |_| false)),
        }?;
        Some((victim.key.digest(), victim.bytes))
    }

    /// How much the cache may take: what was configured, and no more than leaves the others on the disk their room.
    fn limit(&self) -> Limit {
        let state = self.state();
        let taken = state.policy.bytes() + state.in_flight;
        drop(state);
        // A file system that does not say how large it is bounds nothing.
        let space = told(self.0.storage.space(), &self.0.metrics).unwrap_or(Space {
            total: u64::MAX,
            available: u64::MAX,
        });
        let limit = self.0.budget.limit(space, taken);
        self.0.limit_bytes.store(limit.bytes, Ordering::Relaxed);
        self.0.metrics.cache_limit_bytes(limit.bytes);
        if limit.reason == Reason::MinFree && limit.bytes <= taken {
            self.warn_of_full_disk(space);
        }
        limit
    }

    /// Says that nothing is added while others fill the disk: a mirror that does not cache looks like a fault of its own.
    fn warn_of_full_disk(&self, space: Space) {
        let (now, last) = (self.now(), self.0.warned_at.load(Ordering::Relaxed));
        if last == 0 || now.saturating_sub(last) >= WARN_EVERY_SECONDS {
            self.0.warned_at.store(now, Ordering::Relaxed);
            tracing::warn!(
                available_bytes = space.available,
                "less than cache.min_free is free on the disk: what is pulled is not kept until there is more room"
            );
        }
    }

    fn now(&self) -> u32 {
        let since = self.0.clock.now().duration_since(SystemTime::UNIX_EPOCH);
        // Until 2106.
        u32::try_from(since.unwrap_or_default().as_secs()).unwrap_or(u32::MAX)
    }

    fn show(&self, state: &State) {
        self.0.metrics.cache_bytes(state.policy.bytes());
        self.0.metrics.cache_objects("blob", state.policy.len());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reason {
    /// The metric label.
    const fn as_str(self) -> &'static str {
        match self {
            Self::MaxSize => "max_size",
            Self::MinFree => "min_free",
        }
    }
}

impl Key {
    fn digest(&self) -> Digest {
        match self {
            Self::Sha256(bytes) => Digest::Sha256(*bytes),
            Self::Sha512(bytes) => Digest::Sha512(**bytes),
        }
    }
}

impl From<&Digest> for Key {
    fn from(digest: &Digest) -> Self {
        match digest {
            Digest::Sha256(bytes) => Self::Sha256(*bytes),
            Digest::Sha512(bytes) => Self::Sha512(Box::new(*bytes)),
        }
    }
}
