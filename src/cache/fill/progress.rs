//! How far a blob on its way in has come: its task tells, its readers wait.

use std::fmt;
use std::fs::File;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::FillError;
use super::plan::Plan;
use super::sources::Sources;
use crate::oci::Digest;
use crate::storage::Audience;
use crate::upstream::{self, Repository};

/// How many bytes at the end of a blob wait for the digest. More delays the end of a download, fewer let a client see
/// more of wrong bytes; what matters is that it is more than none.
pub(in crate::cache) const WITHHELD_BYTES: u64 = 64 * 1024;

/// How far ahead of what is being received a reader waits at the front, in bytes, as most do: nobody need be told.
pub(super) const FRONT_BYTES: u64 = 1024 * 1024;

/// One blob on its way in.
pub(in crate::cache) struct Fill {
    pub(super) digest: Digest,
    pub(super) state: watch::Sender<State>,
    pub(super) sources: Sources,
    /// How large the blob is said to be.
    pub(super) hint: Option<u64>,
    /// A reader waits far from where anything is being received.
    pub(super) stranded: Notify,
}

/// Somebody waits for the fill to open, for as long as this lives.
#[derive(Debug)]
pub(in crate::cache) struct Presence {
    _state: watch::Receiver<State>,
}

/// What readers watch.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) plan: Plan,
    /// Made when the first upstream answers.
    pub(super) file: Option<Arc<File>>,
    /// Whose the bytes are, where they were in storage after all.
    pub(super) found: Option<Audience>,
    /// What the shared tier had to do with it.
    pub(super) share: Share,
    /// How often the fill has begun anew.
    attempt: u32,
    end: Option<End>,
}

/// What is known once an upstream has begun to answer.
#[derive(Debug, Clone)]
pub(in crate::cache) struct Opened {
    /// The size of the whole blob.
    pub(in crate::cache) size: u64,
    /// Where its bytes are as far as they have come.
    pub(in crate::cache) file: Arc<File>,
    /// Which attempt at the blob these bytes are of.
    attempt: u32,
}

/// What the shared tier has to do with a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::cache) enum Share {
    /// Nothing: it does not have the blob, or there is none.
    #[default]
    Nothing,
    /// It gave the first bytes.
    Gave,
    /// It is in trouble.
    Trouble,
}

/// Whether a caller may read along.
#[derive(Debug)]
pub(in crate::cache) enum Standing {
    /// Upstream let them in, or would let in anybody.
    Entitled,
    /// Their own source did not give it to them.
    Refused(upstream::Error),
    /// Their own source was not asked.
    Unknown,
}

/// How a fill ended.
#[derive(Debug, Clone)]
pub(super) enum End {
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
    pub(super) fn new(digest: Digest, source: &Repository, hint: Option<u64>) -> Self {
        let (state, stranded) = (watch::Sender::default(), Notify::new());
        Self {
            digest,
            state,
            sources: Sources::new(source, digest),
            hint,
            stranded,
        }
    }

    pub(super) fn presence(&self) -> Presence {
        Presence {
            _state: self.state.subscribe(),
        }
    }

    /// The digest the bytes have to hash to.
    pub(in crate::cache) fn digest(&self) -> Digest {
        self.digest
    }

    /// Waits until the size is known, and for a blob that is withheld whole anyway, until its digest is: so that wrong
    /// bytes are an error and not a broken body. `source` is the caller's own: its error is the one the caller gets.
    ///
    /// Cancel-safe.
    pub(in crate::cache) async fn opened(&self, source: &Repository) -> Result<Opened, FillError> {
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
    pub(in crate::cache) fn audience(&self) -> Audience {
        let found = self.state.borrow().found;
        found.unwrap_or_else(|| self.sources.audience())
    }

    /// What is known of the right of whoever brings `source` to read along, without asking upstream.
    pub(in crate::cache) fn standing(&self, source: &Repository) -> Standing {
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

    /// What the shared tier has to do with it.
    pub(in crate::cache) fn share(&self) -> Share {
        self.state.borrow().share
    }

    /// Whether every byte is there and right.
    pub(in crate::cache) fn is_verified(&self) -> bool {
        matches!(self.state.borrow().end, Some(End::Verified))
    }

    /// What is known of the blob already, without waiting.
    pub(in crate::cache) fn opened_already(&self) -> Option<Opened> {
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
    pub(in crate::cache) async fn readable(
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
    pub(super) fn plan<T: Default>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        let mut changed = T::default();
        self.state.send_if_modified(|state| {
            changed = change(&mut state.plan);
            false
        });
        changed
    }

    /// What came is wrong; another source is asked for all of it.
    pub(super) fn begin_anew(&self) {
        self.state.send_modify(|state| {
            state.plan = Plan::default();
            state.file = None;
            state.attempt += 1;
        });
    }

    /// The fill is over. Only the first end counts.
    pub(super) fn end(&self, end: End) {
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
            share: Share::Nothing,
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
