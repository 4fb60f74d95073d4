//! One upstream blob on its way in, for everybody who wants it.
//!
//! A fill is keyed by digest and belongs to no request: whoever asks joins it and brings a source of their own, an
//! upstream repository that may have the blob. The bytes go into one ingest file, and every reader reads that file at
//! its own pace, so the slowest client slows nobody and memory does not grow with the blob or its readers.
//!
//! What is there is a set of ranges, not a length, so that sources and connections may work on several places at
//! once. Hashing follows the front. A reader of the whole blob is kept [`WITHHELD_BYTES`] away from the end until the
//! digest is known to be right: no client ever completes a body that is wrong.
//!
//! A fill ends in exactly one [`End`]; a reader that finds neither the bytes nor an end waits, and can never take
//! "nobody writes any more" for the end of the body.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::behind::Behind;
use super::extents::Extents;
use super::receive;
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::single_flight::Role;
use crate::storage::{self, Local};
use crate::upstream::{self, Repository};

/// How many bytes at the end of a blob wait for the digest. More delays the end of a download, fewer let a client see
/// more of wrong bytes; what matters is that it is more than none.
pub(super) const WITHHELD_BYTES: u64 = 64 * 1024;

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
    /// The bytes could not be kept.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// A bug here.
    #[error("the fill ended without a result")]
    Broken,
}

/// The blobs on their way in. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Fills {
    active: Arc<Mutex<HashMap<Digest, Arc<Fill>>>>,
    storage: Local,
    behind: Behind,
    metrics: Metrics,
}

impl Fills {
    /// None under way.
    pub(super) fn new(storage: Local, behind: Behind, metrics: Metrics) -> Self {
        Self {
            active: Arc::default(),
            storage,
            behind,
            metrics,
        }
    }

    /// Joins the fill of `digest` with `source`, or starts it.
    pub(super) fn join(&self, digest: Digest, source: &Repository) -> (Role, Arc<Fill>) {
        let mut active = self.active();
        if let Some(fill) = active.get(&digest)
            && fill.offer(source)
        {
            return (Role::Follower, Arc::clone(fill));
        }
        let fill = Arc::new(Fill::new(digest, source.clone()));
        active.insert(digest, Arc::clone(&fill));
        let task = receive::run(
            Arc::clone(&fill),
            self.storage.clone(),
            self.behind.clone(),
            self.metrics.clone(),
        );
        let entry = Entry {
            fills: self.clone(),
            fill: Arc::clone(&fill),
        };
        #[expect(clippy::disallowed_methods, reason = "no request owns a fill")]
        tokio::spawn(async move {
            // Dropped last, and also when the task panics.
            let _entry = entry;
            task.await;
        });
        (Role::Leader, fill)
    }

    /// The fill of `digest`, where one is under way.
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Fill>> {
        self.active().get(digest).cloned()
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
    sources: Mutex<Sources>,
}

/// What readers watch.
#[derive(Debug, Default)]
pub(super) struct State {
    opened: Option<Opened>,
    present: Extents,
    end: Option<End>,
}

/// What is known once an upstream has begun to answer.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// The size of the whole blob.
    pub(super) size: u64,
    /// Where its bytes are as far as they have come.
    pub(super) file: Arc<File>,
}

/// How a fill ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// Every byte is there, and the digest is right.
    Verified,
    /// It is not going to be.
    Failed(FillError),
}

/// The callers' sources, in the order in which they came.
#[derive(Debug, Default)]
struct Sources {
    entries: Vec<(Repository, Option<upstream::Error>)>,
    /// Set once every source has failed: whoever comes now starts a fill of their own.
    closed: bool,
}

impl State {
    /// Up to where a reader at `offset` may read, or how the fill ended; `None` while it has to wait.
    fn readable(&self, offset: u64, whole: bool) -> Option<Result<u64, FillError>> {
        let size = self.opened.as_ref().map_or(0, |opened| opened.size);
        let limit = match &self.end {
            Some(End::Failed(error)) => return Some(Err(error.clone())),
            None if whole => size.saturating_sub(WITHHELD_BYTES),
            None | Some(End::Verified) => size,
        };
        let end = self.present.end_from(offset).min(limit);
        (end > offset).then_some(Ok(end))
    }
}

