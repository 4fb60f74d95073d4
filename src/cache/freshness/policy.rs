//! What the operator says about tags: terms, and rules that change them.

use std::time::Duration;

use hashbrown::HashMap;
use regex::Regex;

use crate::oci::{Namespace, RepositoryName, RepositoryPatterns, Tag};

/// For how long a tag is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// For this long after upstream confirmed it; zero asks every time.
    Limited(Duration),
    /// For ever: it does not move.
    Immutable,
}

/// What becomes of a tag that is known when upstream says that there is no such tag, or that it is not for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRefusal {
    /// Upstream's word is passed on, and the tag is forgotten.
    Deny,
    /// It is served as if upstream were in trouble, and for as long.
    Serve,
}

/// What holds for one tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagTerms {
    /// For how long it is fresh.
    pub lifetime: Lifetime,
    /// For how long after that it is served while upstream is asked behind (RFC 5861 section 3).
    pub stale_while_revalidate: Duration,
    /// For how long after its lifetime it may stand in while upstream is in trouble (RFC 5861 section 4).
    pub stale_if_error: Duration,
    /// When upstream says 404.
    pub on_not_found: OnRefusal,
    /// When upstream says 401 or 403.
    pub on_unauthorized: OnRefusal,
}

/// Which tags are meant, and what is different for them. What a rule leaves open is as it would be without the rule.
#[derive(Debug, Clone, Default)]
pub struct TagRule {
    /// The repositories.
    pub repositories: RepositoryPatterns,
    /// The tags, by an expression that is looked for anywhere in them; `None` is every tag.
    pub tags: Option<Regex>,
    /// See [`TagTerms::lifetime`].
    pub lifetime: Option<Lifetime>,
    /// See [`TagTerms::stale_while_revalidate`].
    pub stale_while_revalidate: Option<Duration>,
    /// See [`TagTerms::stale_if_error`].
    pub stale_if_error: Option<Duration>,
    /// See [`TagTerms::on_not_found`].
    pub on_not_found: Option<OnRefusal>,
    /// See [`TagTerms::on_unauthorized`].
    pub on_unauthorized: Option<OnRefusal>,
}

/// Everything the operator says about tags: layers of rules, one over the other. In each layer the first rule that
/// fits counts.
#[derive(Debug, Clone)]
pub struct TagPolicy {
    /// The top layer: rules of single upstreams, by canonical name.
    pub upstreams: HashMap<Namespace, Vec<TagRule>>,
    /// Rules for all upstreams.
    pub everywhere: Vec<TagRule>,
    /// What `ignore` and `cache: no` stand for: rules without a ttl.
    pub shorthands: Vec<TagRule>,
    /// The ground.
    pub usual: TagTerms,
}

impl TagRule {
    fn fits(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        let is_meant = |tags: &Regex| tags.is_match(tag.as_str());
        self.tags.as_ref().is_none_or(is_meant) && self.repositories.fit(repository)
    }

    /// `below`, with what this rule says in its place.
    fn over(&self, below: TagTerms) -> TagTerms {
        TagTerms {
            lifetime: self.lifetime.unwrap_or(below.lifetime),
            stale_while_revalidate: self
                .stale_while_revalidate
                .unwrap_or(below.stale_while_revalidate),
            stale_if_error: self.stale_if_error.unwrap_or(below.stale_if_error),
            on_not_found: self.on_not_found.unwrap_or(below.on_not_found),
            on_unauthorized: self.on_unauthorized.unwrap_or(below.on_unauthorized),
        }
    }
}

impl TagPolicy {
    /// What holds for a tag.
    pub fn terms(&self, namespace: &Namespace, repository: &RepositoryName, tag: &Tag) -> TagTerms {
        let own = self.upstreams.get(namespace).map_or(&[][..], Vec::as_slice);
        let from_below = [&*self.shorthands, &*self.everywhere, own];
        from_below.into_iter().fold(self.usual, |below, layer| {
            let first = layer.iter().find(|rule| rule.fits(repository, tag));
            first.map_or(below, |rule| rule.over(below))
        })
    }
}

