//! What refers to a manifest: its signatures, statements, bills of materials (distribution-spec, "Listing Referrers").

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Digest, ListError, Tag};

/// The media type of a list of referrers, and of the index that stands in for one.
pub const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// Longest hex of a digest in the name of a fallback tag (distribution-spec, "Referrers Tag Schema").
const FALLBACK_HEX_MAX: usize = 64;

/// One manifest that refers to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referrer {
    /// Its digest.
    digest: Digest,
    /// What kind of artifact it is, where its descriptor says so.
    artifact_type: Option<Box<str>>,
    /// Its descriptor as JSON, with every field that upstream gave it.
    json: Box<str>,
}

/// All that refers to one manifest, each once, in the order of digests, so that pages follow each other even while
/// referrers come and go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referrers(Box<[Referrer]>);

/// Some of the [`Referrers`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferrersPage {
    /// An image index of them, as JSON.
    pub json: String,
    /// After which one the next page goes on, where there is one.
    pub last: Option<Digest>,
}

/// An image index, as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: Option<u64>,
    manifests: Option<Entries>,
}

/// The descriptors of an index that are some.
struct Entries(Vec<Referrer>);

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of descriptors")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries, A::Error> {
        let mut referrers = Vec::new();
        // One at a time: the parsed form is many times as large as the text.
        while let Some(entry) = seq.next_element::<Value>()? {
            referrers.extend(Referrer::new(&entry));
        }
        Ok(Entries(referrers))
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EntriesVisitor)
    }
}

impl Referrer {
    /// The referrer that `descriptor` describes, where it is a descriptor of something that could be pulled.
    fn new(descriptor: &Value) -> Option<Self> {
        descriptor.get("mediaType")?.as_str()?;
        descriptor.get("size")?.as_u64()?;
        let artifact_type = descriptor.get("artifactType").and_then(Value::as_str);
        Some(Self {
            digest: descriptor.get("digest")?.as_str()?.parse().ok()?,
            artifact_type: artifact_type.map(Into::into),
            json: descriptor.to_string().into(),
        })
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What it takes of memory, in bytes, more or less.
    pub fn weight(&self) -> usize {
        size_of::<Self>()
            + self.json.len()
            + self.artifact_type.as_ref().map_or(0, |text| text.len())
    }
}

impl Referrers {
    /// The referrers in one answer of a registry: in any order, and possibly not all there are. Descriptors that are
    /// none are left out.
    ///
    /// # Errors
    /// Where the answer is no image index.
    pub fn parse_page(bytes: &[u8]) -> Result<Vec<Referrer>, ListError> {
        let index: Index =
            serde_json::from_slice(bytes).map_err(|error| ListError::Json(error.to_string()))?;
        match index {
            Index {
                manifests: Some(Entries(referrers)),
                ..
            } => Ok(referrers),
            Index {
                schema_version: Some(2),
                ..
            } => Ok(Vec::new()),
            Index { .. } => Err(ListError::Field("manifests")),
        }
    }

    /// The tag that holds the index of what refers to `subject`, where a registry knows no referrers
    /// (distribution-spec, "Referrers Tag Schema").
    pub fn fallback_tag(subject: &Digest) -> Option<Tag> {
        let hex = subject.hex();
        let hex = hex.get(..FALLBACK_HEX_MAX).unwrap_or(&hex);
        let algorithm = subject.algorithm().as_str();
        format!("{algorithm}-{hex}").parse().ok()
    }

    /// Those after `last` that are of `artifact_type`, where one is named: as many as fit into `bytes_max` of JSON, but
    /// never none where there are some.
    pub fn page(
        &self,
        artifact_type: Option<&str>,
        last: Option<Digest>,
        bytes_max: usize,
    ) -> ReferrersPage {
        let from = self
            .0
            .partition_point(|referrer| last.is_some_and(|last| referrer.digest <= last));
        let rest = self.0.iter().skip(from);
        let fits = |referrer: &&Referrer| {
            artifact_type.is_none_or(|wanted| referrer.artifact_type.as_deref() == Some(wanted))
        };
        let mut json =
            format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX_MEDIA_TYPE}","manifests":["#);
        let mut page_last = None;
        let mut is_cut = false;
        for referrer in rest.filter(fits) {
            // The comma before it, and the two brackets behind the last.
            if page_last.is_some() && json.len() + referrer.json.len() + 3 > bytes_max {
                is_cut = true;
                break;
            }
            if page_last.is_some() {
                json.push(',');
            }
            json.push_str(&referrer.json);
            page_last = Some(referrer.digest);
        }
        json.push_str("]}");
        ReferrersPage {
            json,
            last: page_last.filter(|_| is_cut),
        }
    }

    /// Whether nothing refers to it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What it takes of memory, in bytes, more or less.
    pub fn weight(&self) -> usize {
        self.0.iter().map(Referrer::weight).sum()
    }
}

