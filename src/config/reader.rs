//! Reads a tree of YAML key by key: takes what is asked for, and reports what nobody asked for.

use std::path::Path;
use std::sync::Arc;

use super::Environment;
use super::document::{self, Key, Node, Position, Value};
use super::file::Access;
use super::fill::fill;
use super::problem::{Findings, Place, Problem, Rule};
use super::written::{Written, shown};

/// How many letters a key may differ from a known one for it to be taken for a slip.
const SLIP_LETTERS_MAX: usize = 2;

/// A file that is being read.
pub(super) struct Source<'a> {
    /// The name of the file as the operator wrote it.
    pub(super) name: Arc<str>,
    /// Where relative paths in the file start.
    pub(super) base: Arc<Path>,
    /// Where variables are looked up.
    pub(super) environment: &'a Environment<'a>,
    /// Where problems are taken down.
    pub(super) findings: &'a Findings,
    /// Who may read it, where a secret in it is worth a warning.
    pub(super) access: Access,
}

impl Source<'_> {
    /// Reads the mapping at the top of `text`. A text that holds nothing is an empty mapping.
    pub(super) fn read<T>(
        &self,
        text: &str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let root = match document::read(text) {
            Ok(root) => root,
            Err((position, message)) => {
                let place = self.place(position, String::new());
                let rule = format!("is not YAML: {message}");
                self.findings.problem(Problem::of_place(place, rule));
                return None;
            }
        };
        Section::read(
            self,
            String::new(),
            root.position,
            root.value.or_empty(),
            read,
        )
    }

    fn place(&self, Position { line, column }: Position, key: String) -> Place {
        Place::File {
            file: self.name.clone(),
            line,
            column,
            key,
        }
    }

    fn problem(&self, position: Position, key: String, rule: impl Into<Rule>) {
        let place = self.place(position, key);
        self.findings.problem(Problem::of_place(place, rule));
    }

    /// A scalar with its variables filled in; `key` stands at `position`.
    fn text(&self, position: Position, key: String, node: Node) -> Option<Written> {
        self.scalar(position, key, node, None)
    }

    /// The same; where it is a secret if `holds_secret` says so of what is written, whoever else may read that is told.
    fn scalar(
        &self,
        position: Position,
        key: String,
        node: Node,
        holds_secret: Option<fn(&str) -> bool>,
    ) -> Option<Written> {
        match node.value {
            Value::Text(raw) => {
                let is_secret = holds_secret.is_some_and(|holds_secret| holds_secret(&raw));
                let is_here = is_secret && !raw.contains("${");
                if is_here && self.access == Access::World {
                    warn_of_access(Path::new(&*self.name), &key, self.findings);
                }
                let place = self.place(node.position, key.clone());
                let read = |path: &Path| {
                    let (text, access) = self.findings.read_text(path)?;
                    if is_secret && access == Access::World {
                        warn_of_access(path, &key, self.findings);
                    }
                    Ok(text)
                };
                match fill(&raw, self.environment, &self.base, &read) {
                    Ok(text) => Some(Written::in_file(place, &raw, text)),
                    Err(rule) => {
                        self.findings.problem(Problem::of_place(place, rule));
                        None
                    }
                }
            }
            Value::Nothing => None,
            other @ (Value::List(_) | Value::Mapping(_)) => {
                self.problem(position, key, expected("a text", &other));
                None
            }
        }
    }
}

fn warn_of_access(path: &Path, key: &str, findings: &Findings) {
    findings.warning(format!(
        "everybody on this machine may read {}, which holds {key}; `chmod o-r` it",
        path.display()
    ));
}

fn expected(wanted: &str, found: &Value) -> String {
    // What was found is not repeated: where a mapping is wanted, a text may be a password.
    format!("wants {wanted}, but holds {}", found.kind())
}

