//! What is wrong with a configuration, said so that it can be put right.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::Files;
use super::file::{Access, FileError};
use super::written::Written;

/// What a value must be, as the end of the sentence `"value" …`. Never repeats the value, which may be a secret.
pub(super) type Rule = Cow<'static, str>;

/// Where something was written. The order is that in which problems are listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A flag, such as `--port`.
    Flag(&'static str),
    /// A variable of the environment, such as `ENTREPOT_PORT`.
    Variable(String),
    /// A key of a file.
    File {
        /// The name of the file as the operator wrote it.
        file: Arc<str>,
        /// The line, from 1.
        line: u64,
        /// The column, from 1, in characters.
        column: u64,
        /// The key with those above it, such as `manifests.ttl`; empty where the file as a whole is meant.
        key: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => f.write_str(name),
            Self::Variable(name) => f.write_str(name),
            Self::File {
                file,
                line,
                column,
                key,
            } => {
                write!(f, "{file}:{line}:{column}")?;
                if key.is_empty() {
                    return Ok(());
                }
                // Part of a key may be anything the file holds, control characters included.
                write!(f, ": {}", key.escape_debug())
            }
        }
    }
}

/// One thing to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    place: Place,
    /// The value, safe to show, where the rule is about a value.
    value: Option<String>,
    rule: Rule,
}

impl Problem {
    /// A problem of the place itself: a missing, unknown or repeated key.
    pub(super) fn of_place(place: Place, rule: impl Into<Rule>) -> Self {
        Self {
            place,
            value: None,
            rule: rule.into(),
        }
    }

    /// A problem of a value; `value` is printed as it is given here.
    pub(super) fn of_value(place: Place, value: String, rule: impl Into<Rule>) -> Self {
        Self {
            place,
            value: Some(value),
            rule: rule.into(),
        }
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some(value) = &self.value {
            write!(f, "{value:?} ")?;
        }
        f.write_str(&self.rule)
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems, those of the command line first, then those of the environment, then file by file from the top.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has a problem:")?,
            n_problems => write!(f, "the configuration has {n_problems} problems:")?,
        }
        self.iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// What was found while a configuration was read. Shared by everybody who reads a part of it.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<String>>,
    files: RefCell<Files>,
}

impl Findings {
    /// Takes down a problem.
    pub(super) fn problem(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Takes down something the mirror can live with but the operator should know.
    pub(super) fn warning(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    /// Reads a file, and takes down that what is configured depends on it.
    pub(super) fn read_bytes(&self, path: &Path) -> Result<(Vec<u8>, Access), FileError> {
        self.files.borrow_mut().read_bytes(path)
    }

    /// The same for a file of text.
    pub(super) fn read_text(&self, path: &Path) -> Result<(String, Access), FileError> {
        self.files.borrow_mut().read_text(path)
    }

    /// Holds what is written against its rule; `None` after a problem was taken down.
    pub(super) fn parse<T>(
        &self,
        written: &Written,
        parse: impl FnOnce(&str) -> Result<T, Rule>,
    ) -> Option<T> {
        self.keep(parse(written.text()).map_err(|rule| written.problem(rule)))
    }

    /// What was found; `None` after the problem was taken down.
    pub(super) fn keep<T>(&self, found: Result<T, Problem>) -> Option<T> {
        found.map_err(|problem| self.problem(problem)).ok()
    }

    /// Holds everything that is written for one setting against its rule, and gives what counts: the first.
    ///
    /// What is overridden is checked too: a mistake should not lie in wait for the day its flag is dropped.
    pub(super) fn first<T>(
        &self,
        layers: [Option<Written>; 3],
        parse: impl Fn(&str) -> Result<T, Rule>,
    ) -> Option<T> {
        let parsed: Vec<_> = layers
            .into_iter()
            .flatten()
            .map(|written| self.parse(&written, &parse))
            .collect();
        parsed.into_iter().next().flatten()
    }

    /// The same for a setting that has a default, which is a text like any other; `None` after a problem.
    pub(super) fn setting<T>(
        &self,
        layers: [Option<Written>; 3],
        default: &str,
        parse: impl Fn(&str) -> Result<T, Rule>,
    ) -> Option<T> {
        let is_written = layers.iter().any(Option::is_some);
        let first = self.first(layers, &parse);
        if is_written {
            first
        } else {
            parse(default).ok()
        }
    }

    /// The value, where there were no problems, and the warnings; and the files that were read in any case. A value may be
    /// missing only after a problem.
    pub(super) fn conclude<T>(
        self,
        value: Option<T>,
    ) -> (Result<(T, Vec<String>), Problems>, Files) {
        let mut problems = self.problems.into_inner();
        let concluded = match value {
            Some(value) if problems.is_empty() => Ok((value, self.warnings.into_inner())),
            _ => {
                problems.sort_by(|a, b| a.place.cmp(&b.place));
                Err(Problems(problems))
            }
        };
        (concluded, self.files.into_inner())
    }
}
