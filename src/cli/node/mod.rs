//! `entrepot node`: tells the containerd of a machine to pull through the mirror, and to stop doing so.
//!
//! All is read and thought through before anything is written. So what cannot be understood leaves every file as it was.

mod change;
mod folder;
mod hosts;
mod runtime;
mod watch;

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use hyper::Uri;

use change::Change;
pub use hosts::HostsError;
pub(super) use hosts::{hosts_toml, server};
pub use watch::watch;

/// Where containerd's packages and distributions keep its configuration.
const CONFIG_DIRECTORY: &str = "/etc/containerd";

/// Where they look for registries, once told to.
const CERTS_DIRECTORY: &str = "/etc/containerd/certs.d";

/// Why nothing was changed, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The mirror's address cannot be one.
    #[error("--mirror `{0}`: give http:// or https://, a host and, if need be, a port")]
    Mirror(String),
    /// A registry's name cannot be one.
    #[error("--registry `{0}`: give a host and, if need be, a port")]
    Registry(String),
    /// The root is not there.
    #[error("--root {0}: there is no such directory")]
    Root(PathBuf),
    /// A directory is not below the root.
    #[error("`{0}`: give an absolute path of the node, without `..`")]
    Directory(PathBuf),
    /// A `hosts.toml` cannot be added to.
    #[error("{file}: {source}; no file was changed", file = file.display())]
    Hosts {
        /// The file.
        file: PathBuf,
        /// Why.
        source: HostsError,
    },
    /// Something cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A change failed. Those before it stay; doing it all again goes on from there.
    #[error("cannot {change}: {source}; run this again once that is solved")]
    Change {
        /// What was to be done.
        change: String,
        /// Why it was not.
        source: io::Error,
    },
}

/// What was found on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Fine(String),
    /// Nothing can be said.
    Warning(String),
    /// The mirror is not used, and what to do about it.
    Problem(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine(text) => out.write_str(text),
            Self::Warning(text) => write!(out, "warning: {text}"),
            Self::Problem(text) => write!(out, "problem: {text}"),
        }
    }
}

/// A machine's files.
#[derive(Debug, Clone)]
pub struct Node {
    root: PathBuf,
    /// As the node knows it.
    certs: PathBuf,
    /// As the node knows it.
    config: PathBuf,
}

/// The address of a mirror, as a node reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Without a slash at its end.
    url: String,
}

// === impl Mirror ===

impl Mirror {
    /// The mirror at `url`.
    ///
    /// # Errors
    ///
    /// It is not `http://` or `https://`, a host and perhaps a port.
    pub fn at(url: &str) -> Result<Self, NodeError> {
        let refused = || NodeError::Mirror(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| refused())?;
        let scheme = uri
            .scheme_str()
            .filter(|scheme| ["http", "https"].contains(scheme));
        let authority = uri
            .authority()
            .filter(|authority| is_host(authority.as_str()));
        match (
            scheme,
            authority,
            uri.path_and_query().map_or("/", |path| path.as_str()),
        ) {
            (Some(scheme), Some(authority), "/") => Ok(Self {
                url: format!("{scheme}://{authority}"),
            }),
            (Some(_) | None, Some(_) | None, _) => Err(refused()),
        }
    }

    /// Without a slash at its end.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// `host:port`, which is what a folder for its own certificate is called.
    pub(super) fn authority(&self) -> &str {
        self.url
            .split_once("://")
            .map_or("", |(_, authority)| authority)
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> &str {
        self.url.split_once("://").map_or("", |(scheme, _)| scheme)
    }

    /// Whether it is reached by TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.scheme() == "https"
    }

    /// The host, and the port that is written or that the scheme stands for.
    pub(super) fn host_and_port(&self) -> (&str, u16) {
        let authority = self.authority();
        let written = authority
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)));
        written.unwrap_or((authority, if self.is_encrypted() { 443 } else { 80 }))
    }
}

// === impl Node ===

