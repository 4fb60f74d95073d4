//! `<name>`: a repository within a registry (distribution-spec "Pulling manifests").

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name that is served, in bytes. The specification leaves the limit to the registry and says that many
/// clients limit host and name together to 255.
const NAME_BYTES_MAX: usize = 255;

/// A repository name that fits the grammar of the distribution specification:
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`.
///
/// Cheap to clone: it is the key of caches and flights.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(Arc<str>);

/// Why a text is not a repository name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Longer than 255 bytes.
    #[error("a repository name has at most 255 characters")]
    TooLong,
    /// Some part between slashes does not fit the grammar.
    #[error(
        "a repository name is lower-case letters and digits, parted by `/`, `.`, `_`, `__` or `-`"
    )]
    Grammar,
}

impl RepositoryName {
    /// The name as it stands in a URL: it needs no escaping.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is one part only, as Docker Hub's official images are written.
    pub fn is_single_part(&self) -> bool {
        !self.0.contains('/')
    }

    /// The name with `parent` put in front as its first part or parts.
    ///
    /// # Errors
    /// `TooLong` when the two together pass the limit; `Grammar` when `parent` does not fit.
    pub fn below(&self, parent: &str) -> Result<Self, NameError> {
        format!("{parent}/{self}").parse()
    }
}

/// Whether `part` fits `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_part(part: &str) -> bool {
    let is_alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = part.as_bytes();
    let mut at = 0;
    loop {
        let word = bytes[at..]
            .iter()
            .take_while(|&&c| is_alphanumeric(c))
            .count();
        if word == 0 {
            return false;
        }
        at += word;
        let separator = bytes[at..]
            .iter()
            .take_while(|&&c| !is_alphanumeric(c))
            .count();
        match &bytes[at..at + separator] {
            [] => return at == bytes.len(),
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|&c| c == b'-') => {}
            _ => return false,
        }
        at += separator;
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if text.split('/').all(is_part) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Grammar)
        }
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RepositoryName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RepositoryName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<(), NameError>) {
        assert_eq!(
            text.parse::<RepositoryName>().map(drop),
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn names_of_the_grammar_are_accepted() {
        for name in [
            "a",
            "nginx",
            "library/nginx",
            "a/b/c/d/e/f/g/h",
            "a--b",
            "a__b",
            "a.b_c",
            "docker.io/library/x",
            "0/1",
        ] {
            check(name, Ok(()));
        }
        check(&"a".repeat(255), Ok(()));
    }

    #[test]
    fn everything_else_is_refused() {
        for name in [
            "", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/./b", "A", "a/B", "_x", "x_",
            "a..b", "a___b", "-a", "a-", "a.-b", "a\\b", "a b", "a\0", "ü", "a:b", "a@b",
            "a/_dirs", "%2e",
        ] {
            check(name, Err(NameError::Grammar));
        }
        check(&"a".repeat(256), Err(NameError::TooLong));
    }

    proptest! {
        #[test]
        fn the_hand_written_parser_agrees_with_the_specification(text in "[a-c0._/-]{0,12}") {
            let grammar = regex::Regex::new(
                r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$",
            ).expect("the specification's expression");
            prop_assert_eq!(text.parse::<RepositoryName>().is_ok(), grammar.is_match(&text));
        }
    }
}
