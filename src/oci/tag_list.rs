//! The tags of a repository (distribution-spec, "Listing Tags").

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{ListError, Tag};

/// Most tags of one repository that are taken. The longest public lists, those with a tag for every build, have some
/// ten thousands; in memory this many are some 20 MiB.
pub const TAGS_MAX: usize = 200_000;

/// All tags of one repository, each once, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeSet<Tag>")]
pub struct TagList(Box<[Tag]>);

/// One answer to `tags/list`, as far as it matters: registries add fields of their own.
#[derive(Deserialize)]
struct Page {
    name: Option<IgnoredAny>,
    tags: Option<Entries>,
}

/// The tags among the entries of a list. Nexus has `null` among them, Artifactory digests: neither can be asked for as
/// a tag.
struct Entries(Vec<Tag>);

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {TAGS_MAX} tags")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries, A::Error> {
        let mut tags = Vec::new();
        while let Some(entry) = seq.next_element::<Option<String>>()? {
            let tag = entry.and_then(|entry| entry.parse().ok());
            tags.extend(tag);
            if tags.len() > TAGS_MAX {
                return Err(serde::de::Error::invalid_length(tags.len(), &self));
            }
        }
        Ok(Entries(tags))
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EntriesVisitor)
    }
}

impl TagList {
    /// The tags in one answer of a registry, as they stand there: in any order, and possibly not all there are.
    ///
    /// # Errors
    /// Where the answer is no list of tags, or one of more than [`TAGS_MAX`].
    pub fn parse_page(bytes: &[u8]) -> Result<Vec<Tag>, ListError> {
        let page: Page =
            serde_json::from_slice(bytes).map_err(|error| ListError::Json(error.to_string()))?;
        match page {
            Page {
                tags: Some(Entries(tags)),
                ..
            } => Ok(tags),
            // distribution says `null` where there are none.
            Page { name: Some(_), .. } => Ok(Vec::new()),
            Page { name: None, .. } => Err(ListError::Field("tags")),
        }
    }

    /// At most `n` tags that stand after `last`, which need not be one of them, and whether others follow.
    pub fn page(&self, n: usize, last: &str) -> (&[Tag], bool) {
        let from = self.0.partition_point(|tag| tag.as_str() <= last);
        let rest = self.0.get(from..).unwrap_or_default();
        let page = rest.get(..n).unwrap_or(rest);
        (page, page.len() < rest.len())
    }

    /// What it takes of memory, in bytes, more or less.
    pub fn weight(&self) -> usize {
        let each = |tag: &Tag| tag.as_str().len() + 2 * size_of::<Tag>();
        self.0.iter().map(each).sum()
    }
}

impl From<BTreeSet<Tag>> for TagList {
    fn from(tags: BTreeSet<Tag>) -> Self {
        Self(tags.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(tags: &[&str]) -> TagList {
        let tags = tags.iter().map(|tag| tag.parse().expect("a tag"));
        tags.collect::<BTreeSet<_>>().into()
    }

    fn parse(text: &str) -> Result<Vec<String>, ListError> {
        let tags = TagList::parse_page(text.as_bytes())?;
        Ok(tags.iter().map(Tag::to_string).collect())
    }

    #[test]
    fn what_is_no_tag_is_left_out() {
        let text = r#"{"name":"a","tags":["b",null,"sha256:00","a","-x"],"child":[],"manifest":{"sha256:0":{"tag":[]}}}"#;
        assert_eq!(parse(text), Ok(vec!["b".to_owned(), "a".to_owned()]));
    }

    #[test]
    fn none_is_not_the_same_as_no_list() {
        assert_eq!(parse(r#"{"name":"a","tags":null}"#), Ok(Vec::new()));
        assert_eq!(parse(r#"{"name":"a","tags":[]}"#), Ok(Vec::new()));
        assert_eq!(parse(r#"{"name":"a"}"#), Ok(Vec::new()));
        assert_eq!(parse("{}"), Err(ListError::Field("tags")));
        assert_eq!(parse(r#"{"errors":[]}"#), Err(ListError::Field("tags")));
        for text in ["", "<html>", "7", r#"{"tags":7}"#, r#"{"tags":["a"]} x"#] {
            assert!(matches!(parse(text), Err(ListError::Json(_))), "{text}");
        }
    }

    #[test]
    fn a_list_without_end_is_not_read_to_its_end() {
        let most = format!(r#"{{"tags":["a"{}]}}"#, r#","a""#.repeat(TAGS_MAX - 1));
        assert_eq!(parse(&most).map(|tags| tags.len()), Ok(TAGS_MAX));
        let more = format!(r#"{{"tags":["a"{}]}}"#, r#","a""#.repeat(TAGS_MAX));
        assert!(matches!(parse(&more), Err(ListError::Json(_))));
    }

    #[test]
    fn pages_are_sorted_and_follow_each_other() {
        let list = list(&["v2", "B", "a", "v10", "v1", "v1"]);
        let check = |n, last, expected: &[&str], more| {
            let (page, follows) = list.page(n, last);
            let page: Vec<_> = page.iter().map(Tag::as_str).collect();
            assert_eq!((&*page, follows), (expected, more), "{n} after {last}");
        };
        check(9, "", &["B", "a", "v1", "v10", "v2"], false);
        check(5, "", &["B", "a", "v1", "v10", "v2"], false);
        check(2, "", &["B", "a"], true);
        check(2, "a", &["v1", "v10"], true);
        check(2, "v10", &["v2"], false);
        check(2, "b", &["v1", "v10"], true);
        check(2, "z", &[], false);
        check(0, "", &[], true);
    }
}
