//! A value as somebody wrote it, not yet held against any rule.

use std::path::Path;

use super::problem::{Place, Problem, Rule};

/// What stands in a problem in place of a secret.
const REDACTED: &str = "[redacted]";

/// Longest value that is repeated in a problem, in characters. Enough to recognise it, and to keep one problem on
/// one line.
const SHOWN_CHARACTERS_MAX: usize = 100;

/// A text and where it was written. Not `Debug`, since it may be a secret.
#[derive(Clone)]
pub(super) struct Written {
    place: Place,
    /// The text as a problem may show it.
    shown: String,
    /// The text that counts, with variables filled in.
    text: String,
}

impl Written {
    /// A value of the command line or of the environment. Nothing is filled in there: the shell does that.
    pub(super) fn outside(place: Place, text: &str) -> Self {
        Self {
            place,
            shown: shown(text),
            text: text.to_owned(),
        }
    }

    /// A value of a file: `raw` is what stands there, `text` what it means once variables are filled in.
    pub(super) fn in_file(place: Place, raw: &str, text: String) -> Self {
        Self {
            place,
            shown: shown(raw),
            text,
        }
    }

    /// The same, never to be shown.
    pub(super) fn into_secret(self) -> Self {
        Self {
            shown: REDACTED.to_owned(),
            ..self
        }
    }

    /// Where it was written.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The text that counts.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The same as a path below `base`; an absolute path stays what it is, and so does an empty text.
    pub(super) fn below(mut self, base: &Path) -> Self {
        if !self.text.is_empty() {
            self.text = base.join(&self.text).to_string_lossy().into_owned();
        }
        self
    }

    /// The problem that this value breaks `rule`.
    pub(super) fn problem(&self, rule: impl Into<Rule>) -> Problem {
        Problem::of_value(self.place.clone(), self.shown.clone(), rule)
    }
}

/// `text` without what could be a secret in any value: user info before an `@`, the query of a URL, and the end of what
/// is very long.
pub(super) fn shown(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let (rest, query) = match rest.split_once(['?', '#']) {
        Some((rest, _)) if !scheme.is_empty() => (rest, "?[redacted]"),
        _ => (rest, ""),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("[redacted]@", rest),
        None => ("", rest),
    };
    let mut shown = format!("{scheme}{user}{rest}{query}");
    if let Some((end, _)) = shown.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        shown.truncate(end);
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        assert_eq!(shown("15 parsecs"), "15 parsecs");
        assert_eq!(
            shown("https://u:p@ss@host/a?token=x"),
            "https://[redacted]@host/a?[redacted]"
        );
        assert_eq!(shown("user:p@ss@host"), "[redacted]@host");
        assert_eq!(shown("a?b"), "a?b");
        assert_eq!(shown("a=http://host:5000"), "a=http://host:5000");
        assert_eq!(shown("https://host?u:p@x"), "https://host?[redacted]");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), 101);
    }
}
