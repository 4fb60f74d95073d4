//! One upstream blob on its way in, for everybody who wants it.
//!
//! A fill is keyed by digest and belongs to no request: whoever asks joins it and brings a source of their own, an
//! upstream repository that may have the blob. The bytes go into one ingest file, and every reader reads that file at
//! its own pace, so the slowest client slows nobody and memory does not grow with the blob or its readers.
//!
//! What is there is a set of ranges, not a length: several connections may work on several places at once, resume
//! where another stopped, or jump to where a reader waits ([`plan`]). One connection is enough until it is shown that
//! more of them help ([`growth`]). Hashing follows the front ([`sink`]). A reader of the whole blob is kept
//! [`WITHHELD_BYTES`] away from the end until the digest is known to be right: no client ever completes a body that is
//! wrong.
//!
//! A fill ends in exactly one [`End`]; a reader that finds neither the bytes nor an end waits, and can never take
//! "nobody writes any more" for the end of the body.

mod extents;
mod plan;
use plan::Plan;

mod gather;
mod growth;
mod places;
use places::Places;

mod run;
mod sink;
mod sources;
use sources::Sources;

mod task;
mod worker;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::behind::Behind;
use super::evict::Evictor;
use super::links::Links;
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::single_flight::Role;
use crate::storage::{self, Audience, Local};
use crate::upstream::{self, Repository};

/// How many bytes at the end of a blob wait for the digest. More delays the end of a download, fewer let a client see
/// more of wrong bytes; what matters is that it is more than none.
pub(super) const WITHHELD_BYTES: u64 = 64 * 1024;

/// How far ahead of what is being received a reader has to wait, in bytes, for a connection of its own to be opened at
/// once. Nearer readers wait until the rate is known.
const NEAR_BYTES: u64 = 16 * 1024 * 1024;

/// How far ahead of what is being received a reader waits at the front, in bytes, as most do: nobody need be told.
const FRONT_BYTES: u64 = 1024 * 1024;

/// Why a fill gave no blob.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum FillError {
    /// The source this caller brought failed, and so did all others.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// All bytes came, and they are not the blob.
    #[error("upstream sent bytes that hash to {found}")]
    WrongDigest {
        /// What they hash to.
        found: Digest,
    },
    /// The bytes so far were wrong, and another source is asked for all of them.
    #[error("the fill began anew")]
    BegunAnew,
    /// The bytes could not be kept.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// As many blobs are on their way in as may be.
    #[error("as many blobs are on their way in as may be")]
    Full {
        /// When to come back.
        retry_after: Duration,
    },
    /// A bug here.
    #[error("the fill ended without a result")]
    Broken,
}

/// The blobs on their way in. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Fills {
    active: Arc<Mutex<HashMap<Digest, Arc<Fill>>>>,
    places: Places,
    storage: Local,
    links: Links,
    evictor: Evictor,
    behind: Behind,
    metrics: Metrics,
}

impl Fills {
    /// None under way.
    pub(super) fn new(
        storage: Local,
        links: Links,
        evictor: Evictor,
        behind: Behind,
        metrics: Metrics,
    ) -> Self {
        Self {
            active: Arc::default(),
            places: Places::new(),
            storage,
            links,
            evictor,
            behind,
            metrics,
        }
    }

    /// Joins the fill of `digest` with `source`, or starts it. `hint` is how large the blob is said to be. A fill that
    /// waits for a place does so for as long as somebody is present.
    pub(super) fn join(
        &self,
        digest: Digest,
        source: &Repository,
        hint: Option<u64>,
    ) -> (Role, Arc<Fill>, Presence) {
        let mut active = self.active();
        if let Some(fill) = active.get(&digest)
            && fill.sources.offer(source)
        {
            return (Role::Follower, Arc::clone(fill), fill.presence());
        }
        let fill = Arc::new(Fill::new(digest, source, hint));
        let presence = fill.presence();
        active.insert(digest, Arc::clone(&fill));
        let entry = Entry {
            fills: self.clone(),
            fill: Arc::clone(&fill),
        };
        #[expect(clippy::disallowed_methods, reason = "no request owns a fill")]
        tokio::spawn(async move {
            // Dropped last, and also when the task panics.
            let Entry { fills, fill } = &entry;
            task::run(fill, fills).await;
        });
        (Role::Leader, fill, presence)
    }

    /// The fill of `digest`, where one is under way.
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Fill>> {
        self.active().get(digest).cloned()
    }

    /// Takes `fill` out of the map if nobody is present; says whether that is so. Whoever comes then starts another.
    fn give_up(&self, fill: &Arc<Fill>) -> bool {
        // Nobody joins while this is held.
        let mut active = self.active();
        let nobody = fill.state.receiver_count() == 0;
        if nobody
            && active
                .get(&fill.digest)
                .is_some_and(|found| Arc::ptr_eq(found, fill))
        {
            active.remove(&fill.digest);
        }
        nobody
    }

