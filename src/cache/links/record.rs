//! Links and rights as they lie on disk. A damaged record is a missing one.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::RightKey;
use crate::oci::{Digest, Namespace, RepositoryName};
use crate::storage::RecordKey;
use crate::upstream::{Holder, Repository};

/// One repository of one upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) namespace: Namespace,
    pub(super) repository: RepositoryName,
}

impl Place {
    pub(super) fn of(source: &Repository) -> Self {
        Self {
            namespace: source.namespace().clone(),
            repository: source.name().clone(),
        }
    }

    pub(super) fn right<'a>(&'a self, holder: &'a Holder) -> RecordKey<'a> {
        let user = match holder {
            Holder::Mirror(user) => Some(&**user),
            Holder::Anybody | Holder::Caller(_) => None,
        };
        RecordKey::Right(&self.namespace, &self.repository, user)
    }

    pub(super) fn link<'a>(&'a self, digest: &'a Digest) -> RecordKey<'a> {
        RecordKey::Link(&self.namespace, &self.repository, digest)
    }
}

/// A link on disk. It says what it is about, because the file name does not.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
pub(super) struct LinkFile {
    namespace: Namespace,
    repository: RepositoryName,
    digest: Digest,
}

/// The mirror's own right on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RightFile {
    namespace: Namespace,
    repository: RepositoryName,
    /// The user name of the credential; `None` for an anonymous one. Another credential is another right.
    user: Option<String>,
    /// When upstream confirmed it last, in seconds since 1970.
    checked: u64,
}

pub(super) fn json<T: Serialize>(record: &T) -> Vec<u8> {
    // Records are strings and numbers, which always serialise; an empty record reads as none.
    serde_json::to_vec(record).unwrap_or_default()
}

impl LinkFile {
    pub(super) fn new(place: &Place, digest: &Digest) -> Self {
        let Place {
            namespace,
            repository,
        } = place.clone();
        Self {
            namespace,
            repository,
            digest: *digest,
        }
    }

    /// Whether `content` is the link of `digest`. A damaged one is none.
    pub(super) fn is_about(content: &[u8], place: &Place, digest: &Digest) -> bool {
        serde_json::from_slice::<Self>(content).is_ok_and(|file| file == Self::new(place, digest))
    }
}

impl RightFile {
    pub(super) fn new((holder, place): &RightKey, checked: SystemTime) -> Self {
        let Place {
            namespace,
            repository,
        } = place.clone();
        let since = checked.duration_since(SystemTime::UNIX_EPOCH);
        Self {
            namespace,
            repository,
            user: user_of(holder),
            checked: since.unwrap_or_default().as_secs(),
        }
    }

    /// When the right in `content` was confirmed, if it is about `key`. A damaged one is none.
    pub(super) fn parse(content: &[u8], (holder, place): &RightKey) -> Option<SystemTime> {
        let file: Self = serde_json::from_slice(content).ok()?;
        let is_same = file.namespace == place.namespace
            && file.repository == place.repository
            && file.user == user_of(holder);
        let checked = Duration::from_secs(file.checked);
        is_same.then(|| SystemTime::UNIX_EPOCH.checked_add(checked))?
    }
}

/// Whose right a record is about, which callers never have any of.
pub(in crate::cache) fn user_of(holder: &Holder) -> Option<String> {
    match holder {
        Holder::Mirror(user) => Some(user.to_string()),
        Holder::Anybody | Holder::Caller(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    fn place(repository: &str) -> Place {
        Place {
            namespace: "registry.example".parse().expect("a namespace"),
            repository: repository.parse().expect("a name"),
        }
    }

    #[test]
    fn a_link_of_something_else_or_a_damaged_one_is_none() {
        let (here, digest) = (place("team/app"), Digest::of(Algorithm::Sha256, b"x"));
        let content = json(&LinkFile::new(&here, &digest));
        assert!(LinkFile::is_about(&content, &here, &digest));
        assert!(!LinkFile::is_about(&content, &place("team/b"), &digest));
        let other = Digest::of(Algorithm::Sha256, b"y");
        assert!(!LinkFile::is_about(&content, &here, &other));
        for cut in 0..content.len() {
            assert!(!LinkFile::is_about(&content[..cut], &here, &digest));
        }
    }

    #[test]
    fn a_right_of_another_credential_or_a_damaged_one_is_none() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let checked = at(2_000);
        let key = |user: &str| (Holder::Mirror(user.into()), place("team/app"));
        let content = json(&RightFile::new(&key("robot"), checked));
        assert_eq!(RightFile::parse(&content, &key("robot")), Some(checked));
        assert_eq!(RightFile::parse(&content, &key("other")), None);
        let anybody = (Holder::Anybody, place("team/app"));
        assert_eq!(RightFile::parse(&content, &anybody), None);
        for cut in 0..content.len() {
            assert_eq!(RightFile::parse(&content[..cut], &key("robot")), None);
        }
    }
}
