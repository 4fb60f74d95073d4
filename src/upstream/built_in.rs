//! What is known of a registry by its name alone, for whoever checks a configuration.

use reqwest::Url;

use super::table::Row;
use crate::oci::Namespace;

/// The one name of the registry that `namespace` is a name of, as far as the built-in table knows.
pub fn canonical(namespace: &Namespace) -> Namespace {
    Row::canonical_of(namespace.as_str())
        .and_then(|canonical| canonical.parse().ok())
        .unwrap_or_else(|| namespace.clone())
}

/// Where the registry with the canonical name `namespace` is: where the table says, else at its own name, over https.
/// `None` where the name cannot stand in a URL: a label that starts with `xn--` may be none that a URL takes.
pub fn endpoint(namespace: &Namespace) -> Option<Url> {
    let host = Row::find(namespace.as_str())
        .and_then(|row| row.endpoint)
        .unwrap_or(namespace.as_str());
    Url::parse(&format!("https://{host}/")).ok()
}

/// The registries that are known by a name of their own, the most used first.
pub fn known_registries() -> Vec<Namespace> {
    Row::written_out()
        .filter_map(|name| name.parse().ok())
        .collect()
}