/// A mapping that is being read. Keys are taken out one by one; what is left at the end is unknown.
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    /// The keys that lead here, such as `upstreams.docker.io`.
    path: String,
    position: Position,
    entries: Vec<(Key, Node)>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Reads a value that must be a mapping, and reports its unknown keys.
    fn read<T>(
        source: &'a Source<'a>,
        path: String,
        position: Position,
        value: Value,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let entries = match value {
            Value::Mapping(entries) => entries,
            Value::Nothing => return None,
            other @ (Value::Text(_) | Value::List(_)) => {
                source.problem(position, path, expected("a mapping of keys", &other));
                return None;
            }
        };
        let mut section = Section {
            source,
            path,
            position,
            entries: Vec::with_capacity(entries.len()),
            known: Vec::new(),
        };
        section.keep_first_of_each(entries);
        let result = read(&mut section);
        section.report_unknown();
        Some(result)
    }

    fn keep_first_of_each(&mut self, entries: Vec<(Key, Node)>) {
        for (key, node) in entries {
            let first = self.entries.iter().find(|(kept, _)| kept.text == key.text);
            if let Some((first, _)) = first {
                let rule = format!(
                    "is written twice; it is also on line {}",
                    first.position.line
                );
                self.source.problem(key.position, self.key(&key.text), rule);
            } else {
                self.entries.push((key, node));
            }
        }
    }

    fn report_unknown(mut self) {
        self.known.sort_unstable();
        for (key, _) in &self.entries {
            let nearest = self
                .known
                .iter()
                .map(|known| (strsim::osa_distance(known, &key.text), known))
                .filter(|(letters, _)| *letters <= SLIP_LETTERS_MAX)
                .min();
            let rule = match nearest {
                Some((_, nearest)) => format!("is not a known key; did you mean {nearest}?"),
                None => format!("is not a known key; known here: {}", self.known.join(", ")),
            };
            self.source.problem(key.position, self.key(&key.text), rule);
        }
    }

    /// The path of `key` as a problem shows it.
    fn key(&self, key: &str) -> String {
        let key = shown(key);
        if self.path.is_empty() {
            key
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn take(&mut self, key: &'static str) -> Option<(Key, Node)> {
        self.known.push(key);
        let at = self
            .entries
            .iter()
            .position(|(found, _)| found.text == key)?;
        Some(self.entries.remove(at))
    }

    /// Where this mapping is.
    pub(super) fn place(&self) -> Place {
        self.source.place(self.position, self.path.clone())
    }

    /// The text at `key`; `None` where there is none, or nothing in it.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Written> {
        let (found, node) = self.take(key)?;
        self.source.text(found.position, self.key(key), node)
    }

    /// The secret at `key`, which no problem shows.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<Written> {
        self.secret_if(key, |raw| !raw.is_empty())
    }

    /// The text at `key`, which no problem shows; a secret where `holds_secret` says so of what is written.
    pub(super) fn secret_if(
        &mut self,
        key: &'static str,
        holds_secret: fn(&str) -> bool,
    ) -> Option<Written> {
        let (found, node) = self.take(key)?;
        let (position, path) = (found.position, self.key(key));
        let written = self
            .source
            .scalar(position, path, node, Some(holds_secret))?;
        Some(written.into_secret())
    }

    /// The path at `key`: a relative one starts at the directory of the file.
    pub(super) fn path(&mut self, key: &'static str) -> Option<Written> {
        Some(self.text(key)?.below(&self.source.base))
    }

    /// The texts of the list at `key`.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<Written>> {
        let (position, elements) = self.list(key)?;
        Some(self.elements(key, position, elements))
    }

    /// The text at `key`, or those of the list there, and where they are.
    pub(super) fn text_or_texts(&mut self, key: &'static str) -> Option<(Place, Vec<Written>)> {
        let (found, node) = self.take(key)?;
        let position = found.position;
        let texts = match node.value {
            Value::Nothing => return None,
            Value::List(elements) => self.elements(key, position, elements),
            Value::Text(_) => vec![self.source.text(position, self.key(key), node)?],
            mapping @ Value::Mapping(_) => {
                let rule = expected("a text or a list", &mapping);
                self.source.problem(position, self.key(key), rule);
                return None;
            }
        };
        Some((self.source.place(position, self.key(key)), texts))
    }

    /// The texts of a list; it stands at `position`.
    fn elements(&self, key: &str, position: Position, elements: Vec<Node>) -> Vec<Written> {
        let path = self.key(key);
        let texts = elements
            .into_iter()
            .enumerate()
            .filter_map(|(index, node)| {
                let path = format!("{path}[{index}]");
                if matches!(node.value, Value::Nothing) {
                    self.source.problem(node.position, path, "is empty");
                    return None;
                }
                self.source.text(position, path, node)
            });
        texts.collect()
    }

    /// Every key that is left, for a mapping of names to texts, and its text.
    pub(super) fn texts_by_name(&mut self) -> Vec<(Written, Written)> {
        let entries = std::mem::take(&mut self.entries);
        let texts = entries.into_iter().filter_map(|(key, node)| {
            let path = self.key(&key.text);
            let place = self.source.place(key.position, path.clone());
            if matches!(node.value, Value::Nothing) {
                self.source.problem(key.position, path, "is empty");
                return None;
            }
            let name = Written::in_file(place, &key.text, key.text.clone());
            let text = self.source.text(key.position, path, node)?;
            Some((name, text))
        });
        texts.collect()
    }

    /// The mapping at `key`.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let (found, node) = self.take(key)?;
        Section::read(self.source, self.key(key), found.position, node.value, read)
    }

    /// The mappings of the list at `key`, and where the list is.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Option<(Place, Vec<T>)> {
        let path = self.key(key);
        let (position, elements) = self.list(key)?;
        let place = self.source.place(position, path.clone());
        let sections = elements
            .into_iter()
            .enumerate()
            .filter_map(|(index, node)| {
                let path = format!("{path}[{index}]");
                Section::read(
                    self.source,
                    path,
                    node.position,
                    node.value.or_empty(),
                    &mut read,
                )
            });
        Some((place, sections.collect()))
    }

    /// Every key that is left, for a mapping whose keys are names, and the mapping it holds.
    pub(super) fn named<T>(
        &mut self,
        mut read: impl FnMut(Written, &mut Section<'_>) -> T,
    ) -> Vec<T> {
        let entries = std::mem::take(&mut self.entries);
        let sections = entries.into_iter().filter_map(|(key, node)| {
            let path = self.key(&key.text);
            let place = self.source.place(key.position, path.clone());
            let name = Written::in_file(place, &key.text, key.text.clone());
            let value = node.value.or_empty();
            Section::read(self.source, path, key.position, value, |section| {
                read(name, section)
            })
        });
        sections.collect()
    }

    fn list(&mut self, key: &'static str) -> Option<(Position, Vec<Node>)> {
        let (found, node) = self.take(key)?;
        match node.value {
            Value::List(elements) => Some((found.position, elements)),
            Value::Nothing => None,
            other @ (Value::Text(_) | Value::Mapping(_)) => {
                self.source
                    .problem(found.position, self.key(key), expected("a list", &other));
                None
            }
        }
    }
}
