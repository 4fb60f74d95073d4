//! How a registry asks who we are: the `WWW-Authenticate` header (RFC 9110, section 11.6.1), read with patience.
//!
//! Registries send several lines, several challenges on a line, values without quotes, upper-case schemes and quotes
//! that never close. A strict parser refuses the whole header for one broken part, so this one keeps what it can
//! read: a broken challenge must not hide a good one.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// Most challenges that are read from one answer. The most that any registry is known to send is two.
pub(super) const CHALLENGES_MAX: usize = 16;

/// Most parameters that are kept of one challenge. The most that any registry is known to send is four.
const PARAMETERS_MAX: usize = 32;

/// One way to authenticate that a registry offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Whether this asks for `scheme`, written in lower case.
    pub(super) fn is(&self, scheme: &str) -> bool {
        self.scheme == scheme
    }

    /// The value of the parameter `name`, written in lower case. The first counts where there are several. An empty
    /// value is not a missing one.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter();
        parameters
            .find(|(found, _)| found == name)
            .map(|(_, value)| &**value)
    }
}

/// Every challenge in `headers`, in order.
pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let lines = headers.get_all(WWW_AUTHENTICATE).iter();
    let mut found: Vec<_> = lines
        .flat_map(|line| parse(&String::from_utf8_lossy(line.as_bytes())))
        .collect();
    found.truncate(CHALLENGES_MAX);
    found
}

/// Reads one header line. Total: whatever does not look like a challenge is skipped.
fn parse(line: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = Cursor(line);
    // One more than is kept, so that the last one has its parameters.
    while found.len() <= CHALLENGES_MAX {
        rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        let word = rest.take(|c| !matches!(c, ',' | '=' | '"') && !c.is_ascii_whitespace());
        if word.is_empty() {
            // A stray `=` or `"`, or the end.
            if rest.next().is_none() {
                break;
            }
            continue;
        }
        let after = Cursor(rest.0.trim_ascii_start());
        match (after.0.strip_prefix('='), found.last_mut()) {
            (Some(value), Some(challenge)) => {
                rest = Cursor(value.trim_ascii_start());
                let value = rest.value();
                let name = word.to_ascii_lowercase();
                let is_first = challenge.parameter(&name).is_none();
                if is_first && challenge.parameters.len() < PARAMETERS_MAX {
                    challenge.parameters.push((name, value));
                }
            }
            // A parameter of nothing.
            (Some(_), None) => {}
            (None, _) => found.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: Vec::new(),
            }),
        }
    }
    found
}

