//! Lists on disk, so that a mirror that starts while upstream is down has them, too.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::behind::Behind;
use super::links::user_of;
use super::pending::Pending;
use super::shelf::told;
use super::tier::Tier;
use crate::metrics::Metrics;
use crate::oci::{Digest, Namespace, RepositoryName};
use crate::storage::{Local, RECORD_BYTES_MAX, RecordKey};
use crate::upstream::{Holder, Repository};

/// Which list is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ListKey {
    pub(super) namespace: Namespace,
    pub(super) repository: RepositoryName,
    /// What the referrers refer to; nothing, where the tags are meant.
    pub(super) subject: Option<Digest>,
    /// Who may see it: what one is shown is not another's.
    holder: Holder,
}

/// A list on disk. It says what it is about, because the file name does not.
#[derive(Debug, Serialize, Deserialize)]
struct ListFile<L> {
    namespace: Namespace,
    repository: RepositoryName,
    subject: Option<Digest>,
    /// The user name it was shown to.
    #[serde(default)]
    user: Option<String>,
    /// When upstream was asked for it, in seconds since 1970.
    checked: u64,
    list: L,
}

/// Lists at rest. Nobody waits for one that is kept, and what storage cannot do counts as not there. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ListStore {
    storage: Local,
    tier: Tier,
    metrics: Metrics,
    /// Records on their way to disk; `None` is on its way to being removed.
    pending: Pending<ListKey, Option<Bytes>>,
}

impl ListKey {
    pub(super) fn new(source: &Repository, subject: Option<Digest>) -> Self {
        Self {
            namespace: source.namespace().clone(),
            repository: source.name().clone(),
            subject,
            holder: source.holder().clone(),
        }
    }

    /// Whether it may be kept on disk.
    fn is_kept(&self) -> bool {
        !matches!(self.holder, Holder::Caller(_))
    }

    fn record(&self) -> RecordKey<'_> {
        let (namespace, repository) = (&self.namespace, &self.repository);
        match &self.subject {
            None => RecordKey::TagList(namespace, repository),
            Some(subject) => RecordKey::Referrers(namespace, repository, subject),
        }
    }
}

impl ListStore {
    pub(super) fn new(storage: Local, tier: Tier, behind: Behind, metrics: Metrics) -> Self {
        Self {
            storage,
            tier,
            metrics,
            pending: Pending::new(behind),
        }
    }

    /// The list `key` and when upstream was asked for it, if it is here.
    pub(super) async fn read<L: DeserializeOwned>(&self, key: &ListKey) -> Option<(L, SystemTime)> {
        if !key.is_kept() {
            return None;
        }
        if let Some(pending) = self.pending.get(key) {
            return parse(&pending?, key);
        }
        let (this, wanted) = (self.clone(), key.clone());
        let read =
            spawn_blocking(move || told(this.storage.record(wanted.record()), &this.metrics));
        let content = read.await.unwrap_or_else(|panicked| {
            tracing::error!(%panicked, "storage panicked");
            None
        });
        let found = match content.flatten().and_then(|content| parse(&content, key)) {
            Some(found) => Some(found),
            None => match self.tier.record(key.record()).await {
                Some(content) => {
                    let found = parse(&content, key);
                    if found.is_some() {
                        self.adopt(key, content);
                    }
                    found
                }
                None => None,
            },
        };
        match self.pending.get(key) {
            // Somebody knows better meanwhile.
            Some(pending) => parse(&pending?, key),
            None => found,
        }
    }

    /// Keeps a list, where it fits into a record.
    pub(super) fn keep<L: Serialize>(&self, key: &ListKey, list: &Arc<L>, checked: SystemTime) {
        let ListKey {
            namespace,
            repository,
            subject,
            holder,
        } = key.clone();
        let checked = checked.duration_since(SystemTime::UNIX_EPOCH);
        let file = ListFile {
            namespace,
            repository,
            subject,
            user: user_of(&holder),
            checked: checked.unwrap_or_default().as_secs(),
            list: &**list,
        };
        // Lists are strings and numbers, which always serialise; an empty record reads as none.
        let json = serde_json::to_vec(&file).unwrap_or_default();
        // One that is cut off is damaged; an older one would come up again.
        let fits = json.len() as u64 <= RECORD_BYTES_MAX;
        self.put(key, fits.then(|| json.into()));
    }

    /// Forgets a list.
    pub(super) fn forget(&self, key: &ListKey) {
        self.put(key, None);
    }

    /// Keeps what another replica was told. It is not uploaded again.
    fn adopt(&self, key: &ListKey, record: Bytes) {
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        let write = move |key: &ListKey, record: &Option<Bytes>| {
            if let Some(json) = record {
                told(storage.write_record(key.record(), json), &metrics);
            }
        };
        self.pending.set_first(key.clone(), Some(record), write);
    }

    fn put(&self, key: &ListKey, record: Option<Bytes>) {
        if !key.is_kept() {
            return;
        }
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        let tier = self.tier.clone();
        self.pending.set(key.clone(), record, move |key, record| {
            let written = match record {
                Some(json) => storage.write_record(key.record(), json),
                None => storage.remove_record(key.record()),
            };
            told(written, &metrics);
            tier.note_change(key.record(), record.is_some());
        });
    }
}

/// The list in `content`, if it is one, and about `key`. A damaged record is a miss.
fn parse<L: DeserializeOwned>(content: &[u8], key: &ListKey) -> Option<(L, SystemTime)> {
    let file: ListFile<L> = serde_json::from_slice(content).ok()?;
    let is_about = file.namespace == key.namespace
        && file.repository == key.repository
        && file.subject == key.subject
        && file.user == user_of(&key.holder);
    let checked = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(file.checked))?;
    is_about.then_some((file.list, checked))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::oci::{Algorithm, Tag, TagList};

    fn key(repository: &str) -> ListKey {
        ListKey {
            namespace: "docker.io".parse().expect("a namespace"),
            repository: repository.parse().expect("a name"),
            subject: None,
            holder: Holder::Mirror("robot".into()),
        }
    }

    fn content() -> Vec<u8> {
        let ListKey {
            namespace,
            repository,
            subject,
            holder,
        } = key("a/b");
        let file = ListFile {
            namespace,
            repository,
            subject,
            user: user_of(&holder),
            checked: 2000,
            list: list(),
        };
        serde_json::to_vec(&file).expect("JSON")
    }

    fn list() -> TagList {
        let tags = ["v2", "v1"].map(|tag| tag.parse::<Tag>().expect("a tag"));
        BTreeSet::from(tags).into()
    }

    #[test]
    fn a_list_comes_back_as_it_was() {
        let checked = SystemTime::UNIX_EPOCH + Duration::from_secs(2000);
        assert_eq!(parse(&content(), &key("a/b")), Some((list(), checked)));
    }

    #[test]
    fn a_record_about_another_list_or_a_damaged_one_is_a_miss() {
        let parse = parse::<TagList>;
        assert_eq!(parse(&content(), &key("a/c")), None);
        let of_anybody = ListKey {
            holder: Holder::Anybody,
            ..key("a/b")
        };
        assert_eq!(parse(&content(), &of_anybody), None);
        let subject = Some(Digest::of(Algorithm::Sha256, b"x"));
        let referrers = ListKey {
            subject,
            ..key("a/b")
        };
        assert_eq!(parse(&content(), &referrers), None);
        for cut in 0..content().len() {
            assert_eq!(parse(&content()[..cut], &key("a/b")), None);
        }
    }
}
