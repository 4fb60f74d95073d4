//! Who may have the blob: each caller brings an upstream repository of their own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::{Digest, Namespace};
use crate::storage::Audience;
use crate::upstream::{BlobSource, Error, Repository};

/// Most sources of one fill. Whoever brings another one shares what those give; clients can make up any number.
const SOURCES_MAX: usize = 16;

/// The callers' sources, in the order in which they came.
#[derive(Debug)]
pub(super) struct Sources(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    digest: Digest,
    entries: Vec<Entry>,
    /// Set once every source has failed: whoever comes now starts a fill of their own.
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    source: BlobSource,
    /// Whether bytes of this attempt come from it: then upstream let its caller in.
    gave: bool,
    /// Why it has nothing more to give, once that is so.
    failure: Option<Error>,
}

impl Entry {
    fn new(source: BlobSource) -> Self {
        Self {
            source,
            gave: false,
            failure: None,
        }
    }

    fn is(&self, repository: &Repository) -> bool {
        self.source.repository() == repository
    }
}

impl Sources {
    pub(super) fn new(first: &Repository, digest: Digest) -> Self {
        let entries = vec![Entry::new(first.blob(&digest))];
        Self(Mutex::new(Inner {
            digest,
            entries,
            closed: false,
        }))
    }

    /// Takes in another caller's source. `false` when it comes too late to matter.
    pub(super) fn offer(&self, source: &Repository) -> bool {
        let mut inner = self.inner();
        let is_new = !inner.entries.iter().any(|entry| entry.is(source));
        if is_new && !inner.closed && inner.entries.len() < SOURCES_MAX {
            let entry = Entry::new(source.blob(&inner.digest));
            inner.entries.push(entry);
        }
        !inner.closed
    }

    /// `source` began to send.
    pub(super) fn gave(&self, source: &Repository) {
        let mut inner = self.inner();
        let mut entries = inner.entries.iter_mut();
        if let Some(entry) = entries.find(|entry| entry.is(source)) {
            entry.gave = true;
        }
    }

    /// What came so far is thrown away.
    pub(super) fn begin_anew(&self) {
        let mut inner = self.inner();
        inner
            .entries
            .iter_mut()
            .for_each(|entry| entry.gave = false);
    }

    /// Those whose bytes are in what came.
    pub(super) fn givers(&self) -> Vec<Repository> {
        let inner = self.inner();
        let givers = inner.entries.iter().filter(|entry| entry.gave);
        givers
            .map(|entry| entry.source.repository().clone())
            .collect()
    }

    /// Whether bytes come from `source` itself, as this very caller sees it.
    pub(super) fn has_given(&self, source: &Repository) -> bool {
        let inner = self.inner();
        let mut entries = inner.entries.iter();
        entries.any(|entry| entry.gave && entry.is(source))
    }

    /// Whether bytes come from a repository of `namespace`.
    pub(super) fn come_from(&self, namespace: &Namespace) -> bool {
        let inner = self.inner();
        let mut entries = inner.entries.iter();
        entries.any(|entry| entry.gave && entry.source.repository().namespace() == namespace)
    }

    /// Whose the bytes are: everybody's where nobody had to show anything for any of them.
    pub(super) fn audience(&self) -> Audience {
        let givers = self.givers();
        if !givers.is_empty() && givers.iter().all(Repository::gives_to_anybody) {
            Audience::Everybody
        } else {
            Audience::Entitled
        }
    }

    /// The first source that has not failed. Without one the list is closed: there will be none.
    pub(super) fn next(&self) -> Option<BlobSource> {
        let mut inner = self.inner();
        let next = inner.entries.iter().find(|entry| entry.failure.is_none());
        let next = next.map(|entry| entry.source.clone());
        inner.closed = next.is_none();
        next
    }

    /// Whether some source has not failed. Without one the list is closed.
    pub(super) fn has_more(&self) -> bool {
        self.next().is_some()
    }

    /// Whether some source that has not failed is none of `asked`.
    pub(super) fn has_other_than(&self, asked: &[BlobSource]) -> bool {
        let inner = self.inner();
        let is_other = |entry: &&Entry| {
            let was_asked = asked.iter().any(|source| entry.is(source.repository()));
            entry.failure.is_none() && !was_asked
        };
        inner.entries.iter().any(|entry| is_other(&entry))
    }

    /// `source` has nothing more to give.
    pub(super) fn failed(&self, source: &Repository, error: Error) {
        let mut inner = self.inner();
        let mut entries = inner.entries.iter_mut();
        if let Some(entry) = entries.find(|entry| entry.is(source)) {
            entry.failure = Some(error);
        }
    }

    /// Why `source` has nothing more to give, where that is so.
    pub(super) fn failure_of(&self, source: &Repository) -> Option<Error> {
        let inner = self.inner();
        let mut entries = inner.entries.iter();
        entries.find(|entry| entry.is(source))?.failure.clone()
    }

    /// Nobody else can help any more.
    pub(super) fn close(&self) {
        self.inner().closed = true;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
