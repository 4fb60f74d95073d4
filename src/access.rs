//! Who may read what. Pure, and decided before the cache is asked, so that the answer never depends on what happens
//! to be cached.

use crate::oci::Namespace;
use crate::upstream::{Directory, UnknownNamespaces};

/// What a caller has to show before a namespace is served to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing: whoever reaches the port may read what the mirror may read.
    Open,
}

/// Why a namespace is not served at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Only configured registries are served, and this is none.
    #[error("{0} is not configured here")]
    NotServed(Namespace),
    /// The name can only mean something private, and private registries are served by configuration alone.
    #[error("{0} is no public registry")]
    Private(Namespace),
}

/// Decides about the namespace in its canonical form.
///
/// # Errors
/// [`Refusal`], where it is not served.
pub fn decide(directory: &Directory, namespace: &Namespace) -> Result<Requirement, Refusal> {
    if directory.serves(namespace) {
        return Ok(Requirement::Open);
    }
    match directory.unknown_namespaces() {
        UnknownNamespaces::Deny => Err(Refusal::NotServed(namespace.clone())),
        UnknownNamespaces::Public => Err(Refusal::Private(namespace.clone())),
    }
}
