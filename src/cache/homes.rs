//! Which of several registries has the repositories that are asked for by their name alone.
//!
//! The one that had it is asked first for a while. After that the others have their turn again, and it stands in where
//! they are in trouble. On disk as well, so that a mirror that starts while upstream is down knows its way.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::behind::Behind;
use super::pending::Pending;
use super::shelf::told;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oci::{Namespace, RepositoryName};
use crate::storage::{Local, RecordKey};

/// Most repositories that are remembered in memory, at some hundred bytes each. Others cost a look at the disk.
const HOT_MAX: u64 = 10_000;

/// How long a repository is taken to be where it was found. One that turns up in a registry further up the list is
/// served from there after this time.
const FRESH: Duration = Duration::from_hours(1);

/// Where a repository was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The registry.
    pub namespace: Namespace,
    /// Whether that was so short a time ago that no other is asked before.
    pub is_fresh: bool,
}

/// What is known of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    namespace: Namespace,
    /// In seconds since 1970.
    at: u64,
}

/// The record on disk. It says what it is about, because the file name does not.
#[derive(Debug, Serialize, Deserialize)]
struct HomeFile {
    repository: RepositoryName,
    namespace: Namespace,
    /// When it was found there, in seconds since 1970.
    found: u64,
}

/// Where repositories were found. A hint: it only chooses whom to ask. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Homes {
    storage: Local,
    metrics: Metrics,
    clock: Clock,
    hot: moka::sync::Cache<RepositoryName, Found>,
    pending: Pending<RepositoryName, Found>,
}

impl Homes {
    pub(super) fn new(storage: Local, behind: Behind, clock: Clock, metrics: Metrics) -> Self {
        Self {
            storage,
            metrics,
            clock,
            hot: moka::sync::Cache::new(HOT_MAX),
            pending: Pending::new(behind),
        }
    }

    /// Where `repository` was found.
    ///
    /// Cancel-safe.
    pub(super) async fn find(&self, repository: &RepositoryName) -> Option<Home> {
        let known = self
            .hot
            .get(repository)
            .or_else(|| self.pending.get(repository));
        let found = match known {
            Some(found) => found,
            None => self.read(repository).await?,
        };
        Some(Home {
            is_fresh: self.is_fresh(&found),
            namespace: found.namespace,
        })
    }

    /// Takes down that `repository` is in the registry `namespace`. What was found a moment ago stays: that another
    /// registry has a tag which this one lacks does not move all the others.
    pub(super) fn keep(&self, repository: &RepositoryName, namespace: &Namespace) {
        let known = self.hot.get(repository);
        if known.is_some_and(|found| self.is_fresh(&found)) {
            return;
        }
        let found = Found {
            namespace: namespace.clone(),
            at: seconds(self.clock.now()),
        };
        self.hot.insert(repository.clone(), found.clone());
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        let write = move |repository: &RepositoryName, found: &Found| {
            let file = HomeFile {
                repository: repository.clone(),
                namespace: found.namespace.clone(),
                found: found.at,
            };
            // Strings and numbers always serialise; an empty record reads as none.
            let content = serde_json::to_vec(&file).unwrap_or_default();
            let written = storage.write_record(RecordKey::Home(repository), &content);
            told(written, &metrics);
        };
        self.pending.set(repository.clone(), found, write);
    }

    async fn read(&self, repository: &RepositoryName) -> Option<Found> {
        let (this, name) = (self.clone(), repository.clone());
        let read = move || told(this.storage.record(RecordKey::Home(&name)), &this.metrics);
        // An error is that of a runtime that shuts down.
        let content = spawn_blocking(read).await.ok()???;
        let found = parse(&content, repository)?;
        // Somebody may know better meanwhile.
        let entry = self.hot.entry_by_ref(repository).or_insert(found);
        Some(entry.into_value())
    }

    /// Whether nobody else is asked before. Not where it was found in the future: the clock was wrong then, or is now.
    fn is_fresh(&self, found: &Found) -> bool {
        let age = seconds(self.clock.now()).checked_sub(found.at);
        age.is_some_and(|age| age < FRESH.as_secs())
    }
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// What the record in `content` says, if it is about `repository`. A damaged one says nothing.
fn parse(content: &[u8], repository: &RepositoryName) -> Option<Found> {
    let file: HomeFile = serde_json::from_slice(content).ok()?;
    (file.repository == *repository).then_some(Found {
        namespace: file.namespace,
        at: file.found,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_name_or_a_damaged_one_says_nothing() {
        let name = |text: &str| text.parse::<RepositoryName>().expect("a name");
        let namespace: Namespace = "quay.io".parse().expect("a namespace");
        let file = HomeFile {
            repository: name("team/app"),
            namespace: namespace.clone(),
            found: 7,
        };
        let content = serde_json::to_vec(&file).expect("JSON");
        let found = Found { namespace, at: 7 };
        assert_eq!(parse(&content, &name("team/app")), Some(found));
        assert_eq!(parse(&content, &name("team/b")), None);
        for cut in 0..content.len() {
            assert_eq!(parse(&content[..cut], &name("team/app")), None);
        }
    }
}