    fn active(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Fill>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the fill out of the map when its task is over, however it ended, and makes sure that it has an end.
struct Entry {
    fills: Fills,
    fill: Arc<Fill>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.fill.end(End::Failed(FillError::Broken));
        let mut active = self.fills.active();
        if active
            .get(&self.fill.digest)
            .is_some_and(|fill| Arc::ptr_eq(fill, &self.fill))
        {
            active.remove(&self.fill.digest);
        }
    }
}

/// One blob on its way in.
pub(super) struct Fill {
    digest: Digest,
    state: watch::Sender<State>,
    sources: Sources,
    /// How large the blob is said to be.
    hint: Option<u64>,
    /// A reader waits far from where anything is being received.
    stranded: Notify,
}

/// Somebody waits for the fill to open, for as long as this lives.
#[derive(Debug)]
pub(super) struct Presence {
    _state: watch::Receiver<State>,
}

/// What readers watch.
#[derive(Debug, Default)]
struct State {
    plan: Plan,
    /// Made when the first upstream answers.
    file: Option<Arc<File>>,
    /// Whose the bytes are, where they were in storage after all.
    found: Option<Audience>,
    /// How often the fill has begun anew.
    attempt: u32,
    end: Option<End>,
}

/// What is known once an upstream has begun to answer.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// The size of the whole blob.
    pub(super) size: u64,
    /// Where its bytes are as far as they have come.
    pub(super) file: Arc<File>,
    /// Which attempt at the blob these bytes are of.
    attempt: u32,
}

/// Whether a caller may read along.
#[derive(Debug)]
pub(super) enum Standing {
    /// Upstream let them in, or would let in anybody.
    Entitled,
    /// Their own source did not give it to them.
    Refused(upstream::Error),
    /// Their own source was not asked.
    Unknown,
}

/// How a fill ended.
#[derive(Debug, Clone)]
enum End {
    /// Every byte is there, and the digest is right.
    Verified,
    /// It is not going to be.
    Failed(FillError),
}

impl State {
    fn opened(&self) -> Option<Opened> {
        Some(Opened {
            size: self.plan.size()?,
            file: Arc::clone(self.file.as_ref()?),
            attempt: self.attempt,
        })
    }

    /// Up to where a reader at `offset` may read, or how the fill ended; `None` while it has to wait.
    fn readable(&self, attempt: u32, offset: u64, whole: bool) -> Option<Result<u64, FillError>> {
        if attempt != self.attempt {
            return Some(Err(FillError::BegunAnew));
        }
        let size = self.plan.size().unwrap_or(0);
        let limit = match &self.end {
            Some(End::Failed(error)) => return Some(Err(error.clone())),
            None if whole => size.saturating_sub(WITHHELD_BYTES),
            None | Some(End::Verified) => size,
        };
        let end = self.plan.present_from(offset).min(limit);
        (end > offset).then_some(Ok(end))
    }
}

impl Fill {
    fn new(digest: Digest, source: &Repository, hint: Option<u64>) -> Self {
        let (state, stranded) = (watch::Sender::default(), Notify::new());
        Self {
            digest,
            state,
            sources: Sources::new(source, digest),
            hint,
            stranded,
        }
    }

    fn presence(&self) -> Presence {
        Presence {
            _state: self.state.subscribe(),
        }
    }

    /// The digest the bytes have to hash to.
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// Waits until the size is known, and for a blob that is withheld whole anyway, until its digest is: so that wrong
    /// bytes are an error and not a broken body. `source` is the caller's own: its error is the one the caller gets.
    ///
    /// Cancel-safe.
    pub(super) async fn opened(&self, source: &Repository) -> Result<Opened, FillError> {
        let mut state = self.state.subscribe();
        let found = state
            .wait_for(|state| {
                let is_large = state
                    .opened()
                    .is_some_and(|opened| opened.size > WITHHELD_BYTES);
                is_large || state.end.is_some()
            })
            .await
            .map_err(|_| FillError::Broken)?;
        let error = match &found.end {
            Some(End::Failed(error)) => error.clone(),
            None | Some(End::Verified) => return found.opened().ok_or(FillError::Broken),
        };
        drop(found);
        Err(self
            .sources
            .failure_of(source)
            .map_or(error, FillError::Upstream))
    }

    /// Whose the bytes are.
    pub(super) fn audience(&self) -> Audience {
        let found = self.state.borrow().found;
        found.unwrap_or_else(|| self.sources.audience())
    }

