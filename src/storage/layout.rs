//! Where things lie below the cache directory. The only place that knows.
//!
//! ```text
//! v1/blobs/<algorithm>/<2 hex>/<hex>   final, immutable, verified
//! v1/private/<algorithm>/<2 hex>/<hex> the same, of what is not everybody's
//! v1/ingest/<hex>.<random>             growing, locked while in use
//! v1/quarantine/<hex>.<random>         was a blob once, and has other bytes now
//! v1/scrub.json                        how far the last look for those came
//! v1/manifests/<2 hex>/<hex>.json      says that a blob is a manifest of a repository, and of which type
//! v1/tags/<2 hex>/<hex>.json           what a tag pointed to, and when that was known
//! v1/lists/<2 hex>/<hex>.json          which tags or referrers there were, and when that was known
//! v1/links/<2 hex>/<hex>.json          that a repository has a blob
//! v1/rights/<2 hex>/<hex>.json         when the mirror could read a repository last
//! v1/origins/<2 hex>/<hex>.json        which registries a repository was pulled from
//! v1/homes/<2 hex>/<hex>.json          which of several registries had a repository
//! v1/outbox/<what>                     that something is still to be uploaded
//! ```
//!
//! Every name is hex that was computed here, so nothing a client or an upstream wrote ever becomes a path. The
//! records say in their content what they are about.

use std::fmt;

use crate::oci::{Algorithm, Digest, Namespace, RepositoryName, Tag};

/// The version of the format, and the directory that is ours. Another format is another directory.
pub(super) const VERSION: &str = "v1";

/// A directory below the cache directory, and a file name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Parts of the directory, from the cache directory down.
    pub(super) directory: Vec<String>,
    /// The file in it.
    pub(super) file: String,
}

impl Place {
    fn new<const N: usize>(directory: [&str; N], file: String) -> Self {
        let parts = [VERSION].into_iter().chain(directory).map(str::to_owned);
        Self {
            directory: parts.collect(),
            file,
        }
    }

    /// The whole path, relative to the cache directory.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.directory.join("/"), self.file)
    }
}

/// Which small record is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKey<'a> {
    /// That a blob is a manifest of a repository. Not of every repository: what another registry calls a manifest, and
    /// of which type, is that registry's word alone.
    Manifest(&'a Namespace, &'a RepositoryName, &'a Digest),
    /// What a tag points to.
    Tag(&'a Namespace, &'a RepositoryName, &'a Tag),
    /// Which tags a repository has.
    TagList(&'a Namespace, &'a RepositoryName),
    /// What refers to a manifest of a repository.
    Referrers(&'a Namespace, &'a RepositoryName, &'a Digest),
    /// That a repository has a blob.
    Link(&'a Namespace, &'a RepositoryName, &'a Digest),
    /// When the mirror could read a repository last, as this user or as nobody. Another user's right is another record, for
    /// mirrors that share what they know and have different credentials.
    Right(&'a Namespace, &'a RepositoryName, Option<&'a str>),
    /// Which registries a repository of this name was pulled from.
    Origin(&'a RepositoryName),
    /// Which of several registries had a repository that was asked for by this name alone.
    Home(&'a RepositoryName),
}

/// A record by the name of its file, for those who need not know what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordName {
    kind: RecordKind,
    /// 64 hex digits.
    hex: String,
}

impl RecordName {
    /// The name that says `kind` and `hex`, as [`fmt::Display`] writes it with a full stop between.
    pub(super) fn parse(kind: &str, hex: &str) -> Option<Self> {
        let kind = RecordKind::ALL
            .into_iter()
            .find(|own| own.shelf() == kind)?;
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let is_name = hex.len() == 64 && hex.chars().all(is_hex);
        let hex = hex.to_owned();
        is_name.then_some(Self { kind, hex })
    }

    pub(super) fn place(&self) -> Place {
        let (shelf, hex) = (self.kind.shelf(), &self.hex);
        Place::new([shelf, &hex[..2]], format!("{hex}.json"))
    }

    /// Where it lies, relative to the cache directory.
    pub(super) fn path(&self) -> String {
        self.place().path()
    }
}

impl From<RecordKey<'_>> for RecordName {
    fn from(key: RecordKey<'_>) -> Self {
        named(key)
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind.shelf(), self.hex)
    }
}

/// Whose the bytes of a blob are. It shows in where they lie, so that it goes where they go and cannot be lost alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Everybody's: whoever asked for them got them.
    Everybody,
    /// Of those who can show a right to a repository that has them.
    Entitled,
}

impl Audience {
    /// Both, the one that most blobs are of first.
    pub const ALL: [Self; 2] = [Self::Everybody, Self::Entitled];

    /// The directory they lie in.
    const fn shelf(self) -> &'static str {
        match self {
            Self::Everybody => "blobs",
            Self::Entitled => "private",
        }
    }
}

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// What is a manifest.
    Manifest,
    /// What tags point to.
    Tag,
    /// Lists of tags and of referrers.
    List,
    /// What repositories have.
    Link,
    /// What repositories could be read.
    Right,
    /// Where repositories were pulled from.
    Origin,
    /// Which of several registries had repositories.
    Home,
}

