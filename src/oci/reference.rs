//! `<reference>`: a tag, or a digest.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Digest, DigestError};

/// Longest tag, in characters (distribution-spec: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`).
const TAG_BYTES_MAX: usize = 128;

/// A tag that fits the grammar of the specification. Case matters: `RELEASE.2024` is not `release.2024`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

/// What follows `/manifests/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A name that may move.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has no colon, so it must be a tag, and is none.
    #[error(
        "a tag is at most 128 letters, digits, `_`, `.` and `-`, and starts with none of the last two"
    )]
    Tag,
    /// It has a colon, so it must be a digest, and is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Tag {
    /// The tag as it stands in a URL: it needs no escaping.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let first = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let later = |c: u8| first(c) || c == b'.' || c == b'-';
        let well_formed = match text.as_bytes() {
            [head, tail @ ..] if text.len() <= TAG_BYTES_MAX => {
                first(*head) && tail.iter().all(|&c| later(c))
            }
            _ => false,
        };
        if well_formed {
            Ok(Self(text.into()))
        } else {
            Err(ReferenceError::Tag)
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// A colon cannot stand in a tag, so it decides which of the two the text means to be.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            Ok(Self::Digest(text.parse()?))
        } else {
            text.parse().map(Self::Tag)
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_it_a_digest() {
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        let digest = Digest::of(crate::oci::Algorithm::Sha256, b"x");
        assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest)));
        assert!(matches!(
            "sha256:short".parse::<Reference>(),
            Err(ReferenceError::Digest(_))
        ));
    }

    #[test]
    fn tags_follow_the_grammar() {
        for tag in [
            "latest",
            "v1.2.3",
            "_x",
            "RELEASE.2024-01-01T00-00-00Z",
            "sha256-abc.sig",
        ] {
            assert!(tag.parse::<Tag>().is_ok(), "{tag}");
        }
        assert!("a".repeat(128).parse::<Tag>().is_ok());
        for tag in [
            "",
            ".x",
            "-x",
            "a/b",
            "a b",
            "a:b",
            "ü",
            "a\n",
            &"a".repeat(129),
        ] {
            assert!(tag.parse::<Tag>().is_err(), "{tag:?}");
        }
    }
}
