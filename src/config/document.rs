//! A YAML text as a tree that knows the position of everything in it.
//!
//! The tree keeps every scalar as the text that was written, whatever YAML would make of it: `1.10` stays `1.10` and
//! `no` stays `no`. What it means is for the key to say.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{DuplicateKeyPolicy, Location, Spanned};

/// A place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The line, from 1.
    pub(super) line: u64,
    /// The column, from 1, in characters.
    pub(super) column: u64,
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        Self {
            line: location.line(),
            column: location.column(),
        }
    }
}

/// A value and its position.
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) value: Value,
}

/// A key and its position.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) position: Position,
    pub(super) text: String,
}

/// What YAML can hold.
pub(super) enum Value {
    /// Nothing at all, or `null`.
    Nothing,
    /// A scalar, as it was written.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file, with keys that were written twice.
    Mapping(Vec<(Key, Node)>),
}

impl Value {
    /// What it is, for a message that says what was found instead of something else.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }

    /// The same, with an empty mapping in the place of nothing.
    pub(super) fn or_empty(self) -> Self {
        match self {
            Self::Nothing => Self::Mapping(Vec::new()),
            Self::Text(_) | Self::List(_) | Self::Mapping(_) => self,
        }
    }
}

/// Reads a text that holds one YAML document.
///
/// # Errors
/// The position where the text stops being YAML, and why, in words that repeat nothing of the text but single
/// characters.
pub(super) fn read(text: &str) -> Result<Node, (Position, String)> {
    let options = serde_yaml::options! {
        // The reader reports every key that was written twice, not only the first.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // A snippet of the text may be a password.
        with_snippet: false,
    };
    serde_yaml::from_str_with_options::<Spanned<Content>>(text, options)
        .map(|content| node(content, text))
        .map_err(|error| {
            let position = error
                .location()
                .map_or(Position { line: 1, column: 1 }, Position::from);
            (position, reason(&error))
        })
}

/// Why a text is not YAML, without the position, which is told apart from it.
fn reason(error: &serde_yaml::Error) -> String {
    let error = error.without_snippet();
    if let serde_yaml::Error::MultipleDocuments { .. } = error {
        // The message of the library is for those who call it.
        return "a second document begins here".to_owned();
    }
    let message = error.to_string();
    let reason = message.rsplit_once(" at line ");
    reason.map_or(&*message, |(reason, _)| reason).to_owned()
}

/// What the YAML reader makes of a value.
enum Content {
    Nothing,
    Text(String),
    /// A number or boolean: its text is where its position says.
    Plain,
    List(Vec<Spanned<Self>>),
    Mapping(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Nothing)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Content, E> {
        Ok(Content::Plain)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Content, E> {
        Ok(Content::Plain)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Content, E> {
        Ok(Content::Plain)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Content, E> {
        Ok(Content::Plain)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Content, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element()? {
            elements.push(element);
        }
        Ok(Content::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = mapping.next_entry()? {
            entries.push(entry);
        }
        Ok(Content::Mapping(entries))
    }
}

fn node(content: Spanned<Content>, source: &str) -> Node {
    let value = match content.value {
        Content::Nothing => Value::Nothing,
        Content::Text(text) => Value::Text(text),
        Content::Plain => Value::Text(source_text(content.defined, source).to_owned()),
        Content::List(elements) => {
            Value::List(elements.into_iter().map(|e| node(e, source)).collect())
        }
        Content::Mapping(entries) => Value::Mapping(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let key = Key {
                        position: key.referenced.into(),
                        text: key.value,
                    };
                    (key, node(value, source))
                })
                .collect(),
        ),
    };
    Node {
        position: content.referenced.into(),
        value,
    }
}

/// The text at `location`. Its byte offsets are always there for a source that is a string.
fn source_text(location: Location, source: &str) -> &str {
    let span = location.span();
    span.byte_offset()
        .zip(span.byte_len())
        .and_then(|(offset, len)| {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(len).ok()?)?;
            source.get(start..end)
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree in one line: `{key@line:column=…}`, `[…]`, `text`, `~`.
    fn sketch(node: &Node) -> String {
        match &node.value {
            Value::Nothing => "~".to_owned(),
            Value::Text(text) => format!("{text}@{}:{}", node.position.line, node.position.column),
            Value::List(elements) => {
                format!(
                    "[{}]",
                    elements.iter().map(sketch).collect::<Vec<_>>().join(" ")
                )
            }
            Value::Mapping(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| {
                        let Position { line, column } = key.position;
                        format!("{}@{line}:{column}={}", key.text, sketch(value))
                    })
                    .collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    fn check(text: &str, expected: &str) {
        let found = match read(text) {
            Ok(node) => sketch(&node),
            Err((Position { line, column }, message)) => format!("{line}:{column} {message}"),
        };
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn scalars_stay_as_they_were_written() {
        check("a: 1.10", "{a@1:1=1.10@1:4}");
        check("ü: é\na: 0123", "{ü@1:1=é@1:4 a@2:1=0123@2:4}");
        check("a: yes\nb: True", "{a@1:1=yes@1:4 b@2:1=True@2:4}");
        check(
            "a: 12345678901234567890123",
            "{a@1:1=12345678901234567890123@1:4}",
        );
        check("a: -1e3 # c", "{a@1:1=-1e3@1:4}");
        check("a: '007'", "{a@1:1=007@1:4}");
        check("a: \"x\\ty\"", "{a@1:1=x\ty@1:4}");
        check("a: [ 1.0, no ]", "{a@1:1=[1.0@1:6 no@1:11]}");
        check("1: 2", "{1@1:1=2@1:4}");
        check("a: &x 1.10\nb: *x", "{a@1:1=1.10@1:7 b@2:1=1.10@2:4}");
        check("{\"a\": {\"b\": 1.50}}", "{a@1:2={b@1:8=1.50@1:13}}");
    }

    #[test]
    fn nothing_is_nothing() {
        check("", "~");
        check("# only a comment", "~");
        check("a:\nb: ~\nc: null", "{a@1:1=~ b@2:1=~ c@3:1=~}");
    }

    #[test]
    fn keys_that_are_written_twice_are_both_kept() {
        check("a: x\na: y", "{a@1:1=x@1:4 a@2:1=y@2:4}");
    }

    #[test]
    fn what_is_not_yaml_is_one_problem_with_its_position() {
        check(
            "a: b\n c: d",
            "2:3 mapping values are not allowed in this context",
        );
        check("a: [b", "1:4 unclosed bracket '['");
        check("a: *x", "1:4 alias references unknown anchor");
    }

    #[test]
    fn an_error_repeats_nothing_of_the_text() {
        for text in [
            "a: 'hunter2",
            "a: @hunter2",
            "a: \"\\qhunter2\"",
            "a: &hunter2 *hunter2",
            "a: b: hunter2",
            "<<: hunter2",
            "a: !!int hunter2",
            "? [hunter2]\n: b",
            "hunter2\na: b",
            "a: hunter2\n---\nb: hunter2",
            "a: !!binary hunter2*",
        ] {
            let Err((_, message)) = read(text) else {
                panic!("{text:?} is YAML");
            };
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
