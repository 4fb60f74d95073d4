//! What is known of a tag, and how that is written on disk.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::oci::{Descriptor, Namespace, RepositoryName, Tag};
use crate::storage::RecordKey;
use crate::upstream::Repository;

/// The version of the record that is written here. A record without one is of this version, too: the first ones had
/// none.
const VERSION: u32 = 1;

/// Which tag is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TagKey {
    pub(super) namespace: Namespace,
    pub(super) repository: RepositoryName,
    pub(super) tag: Tag,
}

impl TagKey {
    pub(super) fn new(source: &Repository, tag: Tag) -> Self {
        Self {
            namespace: source.namespace().clone(),
            repository: source.name().clone(),
            tag,
        }
    }

    pub(super) fn record(&self) -> RecordKey<'_> {
        RecordKey::Tag(&self.namespace, &self.repository, &self.tag)
    }
}

/// What a tag pointed to, and when that was known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TagRecord {
    /// The manifest.
    pub(super) manifest: Descriptor,
    /// When the tag was first seen to point there. Until when it pointed elsewhere nobody here knows.
    pub(super) since: SystemTime,
    /// When upstream confirmed it last: what its age is counted from.
    pub(super) confirmed: SystemTime,
    /// When it had been confirmed according to the disk.
    pub(super) on_disk: SystemTime,
}

/// A tag record on disk. It says what it is about, because the file name does not. Times are in seconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
struct TagFile {
    #[serde(default = "version")]
    version: u32,
    namespace: Namespace,
    repository: RepositoryName,
    tag: Tag,
    manifest: Descriptor,
    /// The first ones had none.
    #[serde(default)]
    since: Option<u64>,
    /// When upstream confirmed it last.
    checked: u64,
}

fn version() -> u32 {
    VERSION
}

impl TagRecord {
    /// What upstream said at `confirmed`, and nothing was known before.
    pub(super) fn new(manifest: Descriptor, confirmed: SystemTime) -> Self {
        Self {
            manifest,
            since: confirmed,
            confirmed,
            on_disk: confirmed,
        }
    }

    /// What upstream said at `confirmed`, after this record.
    pub(super) fn followed_by(&self, manifest: &Descriptor, confirmed: SystemTime) -> Self {
        let new = Self::new(manifest.clone(), confirmed);
        if new.manifest.digest != self.manifest.digest {
            return new;
        }
        Self {
            // The clock may have been set back meanwhile.
            since: self.since.min(confirmed),
            ..new
        }
    }

    /// For how long the tag is known to point there, at the time `now`.
    pub(super) fn held_for(&self, now: SystemTime) -> Duration {
        now.duration_since(self.since).unwrap_or_default()
    }

    /// How long ago upstream confirmed it, at the time `now` (RFC 9111 section 4.2.3).
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.confirmed).unwrap_or_default()
    }

    /// The record as it is written.
    pub(super) fn to_json(&self, key: &TagKey) -> Vec<u8> {
        let TagKey {
            namespace,
            repository,
            tag,
        } = key.clone();
        let file = TagFile {
            version: VERSION,
            namespace,
            repository,
            tag,
            manifest: self.manifest.clone(),
            since: Some(seconds(self.since)),
            checked: seconds(self.confirmed),
        };
        // Strings and numbers, which always serialise; an empty record reads as none.
        serde_json::to_vec(&file).unwrap_or_default()
    }

    /// The record in `content`, if it is one, of this version, and about `key`. Anything else is a miss.
    pub(super) fn parse(content: &[u8], key: &TagKey) -> Option<Self> {
        let file: TagFile = serde_json::from_slice(content).ok()?;
        let about = TagKey {
            namespace: file.namespace,
            repository: file.repository,
            tag: file.tag,
        };
        if file.version != VERSION || about != *key {
            return None;
        }
        let confirmed = time(file.checked)?;
        let since = file.since.map_or(Some(confirmed), time)?;
        Some(Self {
            since,
            ..Self::new(file.manifest, confirmed)
        })
    }
}

fn seconds(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
    since_1970.unwrap_or_default().as_secs()
}

fn time(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, Digest};

    fn key(tag: &str) -> TagKey {
        TagKey {
            namespace: "docker.io".parse().expect("a namespace"),
            repository: "library/nginx".parse().expect("a name"),
            tag: tag.parse().expect("a tag"),
        }
    }

    fn manifest(content: &[u8]) -> Descriptor {
        Descriptor {
            media_type: "application/json".parse().expect("a media type"),
            digest: Digest::of(Algorithm::Sha256, content),
            size: 1,
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn record() -> TagRecord {
        let first = TagRecord::new(manifest(b"x"), at(1_000));
        first.followed_by(&manifest(b"x"), at(2_000))
    }

    #[test]
    fn a_tag_record_comes_back_as_it_was() {
        let content = record().to_json(&key("v1"));
        let read = TagRecord::parse(&content, &key("v1"));
        assert_eq!(read, Some(record()));
    }

    #[test]
    fn a_record_knows_since_when_and_until_when() {
        let record = record();
        assert_eq!((record.since, record.confirmed), (at(1_000), at(2_000)));
        let moved = record.followed_by(&manifest(b"y"), at(3_000));
        assert_eq!((moved.since, moved.confirmed), (at(3_000), at(3_000)));
        let now = at(5_000);
        assert_eq!(
            (record.held_for(now), record.age(now)),
            (Duration::from_secs(4_000), Duration::from_mins(50))
        );
        // The clock was set back.
        let back = record.followed_by(&manifest(b"x"), at(500));
        assert_eq!((back.since, back.confirmed), (at(500), at(500)));
        assert_eq!(record.age(at(0)), Duration::ZERO);
    }

    #[test]
    fn a_record_of_the_first_kind_is_read() {
        let content = format!(
            r#"{{"namespace":"docker.io","repository":"library/nginx","tag":"v1","manifest":{},"checked":2000}}"#,
            serde_json::to_string(&manifest(b"x")).expect("JSON")
        );
        let read = TagRecord::parse(content.as_bytes(), &key("v1")).expect("a record");
        assert_eq!((read.since, read.confirmed), (at(2_000), at(2_000)));
    }

    #[test]
    fn a_record_about_another_tag_or_a_damaged_one_is_a_miss() {
        let content = record().to_json(&key("v1"));
        assert_eq!(TagRecord::parse(&content, &key("v2")), None);
        for cut in 0..content.len() {
            assert_eq!(TagRecord::parse(&content[..cut], &key("v1")), None);
        }
        let text = String::from_utf8(content).expect("text");
        for (from, to) in [
            ("2000", &*u64::MAX.to_string()),
            ("1000", &*u64::MAX.to_string()),
            ("\"version\":1", "\"version\":2"),
            ("\"version\":1", "\"version\":null"),
            ("sha256", "sha999"),
        ] {
            let damaged = text.replace(from, to);
            assert_ne!(damaged, text);
            assert_eq!(TagRecord::parse(damaged.as_bytes(), &key("v1")), None);
        }
    }
}
