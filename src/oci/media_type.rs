//! Media types, without parameters.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest media type kept, in bytes (RFC 6838 section 4.2: two names of at most 127 and a slash).
const MEDIA_TYPE_BYTES_MAX: usize = 255;

/// What every manifest request sends upstream as `Accept`, whoever asks: one fixed superset, so that no variant made
/// for one client is stored for all. No schema 1 in it: it has another digest, and modern clients refuse it.
pub const MANIFEST_ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.artifact.manifest.v1+json, */*;q=0.1";

/// A media type such as `application/vnd.oci.image.index.v1+json`: lower case, parameters removed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MediaType(Arc<str>);

/// Why a text is not a media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a media type")]
pub struct MediaTypeError;

impl MediaType {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is Docker's schema 1, signed or not, which nobody can use any more: its digest is not that of
    /// the bytes.
    pub fn is_schema_1(&self) -> bool {
        matches!(
            &*self.0,
            "application/vnd.docker.distribution.manifest.v1+json"
                | "application/vnd.docker.distribution.manifest.v1+prettyjws"
        )
    }

    /// Whether a document of this type could be a manifest: JSON of some kind. So an HTML page that a portal answers
    /// with 200 never becomes one.
    pub fn may_be_manifest(&self) -> bool {
        !self.is_schema_1() && (self.0.ends_with("+json") || self.is_any_json())
    }

    /// Whether it says no more than that the document is JSON, as it does of error bodies, too.
    pub fn is_any_json(&self) -> bool {
        &*self.0 == "application/json"
    }
}

impl FromStr for MediaType {
    type Err = MediaTypeError;

    /// Takes the value of a `Content-Type` header, parameters and all.
    fn from_str(text: &str) -> Result<Self, MediaTypeError> {
        let is_token = |name: &str| {
            // RFC 6838 section 4.2, restricted-name.
            !name.is_empty()
                && name
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&c))
        };
        let essence = text
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        match essence.split_once('/') {
            Some((kind, subtype))
                if essence.len() <= MEDIA_TYPE_BYTES_MAX && is_token(kind) && is_token(subtype) =>
            {
                Ok(Self(essence.into()))
            }
            _ => Err(MediaTypeError),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MediaType {
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
    fn parameters_and_case_fall_away() {
        let parse = |text: &str| {
            text.parse::<MediaType>()
                .map(|media_type| media_type.to_string())
        };
        assert_eq!(
            parse("Application/JSON; charset=utf-8"),
            Ok("application/json".to_owned())
        );
        for text in ["", "json", "a/", "/b", "a/b c", "a/b/c", "a/ü"] {
            assert_eq!(parse(text), Err(MediaTypeError), "{text:?}");
        }
    }

    #[test]
    fn neither_html_nor_schema_1_may_be_a_manifest() {
        let may = |text: &str| text.parse::<MediaType>().is_ok_and(|t| t.may_be_manifest());
        assert!(may("application/vnd.oci.image.index.v1+json"));
        assert!(may("application/json"));
        assert!(!may("text/html"));
        assert!(!may("application/octet-stream"));
        assert!(!may(
            "application/vnd.docker.distribution.manifest.v1+prettyjws"
        ));
    }
}
