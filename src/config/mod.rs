//! What the operator says, from the command line, the environment and a file, as one checked [`Config`].
//!
//! Three steps: the [file](raw) becomes texts that know their line; flag, variable and file are [laid over each
//! other](check); each text is held against its [rule](value). Nothing stops at the first mistake: all [`Problems`] are
//! told at once. This is the only module that reads the environment, and no port is opened here.

use std::net::SocketAddr;
use std::path::PathBuf;

use tracing_subscriber::filter::Targets;

use crate::cache::{Budget, ScrubPlan, TagPolicy};
use crate::oci::Namespace;
use crate::registry::{ClientPolicy, Ways};
use crate::server::TlsFiles;
use crate::storage::Access;
use crate::upstream;

mod arguments;
pub use arguments::{Arguments, CachePlace, Command, HostsClient, NodeAction, NodePlace};

mod problem;
pub use problem::{Place, Problem, Problems};

mod access;
mod authentication;
mod check;
mod clients;
mod outside;

mod document;
mod file;
mod files;
pub use files::Files;
mod watch;
pub use watch::Watch;
mod fill;
mod raw;
mod reader;

mod credentials;
mod login;
mod routing;
mod shared;
mod tags;
mod tls;
mod upstreams;
mod value;
mod way;
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
    /// What listeners and host names stand for.
    pub ways: Ways,
    /// Upstreams, their credentials, and the way to them.
    pub upstream: upstream::Config,
    /// Where the cache is. It need not exist.
    pub cache_directory: PathBuf,
    /// Who may delete files in it.
    pub cache_access: Access,
    /// How much it may hold.
    pub budget: Budget,
    /// When what it holds is read once more.
    pub scrub: ScrubPlan,
    /// The object store behind it; `None` where there is none.
    pub shared: Option<crate::storage::shared::Config>,
    /// How long tags hold.
    pub tags: TagPolicy,
    /// What holds for clients.
    pub clients: ClientPolicy,
    /// Most connections of one client; `None` for what the server does by itself.
    pub connections_per_client: Option<usize>,
    /// How and what to log.
    pub log: Log,
    /// What the operator should know, though the mirror can live with it.
    pub warnings: Vec<String>,
}

/// What came of reading everything that is configured.
#[derive(Debug)]
pub struct Reading {
    /// The configuration, or all problems there are.
    pub config: Result<Config, Problems>,
    /// The files that were read for it, or should have been.
    pub files: Files,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The address to bind; port 0 takes any that is free.
    pub address: SocketAddr,
    /// The registry that is meant there where a request names none; canonical.
    pub upstream: Option<Namespace>,
    /// What connections there are encrypted with; `None` takes them as they are.
    pub tls: Option<TlsFiles>,
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
        Self::read(arguments, environment).config
    }

    /// The same, with the files that were read.
    pub fn read(arguments: &Arguments, environment: &Environment) -> Reading {
        let findings = Findings::default();
        let check = Check {
            outside: Outside::new(arguments, environment),
            findings: &findings,
        };
        let config = check.config();
        let (config, files) = findings.conclude(config);
        Reading {
            config: config.map(|(config, warnings)| Self { warnings, ..config }),
            files,
        }
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
