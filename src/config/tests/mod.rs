//! The configuration as a whole: what is read, what counts, and what is said about mistakes.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::*;
use crate::cache::TagTerms;

mod credentials;
mod documentation;
mod layers;
mod listeners;
mod problems;
mod routing;
mod tags;
mod upstreams;

/// The flags in `arguments`, parted by spaces; `''` is an empty one.
fn arguments(arguments: &str) -> Arguments {
    let arguments = arguments
        .split_whitespace()
        .map(|text| text.replace("''", ""));
    let arguments = std::iter::once("entrepot".to_owned()).chain(arguments);
    Arguments::try_parse_from(arguments).expect("well-formed flags")
}

/// Loads flags and variables.
fn load(flags: &str, variables: &[(&str, &str)]) -> Result<Config, Problems> {
    let environment = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Config::load(&arguments(flags), &environment)
}

/// Loads a file given by a variable, beside flags and other variables.
fn load_yaml(yaml: &str, flags: &str, variables: &[(&str, &str)]) -> Result<Config, Problems> {
    let mut variables = variables.to_vec();
    variables.push(("ENTREPOT_CONFIG_YAML", yaml));
    load(flags, &variables)
}

/// The problems of a configuration, one text each.
fn problems(loaded: Result<Config, Problems>) -> Vec<String> {
    let problems = loaded.expect_err("there are problems");
    problems.iter().map(Problem::to_string).collect()
}

/// A directory with files in it.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).expect("written");
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn directory(&self) -> &Path {
        self.0.path()
    }
}

fn namespace(text: &str) -> Namespace {
    text.parse().expect("a namespace")
}

/// What holds for a tag, as in `ghcr.io/org/app:v1`.
fn terms(config: &Config, image: &str) -> TagTerms {
    let (name, tag) = image.rsplit_once(':').expect("a tag");
    let (registry, repository) = name.split_once('/').expect("a registry");
    config.tags.terms(
        &namespace(registry),
        &repository.parse().expect("a name"),
        &tag.parse().expect("a tag"),
    )
}