    /// What is known of the right of whoever brings `source` to read along, without asking upstream.
    pub(super) fn standing(&self, source: &Repository) -> Standing {
        let is_public = self.audience() == Audience::Everybody && source.takes_public_content();
        // Nobody is told what a registry says that they did not ask, until it is known to be right.
        let is_theirs = || self.is_verified() || self.sources.come_from(source.namespace());
        if self.sources.has_given(source) || (is_public && is_theirs()) {
            return Standing::Entitled;
        }
        match self.sources.failure_of(source) {
            Some(error) => Standing::Refused(error),
            None => Standing::Unknown,
        }
    }

    /// Whether every byte is there and right.
    pub(super) fn is_verified(&self) -> bool {
        matches!(self.state.borrow().end, Some(End::Verified))
    }

    /// What is known of the blob already, without waiting.
    pub(super) fn opened_already(&self) -> Option<Opened> {
        let state = self.state.borrow();
        match state.end {
            None | Some(End::Verified) => state.opened(),
            Some(End::Failed(_)) => None,
        }
    }

    /// Waits until there is something to read at `offset` of what was `opened`, and says up to where. A reader of the
    /// `whole` blob gets the last bytes only when the digest is right.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// `BegunAnew` when the bytes of that attempt were wrong: a reader who was given none may open again.
    pub(super) async fn readable(
        &self,
        opened: &Opened,
        offset: u64,
        whole: bool,
    ) -> Result<u64, FillError> {
        let attempt = opened.attempt;
        let mut state = self.state.subscribe();
        let is_far = {
            let state = state.borrow_and_update();
            if let Some(readable) = state.readable(attempt, offset, whole) {
                return readable;
            }
            state.plan.present_from(offset) == offset && !state.plan.reaches(offset, FRONT_BYTES)
        };
        let _waiting = is_far.then(|| Waiting::new(self, offset));
        let found = state
            .wait_for(|state| state.readable(attempt, offset, whole).is_some())
            .await
            .map_err(|_| FillError::Broken)?;
        found
            .readable(attempt, offset, whole)
            .unwrap_or(Err(FillError::Broken))
    }

    /// Reads or changes the plan without waking anybody. Takes the lock for writing: not to be called by who holds it
    /// for reading.
    fn plan<T: Default>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        let mut changed = T::default();
        self.state.send_if_modified(|state| {
            changed = change(&mut state.plan);
            false
        });
        changed
    }

    /// What came is wrong; another source is asked for all of it.
    fn begin_anew(&self) {
        self.state.send_modify(|state| {
            state.plan = Plan::default();
            state.file = None;
            state.attempt += 1;
        });
    }

    /// The fill is over. Only the first end counts.
    fn end(&self, end: End) {
        if matches!(end, End::Failed(_)) {
            self.sources.close();
        }
        self.state.send_if_modified(|state| {
            let first = state.end.is_none();
            if first {
                state.end = Some(end);
            }
            first
        });
    }
}

/// A reader that waits far from where anything is being received.
struct Waiting<'a> {
    fill: &'a Fill,
    offset: u64,
}

impl<'a> Waiting<'a> {
    fn new(fill: &'a Fill, offset: u64) -> Self {
        fill.plan(|plan| plan.wait(offset));
        fill.stranded.notify_one();
        Self { fill, offset }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.fill.plan(|plan| plan.wait_no_more(self.offset));
    }
}

impl fmt::Debug for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill")
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(size: u64, present: u64, end: Option<End>) -> State {
        let file = Some(Arc::new(tempfile::tempfile().expect("a temporary file")));
        let mut plan = Plan::default();
        plan.set_size(size);
        if let Some((id, _)) = plan.claim(present, present) {
            plan.received(id, present);
        }
        State {
            plan,
            file,
            found: None,
            attempt: 0,
            end,
        }
    }

    fn check(state: &State, offset: u64, whole: bool, expected: Option<u64>) {
        let found = state
            .readable(0, offset, whole)
            .map(|found| found.expect("not failed"));
        assert_eq!(found, expected, "at {offset}, whole: {whole}");
    }

    #[test]
    fn the_end_of_the_whole_blob_waits_for_the_digest() {
        let size = 3 * WITHHELD_BYTES;
        let unverified = state(size, size, None);
        check(&unverified, 0, true, Some(2 * WITHHELD_BYTES));
        check(&unverified, 2 * WITHHELD_BYTES, true, None);
        check(&unverified, 2 * WITHHELD_BYTES, false, Some(size));
        let verified = state(size, size, Some(End::Verified));
        check(&verified, 2 * WITHHELD_BYTES, true, Some(size));
    }

    #[test]
    fn a_small_blob_waits_whole() {
        check(&state(10, 10, None), 0, true, None);
        check(&state(10, 10, Some(End::Verified)), 0, true, Some(10));
    }

    #[test]
    fn nothing_of_a_failed_fill_is_read_any_more() {
        let failed = state(10, 10, Some(End::Failed(FillError::Broken)));
        assert!(matches!(
            failed.readable(0, 0, false),
            Some(Err(FillError::Broken))
        ));
    }
}