impl Fill {
    fn new(digest: Digest, source: Repository) -> Self {
        let sources = Sources {
            entries: vec![(source, None)],
            closed: false,
        };
        Self {
            digest,
            state: watch::Sender::default(),
            sources: Mutex::new(sources),
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
                let size = state.opened.as_ref().map(|opened| opened.size);
                size.is_some_and(|size| size > WITHHELD_BYTES) || state.end.is_some()
            })
            .await
            .map_err(|_| FillError::Broken)?;
        match (&found.opened, &found.end) {
            (Some(opened), None | Some(End::Verified)) => Ok(opened.clone()),
            (_, Some(End::Failed(error))) => {
                let error = error.clone();
                drop(found);
                Err(self.failure_of(source).map_or(error, FillError::Upstream))
            }
            (None, None | Some(End::Verified)) => Err(FillError::Broken),
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
            None | Some(End::Verified) => state.opened.clone(),
            Some(End::Failed(_)) => None,
        }
    }

    /// Waits until there is something to read at `offset`, and says up to where. A reader of the `whole` blob gets
    /// the last bytes only when the digest is right.
    ///
    /// Cancel-safe.
    pub(super) async fn readable(&self, offset: u64, whole: bool) -> Result<u64, FillError> {
        let mut state = self.state.subscribe();
        let found = state
            .wait_for(|state| state.readable(offset, whole).is_some())
            .await
            .map_err(|_| FillError::Broken)?;
        found
            .readable(offset, whole)
            .unwrap_or(Err(FillError::Broken))
    }

    /// Takes in another caller's source. `false` when it comes too late to matter.
    fn offer(&self, source: &Repository) -> bool {
        let mut sources = self.sources();
        if !sources.closed && !sources.entries.iter().any(|(known, _)| known == source) {
            sources.entries.push((source.clone(), None));
        }
        !sources.closed
    }

    /// The next source that has not failed yet. `None` closes the fill: there will be none.
    pub(super) fn next_source(&self) -> Option<Repository> {
        let mut sources = self.sources();
        let next = sources
            .entries
            .iter()
            .find(|(_, failure)| failure.is_none());
        let next = next.map(|(source, _)| source.clone());
        sources.closed = next.is_none();
        next
    }

    /// Remembers that `source` has nothing more to give, and why.
    pub(super) fn source_failed(&self, source: &Repository, error: upstream::Error) {
        let mut sources = self.sources();
        if let Some(entry) = sources
            .entries
            .iter_mut()
            .find(|(known, _)| known == source)
        {
            entry.1 = Some(error);
        }
    }

    fn failure_of(&self, source: &Repository) -> Option<upstream::Error> {
        let sources = self.sources();
        sources
            .entries
            .iter()
            .find(|(known, _)| known == source)?
            .1
            .clone()
    }

    /// The size is known, and the file is there.
    pub(super) fn open(&self, opened: Opened) {
        self.state.send_modify(|state| state.opened = Some(opened));
    }

    /// The bytes of `range` are in the file.
    pub(super) fn received(&self, range: std::ops::Range<u64>) {
        self.state.send_modify(|state| state.present.insert(range));
    }

    /// The fill is over. Only the first end counts.
    pub(super) fn end(&self, end: End) {
        if matches!(end, End::Failed(_)) {
            self.sources().closed = true;
        }
        self.state.send_if_modified(|state| {
            let first = state.end.is_none();
            if first {
                state.end = Some(end);
            }
            first
        });
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
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
        let file = Arc::new(tempfile::tempfile().expect("a temporary file"));
        let mut state = State {
            opened: Some(Opened { size, file }),
            end,
            ..State::default()
        };
        state.present.insert(0..present);
        state
    }

    fn check(state: &State, offset: u64, whole: bool, expected: Option<u64>) {
        let found = state
            .readable(offset, whole)
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
            failed.readable(0, false),
            Some(Err(FillError::Broken))
        ));
    }
}
