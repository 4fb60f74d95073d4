//! Which repositories are meant: `library/*`, `team/**`, `!team/secret`.

use globset::{GlobBuilder, GlobMatcher};

use super::RepositoryName;

/// A pattern of repository names: `?` and `*` stand for characters within a part, `**` for any number of parts, `[…]`
/// and `{a,b}` for a choice. With a `!` in front it takes away what others let in.
#[derive(Debug, Clone)]
pub struct RepositoryPattern {
    glob: GlobMatcher,
    takes_away: bool,
}

/// Several patterns as one condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepositoryPatterns(Vec<RepositoryPattern>);

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// There is nothing to match.
    #[error("a pattern is not empty")]
    Empty,
    /// It fits no name there is.
    #[error(
        "the name of a repository has no capital letters, and neither begins nor ends with a slash"
    )]
    FitsNothing,
    /// It is not a glob.
    #[error("{0}")]
    Glob(String),
}

impl std::str::FromStr for RepositoryPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (takes_away, pattern) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if pattern.is_empty() {
            return Err(PatternError::Empty);
        }
        let at_an_end = pattern.starts_with('/') || pattern.ends_with('/');
        if at_an_end || pattern.contains(|c: char| c.is_ascii_uppercase()) {
            return Err(PatternError::FitsNothing);
        }
        let glob = GlobBuilder::new(pattern)
            .literal_separator(true)
            .build()
            .map_err(|error| PatternError::Glob(error.kind().to_string()))?;
        Ok(Self {
            glob: glob.compile_matcher(),
            takes_away,
        })
    }
}

/// As they were written.
impl PartialEq for RepositoryPattern {
    fn eq(&self, other: &Self) -> bool {
        self.takes_away == other.takes_away && self.glob.glob() == other.glob.glob()
    }
}

impl Eq for RepositoryPattern {}

impl RepositoryPatterns {
    /// These patterns; none of them fit every repository.
    pub fn new(patterns: Vec<RepositoryPattern>) -> Self {
        Self(patterns)
    }

    /// Whether `name` is let in by one of them, or by there being none that lets in, and taken away by none.
    pub fn fit(&self, name: &RepositoryName) -> bool {
        let of = |takes_away| {
            let patterns = self.0.iter();
            patterns.filter(move |pattern| pattern.takes_away == takes_away)
        };
        let fits = |pattern: &RepositoryPattern| pattern.glob.is_match(name.as_str());
        let is_let_in = of(false).next().is_none() || of(false).any(fits);
        is_let_in && !of(true).any(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> RepositoryPatterns {
        let parsed = texts.iter().map(|text| text.parse().expect("a pattern"));
        RepositoryPatterns::new(parsed.collect())
    }

    fn check(texts: &[&str], name: &str, expected: bool) {
        let name = name.parse().expect("a name");
        assert_eq!(patterns(texts).fit(&name), expected, "{texts:?} {name:?}");
    }

    #[test]
    fn a_star_stays_within_a_part_and_two_do_not() {
        check(&["team/*"], "team/app", true);
        check(&["team/*"], "team/app/base", false);
        check(&["team/*"], "team", false);
        check(&["team/**"], "team/app/base", true);
        check(&["**/base"], "team/app/base", true);
        check(&["**"], "app", true);
        check(&["*"], "team/app", false);
        check(&["team/app-?"], "team/app-1", true);
        check(&["{a,b}/app"], "b/app", true);
        check(&["team/app"], "team/app", true);
        check(&["team/app"], "team/app2", false);
    }

    #[test]
    fn any_of_several_lets_in_and_an_exclamation_mark_takes_away() {
        check(&[], "app", true);
        check(&["a/*", "b/*"], "b/app", true);
        check(&["library/**", "!library/secret"], "library/nginx", true);
        check(&["library/**", "!library/secret"], "library/secret", false);
        check(&["!secret/**"], "app", true);
        check(&["!secret/**"], "secret/app", false);
    }

    #[test]
    fn what_fits_nothing_is_a_mistake() {
        for text in ["", "!", "Team/*", "/team", "team/", "a[", "{a"] {
            assert!(text.parse::<RepositoryPattern>().is_err(), "{text:?}");
        }
    }
}
