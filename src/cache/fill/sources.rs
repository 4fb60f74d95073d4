//! Who may have the blob: each caller brings an upstream repository of their own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::upstream::{Error, Repository};

/// The callers' sources, in the order in which they came.
#[derive(Debug)]
pub(super) struct Sources(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// Each with why it has nothing more to give, once that is so.
    entries: Vec<(Repository, Option<Error>)>,
    /// Set once every source has failed: whoever comes now starts a fill of their own.
    closed: bool,
}

impl Sources {
    pub(super) fn new(first: Repository) -> Self {
        let entries = vec![(first, None)];
        Self(Mutex::new(Inner {
            entries,
            closed: false,
        }))
    }

    /// Takes in another caller's source. `false` when it comes too late to matter.
    pub(super) fn offer(&self, source: &Repository) -> bool {
        let mut inner = self.inner();
        if !inner.closed && !inner.entries.iter().any(|(known, _)| known == source) {
            inner.entries.push((source.clone(), None));
        }
        !inner.closed
    }

    /// The first source that has not failed. Without one the list is closed: there will be none.
    pub(super) fn next(&self) -> Option<Repository> {
        let mut inner = self.inner();
        let next = inner.entries.iter().find(|(_, failure)| failure.is_none());
        let next = next.map(|(source, _)| source.clone());
        inner.closed = next.is_none();
        next
    }

    /// `source` has nothing more to give.
    pub(super) fn failed(&self, source: &Repository, error: Error) {
        let mut inner = self.inner();
        if let Some(entry) = inner.entries.iter_mut().find(|(known, _)| known == source) {
            entry.1 = Some(error);
        }
    }

    /// Why `source` has nothing more to give, where that is so.
    pub(super) fn failure_of(&self, source: &Repository) -> Option<Error> {
        self.inner()
            .entries
            .iter()
            .find(|(known, _)| known == source)?
            .1
            .clone()
    }

    /// Nobody else can help any more.
    pub(super) fn close(&self) {
        self.inner().closed = true;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