impl RecordKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Manifest,
        Self::Tag,
        Self::List,
        Self::Link,
        Self::Right,
        Self::Origin,
        Self::Home,
    ];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Tag => "tag",
            Self::List => "list",
            Self::Link => "link",
            Self::Right => "right",
            Self::Origin => "origin",
            Self::Home => "home",
        }
    }

    /// The directory they lie in.
    const fn shelf(self) -> &'static str {
        match self {
            Self::Manifest => "manifests",
            Self::Tag => "tags",
            Self::List => "lists",
            Self::Link => "links",
            Self::Right => "rights",
            Self::Origin => "origins",
            Self::Home => "homes",
        }
    }
}

/// The directory of the blobs whose digests begin with `shard`, relative to the cache directory.
pub(super) fn blob_shard(audience: Audience, algorithm: Algorithm, shard: u8) -> String {
    let (shelf, algorithm) = (audience.shelf(), algorithm.as_str());
    format!("{VERSION}/{shelf}/{algorithm}/{shard:02x}")
}

/// The directory of the records of one kind whose names begin with `shard`, relative to the cache directory.
pub(super) fn record_shard(kind: RecordKind, shard: u8) -> String {
    format!("{VERSION}/{}/{shard:02x}", kind.shelf())
}

/// Where a blob lies once it is verified.
pub(super) fn blob(digest: &Digest, audience: Audience) -> Place {
    let hex = digest.hex();
    let algorithm = digest.algorithm().as_str();
    Place::new([audience.shelf(), algorithm, &hex[..2]], hex.clone())
}

/// Where a blob grows until then. `random` tells apart two processes that fill the same blob.
pub(super) fn ingest(digest: &Digest, random: u64) -> Place {
    Place::new(["ingest"], format!("{}.{random:016x}", digest.hex()))
}

/// The directory in which blobs grow.
pub(super) fn ingest_directory() -> [&'static str; 2] {
    [VERSION, "ingest"]
}

/// The directory of what is no longer what it was.
pub(super) fn quarantine_directory() -> [&'static str; 2] {
    [VERSION, "quarantine"]
}

/// What a blob is called there. `random` tells apart what happened to one blob twice.
pub(super) fn quarantined(digest: &Digest, random: u64) -> String {
    format!("{}.{random:016x}", digest.hex())
}

/// Where it is kept how far the scrub has come.
pub(super) fn scrub_position() -> Place {
    Place::new([], "scrub.json".to_owned())
}

/// Where the bytes of a manifest lie in an object store: apart from blobs, so that nobody who asks for a blob finds one.
pub(super) fn document(digest: &Digest) -> Place {
    let hex = digest.hex();
    let algorithm = digest.algorithm().as_str();
    Place::new(["documents", algorithm, &hex[..2]], hex.clone())
}

/// The directory of what is still to be uploaded.
pub(super) fn outbox_directory() -> [&'static str; 2] {
    [VERSION, "outbox"]
}

/// Where a record lies.
pub(super) fn record(key: RecordKey<'_>) -> Place {
    named(key).place()
}

fn named(key: RecordKey<'_>) -> RecordName {
    // No part holds a space, so no two keys make the same text.
    let (kind, text) = match key {
        RecordKey::Manifest(namespace, repository, digest) => (
            RecordKind::Manifest,
            format!("{namespace} {repository} {digest}"),
        ),
        RecordKey::Tag(namespace, repository, tag) => {
            (RecordKind::Tag, format!("{namespace} {repository} {tag}"))
        }
        RecordKey::TagList(namespace, repository) => {
            (RecordKind::List, format!("{namespace} {repository}"))
        }
        RecordKey::Referrers(namespace, repository, subject) => (
            RecordKind::List,
            format!("{namespace} {repository} {subject}"),
        ),
        RecordKey::Link(namespace, repository, digest) => (
            RecordKind::Link,
            format!("{namespace} {repository} {digest}"),
        ),
        RecordKey::Right(namespace, repository, None) => {
            (RecordKind::Right, format!("{namespace} {repository}"))
        }
        // A user name may hold anything; whose a right is, the record says.
        RecordKey::Right(namespace, repository, Some(user)) => (
            RecordKind::Right,
            format!("{namespace} {repository} {user}"),
        ),
        RecordKey::Origin(repository) => (RecordKind::Origin, repository.to_string()),
        RecordKey::Home(repository) => (RecordKind::Home, repository.to_string()),
    };
    let hex = Digest::of(Algorithm::Sha256, text.as_bytes()).hex();
    RecordName { kind, hex }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_design() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        let hex = digest.hex();
        let path = |audience| blob(&digest, audience).path();
        assert_eq!(
            path(Audience::Everybody),
            format!("v1/blobs/sha256/e3/{hex}")
        );
        assert_eq!(
            path(Audience::Entitled),
            format!("v1/private/sha256/e3/{hex}")
        );
        assert_eq!(
            ingest(&digest, 1).path(),
            format!("v1/ingest/{hex}.0000000000000001")
        );
    }

    #[test]
    fn different_tags_have_different_records() {
        let place = |namespace: &str, repository: &str, tag: &str| {
            record(RecordKey::Tag(
                &namespace.parse().unwrap(),
                &repository.parse().unwrap(),
                &tag.parse().unwrap(),
            ))
        };
        assert_eq!(place("a.io", "b/c", "d"), place("a.io", "b/c", "d"));
        assert_ne!(place("a.io", "b/c", "d"), place("a.io", "b/c", "D"));
        assert_ne!(place("a.io", "b/c", "d"), place("b.io", "b/c", "d"));
    }
}
