//! What the operator says, from the command line, the environment and a file, as one checked [`Config`].
//!
//! Three steps: the [file](raw) becomes texts that know their line; flag, variable and file are [laid over each
//! other](check); each text is held against its [rule](value). Nothing stops at the first mistake: all [`Problems`] are
//! told at once. This is the only module that reads the environment, and no port is opened here.

use std::net::SocketAddr;
use std::path::PathBuf;

use tracing_subscriber::filter::Targets;

use crate::cache::TagPolicy;
use crate::registry::Authentication;
use crate::upstream;

mod arguments;
pub use arguments::Arguments;

mod problem;
pub use problem::{Place, Problem, Problems};

mod access;
mod authentication;
mod check;
mod outside;

mod document;
mod file;
mod fill;
mod raw;
mod reader;

mod credentials;
mod tags;
mod upstreams;
mod value;
mod written;

use check::Check;
use outside::Outside;
use problem::Findings;

/// Looks up a variable; `None` where it is not set.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Everything that can be configured, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; never empty.
    pub listen: Vec<Listen>,
    /// Upstreams, their credentials, and the way to them.
    pub upstream: upstream::Config,
    /// Where the cache is. It need not exist.
    pub cache_directory: PathBuf,
    /// How long tags hold.
    pub tags: TagPolicy,
    /// The clients that the mirror knows, and what they may read.
    pub authentication: Authentication,
    /// How and what to log.
    pub log: Log,
    /// What the operator should know, though the mirror can live with it.
    pub warnings: Vec<String>,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The address to bind; port 0 takes any that is free.
    pub address: SocketAddr,
}

/// How and what to log.
#[derive(Debug, Clone)]
pub struct Log {
    /// Which events, by level and part of the program.
    pub filter: Targets,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// The environment of this process. A value that is not UTF-8 has its other bytes replaced, and so breaks the rule of
/// whatever it was meant for.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]
pub fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

impl Config {
    /// Reads and checks everything that is configured: flags count before variables, variables before the file.
    ///
    /// # Errors
    /// All problems there are.
    pub fn load(arguments: &Arguments, environment: &Environment) -> Result<Self, Problems> {
        let findings = Findings::default();
        let check = Check {
            outside: Outside::new(arguments, environment),
            findings: &findings,
        };
        let config = check.config();
        let (config, warnings) = findings.conclude(config)?;
        Ok(Self { warnings, ..config })
    }

    /// The configuration that the text of a file alone stands for; every registry is taken for what it is called.
    ///
    /// # Errors
    /// All problems there are.
    pub fn from_yaml(text: &str) -> Result<Self, Problems> {
        let environment = |name: &str| (name == outside::CONFIG_YAML).then(|| text.to_owned());
        Self::load(&Arguments::default(), &environment)
    }
}

#[cfg(test)]
mod tests;
