//! Which known clients may read which repositories.

use std::str::FromStr;

use super::Identity;
use crate::oci::{Namespace, RepositoryName};

/// What known clients may read. Whatever no rule allows is refused.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

/// Some clients, and what they may read.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The clients' names; a `*` stands for any.
    pub users: Vec<Pattern>,
    /// `registry/repository`.
    pub repositories: Vec<Pattern>,
}

impl Rules {
    /// These rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Whether `identity` may read `repository` of `namespace`.
    pub fn allow(
        &self,
        identity: &Identity,
        namespace: &Namespace,
        repository: &RepositoryName,
    ) -> bool {
        let name = format!("{namespace}/{repository}");
        let fits = |patterns: &[Pattern], text: &str| patterns.iter().any(|one| one.fits(text));
        self.0
            .iter()
            .any(|rule| fits(&rule.users, identity.name()) && fits(&rule.repositories, &name))
    }
}

/// A text in which `*` stands for anything within one part of a path, and `**` for anything at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `*`
    WithinPart,
    /// `**`
    Anything,
}

/// A pattern that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must not be empty, and `*` stands alone or twice")]
pub struct PatternError;

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.contains("***") {
            return Err(PatternError);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('*') {
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].to_owned()));
            }
            rest = &rest[at + 1..];
            pieces.push(match rest.strip_prefix('*') {
                Some(after) => {
                    rest = after;
                    Piece::Anything
                }
                None => Piece::WithinPart,
            });
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }
}

impl Pattern {
    /// Whether it stands for the whole of `text`. Names are the clients' to choose, so this never goes back: it takes a
    /// look at every byte for every piece, and no more.
    pub fn fits(&self, text: &str) -> bool {
        let text = text.as_bytes();
        // Where the pieces so far may end.
        let mut ends = vec![false; text.len() + 1];
        ends[0] = true;
        for piece in &self.0 {
            ends = match piece {
                Piece::Text(wanted) => after_text(&ends, text, wanted.as_bytes()),
                Piece::WithinPart => spread(&ends, |at| text.get(at) != Some(&b'/')),
                Piece::Anything => spread(&ends, |_| true),
            };
        }
        ends.last() == Some(&true)
    }
}

fn after_text(ends: &[bool], text: &[u8], wanted: &[u8]) -> Vec<bool> {
    let starts_at = |at: usize| ends[at] && text[at..].starts_with(wanted);
    let is_end = |end: usize| end.checked_sub(wanted.len()).is_some_and(starts_at);
    (0..ends.len()).map(is_end).collect()
}

/// Every end, and what lies behind one without a byte that does not `pass` between.
fn spread(ends: &[bool], pass: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut is_open = false;
    let spread = ends.iter().enumerate().map(|(at, &is_end)| {
        is_open = is_end || (is_open && at.checked_sub(1).is_some_and(&pass));
        is_open
    });
    spread.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn one_star_stays_within_a_part_and_two_do_not() {
        let check = |written: &str, text: &str, expected: bool| {
            assert_eq!(pattern(written).fits(text), expected, "{written} {text}");
        };
        check("ghcr.io/team/*", "ghcr.io/team/app", true);
        check("ghcr.io/team/*", "ghcr.io/team/app/sub", false);
        check("ghcr.io/team/**", "ghcr.io/team/app/sub", true);
        check("ghcr.io/team/**", "ghcr.io/teamwork/app", false);
        check("**", "ghcr.io/team/app", true);
        check("*", "ghcr.io/team/app", false);
        check("*/team/a*p", "ghcr.io/team/app", true);
        check("ghcr.io/team/app", "ghcr.io/team/app2", false);
        check("team-*", "team-a", true);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "***", "a***b"] {
            assert_eq!(text.parse::<Pattern>(), Err(PatternError), "{text:?}");
        }
    }

    #[test]
    fn what_no_rule_allows_is_refused() {
        let rule = |users: &str, repositories: &str| Rule {
            users: vec![pattern(users)],
            repositories: vec![pattern(repositories)],
        };
        let rules = Rules::new(vec![
            rule("ci", "docker.io/library/*"),
            rule("team-*", "ghcr.io/team/**"),
        ]);
        let allow = |user: &str, namespace: &str, repository: &str| {
            let namespace = namespace.parse().expect("a namespace");
            let repository = repository.parse().expect("a name");
            rules.allow(&Identity::proven(user), &namespace, &repository)
        };
        assert!(allow("ci", "docker.io", "library/nginx"));
        assert!(!allow("ci", "ghcr.io", "team/app"));
        assert!(!allow("ci", "quay.io", "docker.io/library/nginx"));
        assert!(allow("team-a", "ghcr.io", "team/app/sub"));
        assert!(!allow("team", "ghcr.io", "team/app"));
        let none = Rules::default();
        let namespace = "docker.io".parse().expect("a namespace");
        let repository = "library/nginx".parse().expect("a name");
        assert!(!none.allow(&Identity::proven("ci"), &namespace, &repository));
    }
}