impl TagPolicy {
    /// What holds for what is no tag, such as a list of tags: the ground, with what is said of every tag there is.
    pub(in crate::cache) fn in_general(&self) -> TagTerms {
        let rule = self.shorthands.iter().find(|rule| rule.tags.is_none());
        rule.map_or(self.usual, |rule| rule.over(self.usual))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: TagTerms = TagTerms {
        lifetime: Lifetime::Limited(Duration::from_mins(15)),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::from_hours(24),
        on_not_found: OnRefusal::Deny,
        on_unauthorized: OnRefusal::Deny,
    };

    const NEVER: Lifetime = Lifetime::Limited(Duration::ZERO);

    fn rule(repositories: &[&str], tags: &str) -> TagRule {
        let patterns = repositories.iter().map(|text| text.parse());
        TagRule {
            repositories: RepositoryPatterns::new(
                patterns.collect::<Result<_, _>>().expect("patterns"),
            ),
            tags: Some(Regex::new(tags).expect("an expression")),
            ..TagRule::default()
        }
    }

    /// `latest` is ignored everywhere; `a.test` has rules of its own.
    fn policy() -> TagPolicy {
        let version = TagRule {
            lifetime: Some(Lifetime::Immutable),
            ..rule(&[], r"^v\d+$")
        };
        let team = TagRule {
            lifetime: Some(Lifetime::Limited(Duration::from_mins(1))),
            ..rule(&["team/*"], "")
        };
        let kept = TagRule {
            on_not_found: Some(OnRefusal::Serve),
            ..rule(&["kept/*"], "")
        };
        let ignore = TagRule {
            lifetime: Some(NEVER),
            ..rule(&[], "latest")
        };
        let namespace = "a.test".parse().expect("a namespace");
        let strict = TagRule {
            stale_if_error: Some(Duration::ZERO),
            ..rule(&["strict"], "")
        };
        TagPolicy {
            upstreams: HashMap::from([(namespace, vec![version, team, kept])]),
            everywhere: vec![strict],
            shorthands: vec![ignore],
            usual: USUAL,
        }
    }

    fn terms(namespace: &str, repository: &str, tag: &str) -> TagTerms {
        policy().terms(
            &namespace.parse().expect("a namespace"),
            &repository.parse().expect("a name"),
            &tag.parse().expect("a tag"),
        )
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let check = |namespace, repository, tag, expected| {
            let found = terms(namespace, repository, tag).lifetime;
            assert_eq!(found, expected, "{namespace} {repository}:{tag}");
        };
        let minute = Lifetime::Limited(Duration::from_mins(1));
        check("a.test", "team/app", "v1", Lifetime::Immutable);
        check("a.test", "team/app", "edge", minute);
        check("a.test", "other", "edge", USUAL.lifetime);
        check("b.test", "team/app", "v1", USUAL.lifetime);
    }

    #[test]
    fn an_ignored_tag_has_no_ttl_unless_a_rule_gives_it_one() {
        let lifetime = |namespace, repository, tag| terms(namespace, repository, tag).lifetime;
        assert_eq!(lifetime("b.test", "team/app", "latest-alpine"), NEVER);
        assert_eq!(
            lifetime("a.test", "team/app", "latest"),
            Lifetime::Limited(Duration::from_mins(1))
        );
        // A rule about something else leaves it ignored.
        let kept = terms("a.test", "kept/app", "latest");
        assert_eq!(
            (kept.lifetime, kept.on_not_found),
            (NEVER, OnRefusal::Serve)
        );
    }

    #[test]
    fn what_a_rule_leaves_open_comes_from_below() {
        let version = terms("a.test", "strict", "v1");
        assert_eq!(version.lifetime, Lifetime::Immutable);
        assert_eq!(
            version.stale_if_error,
            Duration::ZERO,
            "as everywhere for this repository"
        );
        assert_eq!(version.on_unauthorized, OnRefusal::Deny);
    }
}
