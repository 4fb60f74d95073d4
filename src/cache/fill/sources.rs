//! Who may have the blob: the shared tier, if it says so, and then the upstream repositories that callers bring.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::{Digest, Namespace};
use crate::storage::Audience;
use crate::storage::shared::SharedBlob;
use crate::upstream::{BlobSource, Error, Repository};

use super::giver::Giver;

/// Most sources of one fill. Whoever brings another one shares what those give; clients can make up any number.
const SOURCES_MAX: usize = 16;

/// The callers' sources, in the order in which they came.
#[derive(Debug)]
pub(super) struct Sources(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    digest: Digest,
    /// What the shared tier has, as long as it gives it: it is asked before all others.
    shared: Option<SharedBlob>,
    /// Whose the bytes are that came from there.
    shared_gave: Option<Audience>,
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
            shared: None,
            shared_gave: None,
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

    /// The shared tier has the blob.
    pub(super) fn found(&self, blob: SharedBlob) {
        self.inner().shared = Some(blob);
    }

    /// What the shared tier has, where bytes of this attempt come from there.
    pub(super) fn shared(&self) -> Option<SharedBlob> {
        let inner = self.inner();
        inner.shared_gave.and(inner.shared.clone())
    }

    /// `giver` began to send.
    pub(super) fn gave(&self, giver: &Giver) {
        let mut inner = self.inner();
        match giver {
            Giver::Shared(blob) => inner.shared_gave = Some(blob.audience()),
            Giver::Upstream(source) => {
                let mut entries = inner.entries.iter_mut();
                if let Some(entry) = entries.find(|entry| entry.is(source.repository())) {
                    entry.gave = true;
                }
            }
        }
    }

    /// What came so far is thrown away.
    pub(super) fn begin_anew(&self) {
        let mut inner = self.inner();
        inner.shared_gave = None;
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

    /// Whether bytes come from a repository of `namespace`, or from the shared tier, which is the operator's own.
    pub(super) fn come_from(&self, namespace: &Namespace) -> bool {
        let inner = self.inner();
        let mut entries = inner.entries.iter();
        let is_ours = inner.shared_gave.is_some();
        is_ours
            || entries.any(|entry| entry.gave && entry.source.repository().namespace() == namespace)
    }

    /// Whose the bytes are: everybody's where nobody had to show anything for any of them.
    pub(super) fn audience(&self) -> Audience {
        let givers = self.givers();
        let shared_gave = self.inner().shared_gave;
        let is_public = givers.iter().all(Repository::gives_to_anybody);
        match shared_gave {
            Some(audience) if is_public => audience,
            None if is_public && !givers.is_empty() => Audience::Everybody,
            Some(_) | None => Audience::Entitled,
        }
    }

    /// The first source that has not failed. Without one the list is closed: there will be none.
    pub(super) fn next(&self) -> Option<Giver> {
        let mut inner = self.inner();
        if let Some(blob) = &inner.shared {
            return Some(Giver::Shared(blob.clone()));
        }
        let next = inner.entries.iter().find(|entry| entry.failure.is_none());
        let next = next.map(|entry| Giver::Upstream(entry.source.clone()));
        inner.closed = next.is_none();
        next
    }

    /// Whether some source has not failed. Without one the list is closed.
    pub(super) fn has_more(&self) -> bool {
        self.next().is_some()
    }

    /// Whether some source that has not failed is none of `asked`.
    pub(super) fn has_other_than(&self, asked: &[Giver]) -> bool {
        let inner = self.inner();
        let is_other = |entry: &&Entry| {
            let mut repositories = asked.iter().filter_map(Giver::repository);
            let was_asked = repositories.any(|repository| entry.is(repository));
            entry.failure.is_none() && !was_asked
        };
        inner.entries.iter().any(|entry| is_other(&entry))
    }

    /// `giver` has nothing more to give. What the shared tier lacks is nobody's error.
    pub(super) fn failed(&self, giver: &Giver, error: Error) {
        let mut inner = self.inner();
        let source = match giver {
            Giver::Shared(_) => {
                inner.shared = None;
                return;
            }
            Giver::Upstream(source) => source.repository(),
        };
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