/// What is still to be read.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn next(&mut self) -> Option<char> {
        let mut chars = self.0.chars();
        let next = chars.next();
        self.0 = chars.as_str();
        next
    }

    fn take(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !belongs(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn skip(&mut self, belongs: impl Fn(char) -> bool) {
        self.take(belongs);
    }

    /// A quoted or a bare value. A quote that never closes ends with the line.
    fn value(&mut self) -> String {
        let Some(rest) = self.0.strip_prefix('"') else {
            return self
                .take(|c| c != ',' && !c.is_ascii_whitespace())
                .to_owned();
        };
        self.0 = rest;
        let mut value = String::new();
        while let Some(c) = self.next() {
            match c {
                '"' => break,
                '\\' => value.extend(self.next()),
                c => value.push(c),
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;
    use crate::upstream::trial;

    /// `scheme name=value …`, one challenge after the other.
    fn show(challenges: &[Challenge]) -> String {
        let show = |challenge: &Challenge| {
            let parameters = challenge.parameters.iter();
            let shown = parameters.map(|(name, value)| format!(" {name}=<{value}>"));
            format!("{}{}", challenge.scheme, shown.collect::<String>())
        };
        challenges.iter().map(show).collect::<Vec<_>>().join("; ")
    }

    #[track_caller]
    fn check(lines: &[&'static str], expected: &str) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(line));
        }
        assert_eq!(show(&challenges(&headers)), expected);
    }

    #[test]
    fn the_shapes_of_the_specification() {
        check(&[], "");
        check(&[""], "");
        check(
            &[r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#],
            "bearer realm=<https://auth.docker.io/token> service=<registry.docker.io>",
        );
        check(
            &[r#"Bearer realm="https://h/token" , service = "SUSE Linux Docker Registry""#],
            "bearer realm=<https://h/token> service=<SUSE Linux Docker Registry>",
        );
        check(
            &[
                r#"Bearer realm="https://h/t",scope="repository:a/b:pull,push x",error="invalid_token""#,
            ],
            "bearer realm=<https://h/t> scope=<repository:a/b:pull,push x> error=<invalid_token>",
        );
        check(
            &[r#"Bearer realm="a\"b\\c",service="x""#],
            r#"bearer realm=<a"b\c> service=<x>"#,
        );
    }

    #[test]
    fn several_challenges_on_one_line_or_on_several() {
        check(
            &[
                r#"Bearer realm="https://codeberg.org/v2/token",service="container_registry",scope="*",Basic realm="https://codeberg.org/v2",service="container_registry",scope="*""#,
            ],
            "bearer realm=<https://codeberg.org/v2/token> service=<container_registry> scope=<*>; \
             basic realm=<https://codeberg.org/v2> service=<container_registry> scope=<*>",
        );
        check(
            &["Negotiate", r#"Basic realm="corp""#],
            "negotiate; basic realm=<corp>",
        );
        check(
            &[r#"Negotiate, Basic realm="corp""#],
            "negotiate; basic realm=<corp>",
        );
    }

    #[test]
    fn the_shapes_that_really_occur() {
        check(
            &[r#"BASIC realm="Sonatype Nexus Repository Manager""#],
            "basic realm=<Sonatype Nexus Repository Manager>",
        );
        check(
            &[r#"Bearer realm="https://gcr.io/v2/token",service=gcr.io"#],
            "bearer realm=<https://gcr.io/v2/token> service=<gcr.io>",
        );
        check(
            &["bearer realm=https://zot/token?x=1"],
            "bearer realm=<https://zot/token?x=1>",
        );
        check(&["basic realm="], "basic realm=<>");
        check(
            &[r#"Bearer realm="https://nvcr.io/proxy_auth",scope="""#],
            "bearer realm=<https://nvcr.io/proxy_auth> scope=<>",
        );
        check(
            &[r#"Bearer realm="https://h:5002:5002/v2/token""#],
            "bearer realm=<https://h:5002:5002/v2/token>",
        );
        check(
            &[r#"Bearer realm="https://h/1",REALM="https://h/2""#],
            "bearer realm=<https://h/1>",
        );
    }

    #[test]
    fn a_broken_challenge_does_not_hide_a_good_one() {
        let good = r#"Bearer realm="https://h/token",service="h""#;
        let read = "bearer realm=<https://h/token> service=<h>";
        check(
            &[r#"Basic realm="never closed"#, good],
            &format!("basic realm=<never closed>; {read}"),
        );
        check(&[r#"="", ,=,"#, good], read);
        check(
            &[r#"realm="of nothing""#, good],
            &format!("of; nothing; {read}"),
        );
        check(
            &["basic realm=two words", good],
            &format!("basic realm=<two>; words; {read}"),
        );
    }

    #[test]
    fn what_is_read_is_bounded() {
        let mut headers = HeaderMap::new();
        let line = HeaderValue::from_str(&"x ".repeat(10_000)).expect("a value");
        headers.append(WWW_AUTHENTICATE, line);
        let parameters: Vec<_> = (0..10_000).map(|n| format!("p{n}=1")).collect();
        let line = HeaderValue::from_str(&format!("x {}", parameters.join(","))).expect("a value");
        assert_eq!(challenges(&headers).len(), CHALLENGES_MAX);
        assert_eq!(
            parse(line.to_str().expect("text"))[0].parameters.len(),
            PARAMETERS_MAX
        );
    }

    proptest! {
        #[test]
        fn no_line_is_too_broken_to_be_read(line in "\\PC*|[ ,=\"\\\\a-zA-Z]*") {
            parse(&line);
        }

        #[test]
        fn whatever_stands_on_some_lines_hides_nothing_on_the_next(
            lines in proptest::collection::vec("[ -~\t\u{80}-\u{ff}]{0,80}|([a-z]{1,3} [a-z]=\"?[a-z, ]{0,3}\"?,? ?){0,20}", 0..4),
        ) {
            trial::challenge(lines.iter().map(String::as_bytes));
        }
    }
}