impl From<BTreeMap<Digest, Referrer>> for Referrers {
    fn from(referrers: BTreeMap<Digest, Referrer>) -> Self {
        Self(referrers.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::Sha256([n; 32])
    }

    fn descriptor(n: u8, artifact_type: Option<&str>) -> Value {
        let mut descriptor = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(n), "size": 7, "annotations": { "n": n.to_string() },
        });
        if let Some(artifact_type) = artifact_type {
            descriptor["artifactType"] = json!(artifact_type);
        }
        descriptor
    }

    fn referrers(of: &[(u8, Option<&str>)]) -> Referrers {
        let descriptors: Vec<_> = of.iter().map(|(n, kind)| descriptor(*n, *kind)).collect();
        let index = json!({ "schemaVersion": 2, "manifests": descriptors }).to_string();
        let page = Referrers::parse_page(index.as_bytes()).expect("an index");
        let by_digest = page.into_iter().map(|one| (one.digest, one));
        by_digest.collect::<BTreeMap<_, _>>().into()
    }

    fn digests(page: &ReferrersPage) -> Vec<Digest> {
        let index = serde_json::from_str::<Value>(&page.json).expect("JSON");
        assert_eq!(index["schemaVersion"], 2);
        assert_eq!(index["mediaType"], INDEX_MEDIA_TYPE);
        let manifests = index["manifests"].as_array().expect("a list").iter();
        let digests = manifests.map(|one| one["digest"].as_str().expect("text"));
        digests.map(|one| one.parse().expect("a digest")).collect()
    }

    #[test]
    fn descriptors_keep_every_field() {
        let page = referrers(&[(1, Some("a/b"))]).page(None, None, 9999);
        let index = serde_json::from_str::<Value>(&page.json).expect("JSON");
        assert_eq!(index["manifests"][0], descriptor(1, Some("a/b")));
    }

    #[test]
    fn what_is_no_descriptor_is_left_out() {
        let index = json!({ "manifests": [
            null, 7, {}, { "digest": "sha256:short", "mediaType": "a/b", "size": 1 },
            { "digest": digest(1), "mediaType": "a/b" }, descriptor(2, None),
        ]});
        let page = Referrers::parse_page(index.to_string().as_bytes()).expect("an index");
        assert_eq!(page.len(), 1);
    }

    #[test]
    fn what_is_no_index_is_not_an_empty_one() {
        let parse = |text: &str| Referrers::parse_page(text.as_bytes()).map(|page| page.len());
        assert_eq!(parse(r#"{"schemaVersion":2,"manifests":null}"#), Ok(0));
        assert_eq!(parse("{}"), Err(ListError::Field("manifests")));
        assert_eq!(
            parse(r#"{"errors":[]}"#),
            Err(ListError::Field("manifests"))
        );
        let deep = format!(
            r#"{{"manifests":[{}{}]}}"#,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        for text in ["", "<html>", &deep] {
            assert!(matches!(parse(text), Err(ListError::Json(_))));
        }
    }

    #[test]
    fn a_filter_leaves_only_its_type() {
        let all = referrers(&[(3, Some("a/b")), (1, None), (2, Some("c/d"))]);
        let filtered = |kind| digests(&all.page(kind, None, 9999));
        assert_eq!(filtered(None), [digest(1), digest(2), digest(3)]);
        assert_eq!(filtered(Some("a/b")), [digest(3)]);
        assert_eq!(filtered(Some("x/y")), []);
    }

    #[test]
    fn pages_follow_each_other_and_fit() {
        let all = referrers(&[(1, None), (2, None), (3, None), (4, None), (5, None)]);
        let mut found = Vec::new();
        let mut last = None;
        loop {
            let page = all.page(None, last, 500);
            assert!(page.json.len() <= 500, "{}", page.json.len());
            found.extend(digests(&page));
            last = page.last;
            if last.is_none() {
                break;
            }
        }
        assert_eq!(found, [1, 2, 3, 4, 5].map(digest));
        // Somebody removed the one where it would go on.
        let rest = referrers(&[(1, None), (3, None)]).page(None, Some(digest(2)), 500);
        assert_eq!(digests(&rest), [digest(3)]);
        // One that does not fit is better than none, for ever.
        assert_eq!(digests(&all.page(None, None, 1)), [digest(1)]);
    }

    #[test]
    fn the_fallback_tag_is_that_of_the_specification() {
        let tag = |digest: &Digest| Referrers::fallback_tag(digest).map(|tag| tag.to_string());
        let hex = "01".repeat(32);
        assert_eq!(tag(&digest(1)), Some(format!("sha256-{hex}")));
        assert_eq!(tag(&Digest::Sha512([1; 64])), Some(format!("sha512-{hex}")));
    }
}
