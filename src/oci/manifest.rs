//! Whether some bytes are a manifest of the type they are said to be. The bytes themselves are never changed.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};

use super::{Digest, MediaType};

/// Why some bytes are not the manifest they are said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The `Content-Type` is none a manifest can have: a login page, schema 1, nothing at all.
    #[error("`{0}` is not the media type of a manifest")]
    MediaType(String),
    /// Not a JSON object, or nested too deep.
    #[error("the manifest is not a JSON object: {0}")]
    Json(String),
    /// One of the fields that decide what the document is stands in it twice.
    #[error("the manifest has `{0}` twice")]
    Duplicate(&'static str),
    /// The document says it is another type than the header says (distribution-spec: clients SHOULD reject it;
    /// CVE-2021-41190).
    #[error("the manifest says it is `{body}`, its Content-Type says `{header}`")]
    TypeMismatch {
        /// `mediaType` in the document.
        body: String,
        /// `Content-Type` of the answer.
        header: MediaType,
    },
    /// Neither the header nor the document says that it is a manifest of any kind: most likely it is an error that comes
    /// with the status of success.
    #[error("nothing says that the document is a manifest")]
    Unnamed,
    /// It is an index and an image at once, so two clients could read two things in it (CVE-2021-41190).
    #[error("the manifest has both `manifests` and `layers` or `config`")]
    Ambiguous,
}

/// The fields that decide what a document is; everything else is skipped unread, and whatever its digests or URLs
/// say is the client's business.
#[derive(Default)]
struct Shape {
    media_type: Option<String>,
    is_index: bool,
    is_image: bool,
    is_error: bool,
    duplicate: Option<&'static str>,
}

/// Some value, looked through and dropped. Unlike `serde::de::IgnoredAny` it descends like a parser, so that
/// `serde_json`'s limit of 128 levels holds for the parts nobody here reads, too.
struct Skipped {
    is_null: bool,
}

struct SkippedVisitor;

