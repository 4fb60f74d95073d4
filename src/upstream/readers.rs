//! Who may read what, in words: for the log at start.

use std::collections::BTreeSet;
use std::fmt;

use super::{AccessMode, Credentials, Upstreams};
use crate::oci::Namespace;

/// What the repositories of one registry need of those who want to read them.
#[derive(Debug)]
struct Readers<'a> {
    mode: AccessMode,
    reach: Reach<'a>,
}

/// Where the mirror has a credential of its own.
#[derive(Debug, PartialEq, Eq)]
enum Reach<'a> {
    Nowhere,
    Everywhere,
    /// Below these prefixes.
    Below(Vec<&'a str>),
}

impl Upstreams {
    /// Says who may read what comes from each registry that anything is configured for, in a line each, and from all the
    /// others. Names, and where credentials count, but nothing of them.
    pub fn tell_readers(&self) {
        let configured = self.0.configured.keys();
        let with_credentials = self.0.credentials.namespaces();
        let namespaces: BTreeSet<&Namespace> = configured.chain(with_credentials).collect();
        for namespace in namespaces {
            let readers = Readers {
                mode: self.access(namespace).mode,
                reach: self.0.credentials.reach(namespace),
            };
            let access = readers.mode.as_str();
            tracing::info!(upstream = %namespace, access, %readers, "who may read");
        }
        let readers = Readers {
            mode: AccessMode::default(),
            reach: self.0.credentials.reach_elsewhere(),
        };
        let access = readers.mode.as_str();
        tracing::info!(upstream = "any other", access, %readers, "who may read");
    }
}

impl Credentials {
    fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.entries.iter().map(|entry| &entry.namespace)
    }

    fn reach(&self, namespace: &Namespace) -> Reach<'_> {
        let own = self.entries.iter().filter(|it| it.namespace == *namespace);
        let (with, without): (Vec<_>, Vec<_>) = own.partition(|entry| entry.credential.is_some());
        let has_gaps = !without.is_empty();
        let mut prefixes: Vec<_> = with.iter().map(|entry| &*entry.prefix).collect();
        prefixes.sort_unstable();
        match prefixes.first() {
            Some(&"") if !has_gaps => Reach::Everywhere,
            Some(_) => Reach::Below(prefixes),
            None if has_gaps => Reach::Nowhere,
            None => self.reach_elsewhere(),
        }
    }

    /// Where no entry says anything, Docker's file counts, and may have something for every repository.
    fn reach_elsewhere(&self) -> Reach<'_> {
        if self.docker_config.is_some() {
            Reach::Everywhere
        } else {
            Reach::Nowhere
        }
    }
}

impl AccessMode {
    /// The word of the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Shared => "shared",
            Self::Verify => "verify",
            Self::Authenticated => "authenticated",
        }
    }
}

impl fmt::Display for Readers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWS: &str =
            "what is public: anybody; what is not: callers whose own token the registry takes";
        let reads = "whoever reaches the mirror reads all that its credential may read";
        match (self.mode, &self.reach) {
            (AccessMode::Verify, _) => f.write_str("callers whose own token the registry takes"),
            (AccessMode::Authenticated, _) => {
                f.write_str("clients that log in to the mirror, as its rules allow")
            }
            (AccessMode::Auto, Reach::Nowhere) => f.write_str(SHOWS),
            (AccessMode::Shared, Reach::Nowhere) => f.write_str("what is public: anybody"),
            (AccessMode::Auto | AccessMode::Shared, Reach::Everywhere) => f.write_str(reads),
            (AccessMode::Auto | AccessMode::Shared, Reach::Below(prefixes)) => {
                write!(f, "{reads}, below")?;
                for prefix in prefixes {
                    let all = if prefix.is_empty() { "**" } else { "/**" };
                    write!(f, " {prefix}{all}")?;
                }
                f.write_str("; elsewhere, ")?;
                f.write_str(if self.mode == AccessMode::Auto {
                    SHOWS
                } else {
                    "what is public: anybody"
                })
            }
        }
    }
}