impl Node {
    /// The node whose root is seen at `root`. `certs` is the directory of the registries' folders, `config` that of
    /// containerd's configuration, both as the node itself calls them, and where packages put them unless given.
    ///
    /// # Errors
    ///
    /// The root is not there, or a directory does not lie below it.
    pub fn at(
        root: PathBuf,
        certs: Option<PathBuf>,
        config: Option<PathBuf>,
    ) -> Result<Self, NodeError> {
        if !root.is_dir() {
            return Err(NodeError::Root(root));
        }
        let certs = certs.unwrap_or_else(|| CERTS_DIRECTORY.into());
        let config = config.unwrap_or_else(|| CONFIG_DIRECTORY.into());
        for directory in [&certs, &config] {
            let is_plain = directory
                .components()
                .skip(1)
                .all(|part| matches!(part, Component::Normal(_)));
            if !directory.is_absolute() || !is_plain {
                return Err(NodeError::Directory(directory.clone()));
            }
        }
        Ok(Self {
            root,
            certs,
            config,
        })
    }

    /// Puts the mirror before every registry: in `_default`, in every folder that hides that, and in those of
    /// `registries`. Tells what was changed; with `dry`, what would be. Nothing is where it was done before.
    ///
    /// # Errors
    ///
    /// Something cannot be understood, and nothing was changed; or a change failed.
    pub fn install(
        &self,
        mirror: &Mirror,
        registries: &[String],
        dry: bool,
    ) -> Result<Vec<String>, NodeError> {
        let mut wanted = vec![hosts::DEFAULT.to_owned()];
        for registry in registries {
            if !is_host(registry) {
                return Err(NodeError::Registry(registry.clone()));
            }
            wanted.push(registry.clone());
        }
        let mut changes = Vec::new();
        for folder in folder::all(&self.directory(), &wanted)? {
            if folder.name != mirror.authority() {
                changes.extend(folder.install(&mirror.url)?);
            }
        }
        apply(&changes, dry)
    }

    /// Puts back what was there before the first [`Node::install`], byte for byte. Tells what was changed; with `dry`,
    /// what would be.
    ///
    /// # Errors
    ///
    /// Something cannot be read, and nothing was changed; or a change failed.
    pub fn remove(&self, dry: bool) -> Result<Vec<String>, NodeError> {
        let folders = folder::all(&self.directory(), &[])?;
        // In the order opposite to that of install, which made the directory for the first of them.
        let changes: Vec<_> = folders
            .iter()
            .rev()
            .flat_map(folder::Folder::remove)
            .collect();
        apply(&changes, dry)
    }

    /// Whether containerd asks the mirror, for every registry.
    ///
    /// # Errors
    ///
    /// Something cannot be read.
    pub fn verify(&self, mirror: &Mirror) -> Result<Vec<Finding>, NodeError> {
        let folders = folder::all(&self.directory(), &[hosts::DEFAULT.to_owned()])?;
        let others = folders
            .iter()
            .filter(|folder| folder.name != mirror.authority());
        let mut findings: Vec<_> = others
            .filter_map(|folder| folder.problem(&mirror.url))
            .map(Finding::Problem)
            .collect();
        if findings.is_empty() {
            let text = format!(
                "{} names {} for every registry",
                self.certs.display(),
                mirror.url
            );
            findings.push(Finding::Fine(text));
        }
        findings.push(self.runtime(mirror));
        Ok(findings)
    }

    /// The URL that containerd asks first for what is on `registry`, as its folders say; `None` is the registry itself.
    ///
    /// # Errors
    ///
    /// Something cannot be read, or understood.
    pub fn asks_first(&self, registry: &str) -> Result<Option<String>, NodeError> {
        folder::of_registry(&self.directory(), registry)?
            .map_or(Ok(None), |folder| folder.asks_first())
    }

    /// Whether containerd looks at the folders at all.
    pub fn runtime(&self, mirror: &Mirror) -> Finding {
        runtime::check(&self.root, &self.config, &self.certs, &mirror.url)
            .unwrap_or_else(|error| Finding::Problem(error.to_string()))
    }

    /// Where the folders are, as seen from here.
    fn directory(&self) -> PathBuf {
        below(&self.root, &self.certs)
    }
}

/// Where `path` of the node is, as seen from here.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// A host and perhaps a port: also what makes a harmless name of a folder.
fn is_host(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
        && text.bytes().all(is_plain)
}

/// Takes every step, unless `dry`, and tells which.
fn apply(changes: &[Change], dry: bool) -> Result<Vec<String>, NodeError> {
    for change in changes.iter().filter(|_| !dry) {
        change.apply().map_err(|source| NodeError::Change {
            change: change.to_string(),
            source,
        })?;
    }
    Ok(changes.iter().map(Change::to_string).collect())
}