impl<'de> Visitor<'de> for SkippedVisitor {
    type Value = Skipped;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Skipped, E> {
        Ok(Skipped { is_null: true })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Skipped, E> {
        Ok(Skipped { is_null: false })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Skipped, E> {
        Ok(Skipped { is_null: false })
    }

    fn visit_u64<E>(self, _: u64) -> Result<Skipped, E> {
        Ok(Skipped { is_null: false })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Skipped, E> {
        Ok(Skipped { is_null: false })
    }

    fn visit_str<E>(self, _: &str) -> Result<Skipped, E> {
        Ok(Skipped { is_null: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Skipped, A::Error> {
        while seq.next_element::<Skipped>()?.is_some() {}
        Ok(Skipped { is_null: false })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Skipped, A::Error> {
        while map.next_entry::<Skipped, Skipped>()?.is_some() {}
        Ok(Skipped { is_null: false })
    }
}

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SkippedVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        const FIELDS: [&str; 4] = ["mediaType", "manifests", "layers", "config"];
        let mut shape = Shape::default();
        let mut seen = [false; FIELDS.len()];
        while let Some(key) = map.next_key::<String>()? {
            if let Some(field) = FIELDS.iter().position(|&field| field == key)
                && std::mem::replace(&mut seen[field], true)
            {
                shape.duplicate = Some(FIELDS[field]);
            }
            match key.as_str() {
                "mediaType" => shape.media_type = map.next_value::<Option<String>>()?,
                "manifests" => shape.is_index |= !map.next_value::<Skipped>()?.is_null,
                "errors" => shape.is_error |= !map.next_value::<Skipped>()?.is_null,
                "layers" | "config" => shape.is_image |= !map.next_value::<Skipped>()?.is_null,
                _ => {
                    map.next_value::<Skipped>()?;
                }
            }
        }
        Ok(shape)
    }
}

/// Checks that `bytes` may be served as a manifest of type `media_type`.
///
/// A hostile document costs one pass over its bytes and 128 levels of stack: nothing of it is built.
///
/// # Errors
/// What is wrong with it; see [`ManifestError`].
pub fn check_manifest(bytes: &[u8], media_type: &MediaType) -> Result<(), ManifestError> {
    if !media_type.may_be_manifest() {
        return Err(ManifestError::MediaType(media_type.to_string()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let shape = deserializer
        .deserialize_map(ShapeVisitor)
        .and_then(|shape| deserializer.end().map(|()| shape))
        .map_err(|error| ManifestError::Json(error.to_string()))?;
    if let Some(field) = shape.duplicate {
        return Err(ManifestError::Duplicate(field));
    }
    if shape.is_index && shape.is_image {
        return Err(ManifestError::Ambiguous);
    }
    let is_named = shape.media_type.is_some() || shape.is_index || shape.is_image;
    if !is_named && (shape.is_error || media_type.is_any_json()) {
        return Err(ManifestError::Unnamed);
    }
    match shape.media_type {
        Some(body) if body.parse().as_ref() != Ok(media_type) => Err(ManifestError::TypeMismatch {
            body,
            header: media_type.clone(),
        }),
        _ => Ok(()),
    }
}

/// The blobs of an image manifest, each with the size that the manifest says it has. An index has none, and what does
/// not parse is left out: this is a hint, and the blob itself decides.
pub fn described_blobs(bytes: &[u8]) -> Vec<(Digest, u64)> {
    #[derive(Deserialize)]
    struct Image {
        config: Option<Described>,
        #[serde(default)]
        layers: Vec<Described>,
    }
    let Ok(Image { config, layers }) = serde_json::from_slice(bytes) else {
        return Vec::new();
    };
    let blobs = config.iter().chain(&layers);
    blobs.filter_map(Described::read).collect()
}

/// The manifests of an index, each with the size that the index says it has. An image has none, and what does not parse
/// is left out: this is a hint.
pub fn described_manifests(bytes: &[u8]) -> Vec<(Digest, u64)> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Vec<Described>,
    }
    let Ok(Index { manifests }) = serde_json::from_slice(bytes) else {
        return Vec::new();
    };
    manifests.iter().filter_map(Described::read).collect()
}

/// A descriptor, as far as it matters here.
#[derive(Deserialize)]
struct Described {
    digest: String,
    size: u64,
}

impl Described {
    fn read(&self) -> Option<(Digest, u64)> {
        Some((self.digest.parse().ok()?, self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";

    fn check(body: &str, media_type: &str) -> Result<(), ManifestError> {
        check_manifest(body.as_bytes(), &media_type.parse().expect("a media type"))
    }

    #[test]
    fn blobs_are_described_with_their_sizes() {
        let digest = Digest::of(crate::oci::Algorithm::Sha256, b"x");
        let blob = |size| format!(r#"{{"digest":"{digest}","size":{size}}}"#);
        let body = format!(
            r#"{{"config":{},"layers":[{},{{"digest":"x","size":1}}]}}"#,
            blob(2),
            blob(3)
        );
        assert_eq!(described_blobs(body.as_bytes()), [(digest, 2), (digest, 3)]);
        assert_eq!(described_blobs(br#"{"manifests":[]}"#), []);
        let body = format!(r#"{{"manifests":[{}]}}"#, blob(4));
        assert_eq!(described_manifests(body.as_bytes()), [(digest, 4)]);
        assert_eq!(described_manifests(b"<html>"), []);
        assert_eq!(described_blobs(b"<html>"), []);
    }

    #[test]
    fn documents_of_the_data_sets_pass() {
        assert_eq!(
            check(r#"{"schemaVersion":2,"manifests":[]}"#, INDEX),
            Ok(())
        );
        assert_eq!(
            check(
                &format!(r#"{{"mediaType":"{INDEX}","manifests":[{{"x":[1]}}]}}"#),
                INDEX
            ),
            Ok(())
        );
        assert_eq!(
            check(
                r#"{"config":{},"layers":[],"unknown":1}"#,
                "application/vnd.oci.image.manifest.v1+json"
            ),
            Ok(())
        );
        // An index may carry the fields of an image as null: there is still one way to read it.
        assert_eq!(check(r#"{"manifests":[],"layers":null}"#, INDEX), Ok(()));
    }

    #[test]
    fn documents_that_can_be_read_in_two_ways_do_not() {
        assert_eq!(
            check(r#"{"manifests":[],"layers":[]}"#, INDEX),
            Err(ManifestError::Ambiguous)
        );
        assert_eq!(
            check(r#"{"manifests":[],"config":{}}"#, INDEX),
            Err(ManifestError::Ambiguous)
        );
        assert_eq!(
            check(r#"{"manifests":[],"manifests":[]}"#, INDEX),
            Err(ManifestError::Duplicate("manifests"))
        );
        assert!(matches!(
            check(
                r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#,
                INDEX
            ),
            Err(ManifestError::TypeMismatch { .. })
        ));
    }

    #[test]
    fn what_is_no_manifest_does_not() {
        assert!(matches!(
            check("<html>", "text/html"),
            Err(ManifestError::MediaType(_))
        ));
        for body in ["", "<html>", "[]", "7", "{", "{} x", r#"{"mediaType":7}"#] {
            assert!(
                matches!(check(body, INDEX), Err(ManifestError::Json(_))),
                "{body}"
            );
        }
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert!(matches!(check(&deep, INDEX), Err(ManifestError::Json(_))));
        let long = format!(r#"{{"manifests":[{}1]}}"#, "1,".repeat(1_000_000));
        assert_eq!(check(&long, INDEX), Ok(()));
    }
}
