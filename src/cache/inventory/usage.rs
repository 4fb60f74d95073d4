//! How much room what takes.

use std::collections::BTreeMap;

use super::Inventory;
use crate::oci::{Namespace, RepositoryName};

/// How much room everything takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All that is stored, each blob once.
    pub total: Amounts,
    /// What no repository is known to have.
    pub unknown: Amounts,
    /// By registry, in the order of their names.
    pub namespaces: Vec<NamespaceUsage>,
}

/// How much room what came from one registry takes.
#[derive(Debug, PartialEq, Eq)]
pub struct NamespaceUsage {
    /// The registry.
    pub namespace: Namespace,
    /// What its repositories have, what they share once.
    pub all: Amounts,
    /// What no other registry has.
    pub alone: Amounts,
    /// By repository, in the order of their names.
    pub repositories: Vec<RepositoryUsage>,
}

/// How much room one repository takes.
#[derive(Debug, PartialEq, Eq)]
pub struct RepositoryUsage {
    /// The repository.
    pub repository: RepositoryName,
    /// What it has.
    pub all: Amounts,
    /// What no other repository has: how much room there would be without it.
    pub alone: Amounts,
}

/// Some blobs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Amounts {
    /// How many there are.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

impl Amounts {
    pub(super) fn add(&mut self, bytes: u64) {
        self.blobs += 1;
        self.bytes += bytes;
    }
}

/// What is counted of a registry or a repository.
#[derive(Default)]
struct Counted {
    all: Amounts,
    alone: Amounts,
}

impl Counted {
    fn add(&mut self, bytes: u64, is_alone: bool) {
        self.all.add(bytes);
        if is_alone {
            self.alone.add(bytes);
        }
    }
}

impl Inventory {
    /// How much room what takes.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        let mut repositories: BTreeMap<(String, String), (u32, Counted)> = BTreeMap::new();
        let mut namespaces: BTreeMap<String, Counted> = BTreeMap::new();
        for blob in self.blobs.values() {
            usage.total.add(blob.bytes);
            if blob.places.is_empty() {
                usage.unknown.add(blob.bytes);
            }
            let mut of = Vec::new();
            for &number in &blob.places {
                let Some(place) = self.place(number) else {
                    continue;
                };
                let namespace = place.namespace.to_string();
                let key = (namespace.clone(), place.repository.to_string());
                let (_, counted) = repositories
                    .entry(key)
                    .or_insert((number, Counted::default()));
                counted.add(blob.bytes, blob.places.len() == 1);
                if !of.contains(&namespace) {
                    of.push(namespace);
                }
            }
            let is_alone = of.len() == 1;
            for namespace in of {
                let counted = namespaces.entry(namespace).or_default();
                counted.add(blob.bytes, is_alone);
            }
        }
        for ((namespace, _), (number, Counted { all, alone })) in repositories {
            let Some(place) = self.place(number) else {
                continue;
            };
            let is_new = usage
                .namespaces
                .last()
                .is_none_or(|last| last.namespace != place.namespace);
            if is_new {
                let Counted { all, alone } = namespaces.remove(&namespace).unwrap_or_default();
                usage.namespaces.push(NamespaceUsage {
                    namespace: place.namespace.clone(),
                    all,
                    alone,
                    repositories: Vec::new(),
                });
            }
            if let Some(last) = usage.namespaces.last_mut() {
                last.repositories.push(RepositoryUsage {
                    repository: place.repository.clone(),
                    all,
                    alone,
                });
            }
        }
        usage
    }
}
