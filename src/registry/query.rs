//! What the queries of lists say, and what the query of the next page is. Pure.

use std::borrow::Cow;

use crate::oci::{Digest, DigestError, Namespace};

/// Most tags in one answer, whatever is asked for: some 300 KiB of the usual ones. Whoever wants more follows the link.
const PAGE_TAGS_MAX: usize = 10_000;

/// Which tags are wanted (distribution-spec, "Listing Tags").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    /// How many at most.
    pub(super) n: usize,
    /// After which one, in the order of bytes. Any text: the tag may be gone by now.
    pub(super) last: String,
}

/// Which referrers are wanted (distribution-spec, "Listing Referrers").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// Of which type alone.
    pub(super) artifact_type: Option<String>,
    /// After which one, in the order of digests: what our own links say.
    pub(super) last: Option<Digest>,
}

/// Why a query is none of a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    /// Two readers could read two things in it.
    #[error("{0} may be given only once")]
    Repeated(&'static str),
    /// Negative, or no number.
    #[error("n is a number of tags: digits alone")]
    Number,
    /// The links made here have a digest.
    #[error("last: {0}")]
    Last(#[from] DigestError),
}

impl Page {
    /// Reads the query of a request for tags.
    pub(super) fn parse(query: &str) -> Result<Self, QueryError> {
        let n = match parameter(query, "n")? {
            None => PAGE_TAGS_MAX,
            Some(n) if n.is_empty() || !n.bytes().all(|c| c.is_ascii_digit()) => {
                return Err(QueryError::Number);
            }
            // Digits that do not fit are many.
            Some(n) => n.parse().unwrap_or(PAGE_TAGS_MAX).min(PAGE_TAGS_MAX),
        };
        let last = parameter(query, "last")?.unwrap_or_default().into_owned();
        Ok(Self { n, last })
    }

    /// The query of the page that follows the one that ends with `last`.
    pub(super) fn next(&self, last: &str, namespace: Option<&Namespace>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("n", &self.n.to_string())
            .append_pair("last", last);
        with_namespace(query, namespace)
    }
}

impl Filter {
    /// Reads the query of a request for referrers.
    pub(super) fn parse(query: &str) -> Result<Self, QueryError> {
        let artifact_type = parameter(query, "artifactType")?.filter(|text| !text.is_empty());
        let last = parameter(query, "last")?.filter(|text| !text.is_empty());
        Ok(Self {
            artifact_type: artifact_type.map(Cow::into_owned),
            last: last.map(|last| last.parse()).transpose()?,
        })
    }

    /// The query of the page that follows the one that ends with `last`.
    pub(super) fn next(&self, last: Digest, namespace: Option<&Namespace>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(artifact_type) = &self.artifact_type {
            query.append_pair("artifactType", artifact_type);
        }
        query.append_pair("last", &last.to_string());
        with_namespace(query, namespace)
    }
}

/// A client that named the registry in `ns` follows the link as it stands, and would name none.
fn with_namespace(
    mut query: form_urlencoded::Serializer<'_, String>,
    namespace: Option<&Namespace>,
) -> String {
    if let Some(namespace) = namespace {
        query.append_pair("ns", namespace.as_str());
    }
    query.finish()
}

fn parameter<'a>(query: &'a str, name: &'static str) -> Result<Option<Cow<'a, str>>, QueryError> {
    let mut values = form_urlencoded::parse(query.as_bytes())
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(QueryError::Repeated(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n_is_clamped_and_has_to_be_a_number() {
        let n = |query| Page::parse(query).map(|page| page.n);
        assert_eq!(n(""), Ok(PAGE_TAGS_MAX));
        assert_eq!(n("n=0"), Ok(0));
        assert_eq!(n("n=2"), Ok(2));
        assert_eq!(n("n=007"), Ok(7));
        assert_eq!(n("n=99999999999"), Ok(PAGE_TAGS_MAX));
        let long = format!("n={}", "9".repeat(100));
        assert_eq!(n(&long), Ok(PAGE_TAGS_MAX));
        for query in ["n=", "n=-1", "n=%2B1", "n=+1", "n=abc", "n=1.5", "n=1%00"] {
            assert_eq!(n(query), Err(QueryError::Number), "{query}");
        }
        assert_eq!(n("n=1&n=2"), Err(QueryError::Repeated("n")));
    }

    #[test]
    fn the_next_page_is_asked_for_as_this_one_was() {
        let page = Page::parse("last=b&n=2&x=y").expect("a query");
        assert_eq!((page.n, &*page.last), (2, "b"));
        let namespace = "registry.example:5000".parse().expect("a namespace");
        assert_eq!(page.next("v1.0", None), "n=2&last=v1.0");
        assert_eq!(
            page.next("v1.0", Some(&namespace)),
            "n=2&last=v1.0&ns=registry.example%3A5000"
        );
    }

    #[test]
    fn a_filter_goes_along_to_the_next_page() {
        let filter = Filter::parse("artifactType=application%2Fx%2Bjson").expect("a query");
        assert_eq!(filter.artifact_type.as_deref(), Some("application/x+json"));
        let digest = Digest::Sha256([0; 32]);
        let next = filter.next(digest, None);
        let again = Filter::parse(&next).expect("our own query");
        assert_eq!(again.artifact_type, filter.artifact_type);
        assert_eq!(again.last, Some(digest));
        assert_eq!(
            Filter::parse("artifactType="),
            Ok(Filter {
                artifact_type: None,
                last: None
            })
        );
        assert!(Filter::parse("last=x").is_err());
        assert!(Filter::parse("artifactType=a&artifactType=b").is_err());
    }
}
