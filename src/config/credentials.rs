//! The credentials file: what to log in with, by registry.

use std::path::Path;

use super::Environment;
use super::file::Access;
use super::login::RawCredential;
use super::problem::{Findings, Place, Problem, Rule};
use super::reader::Source;
use super::value;
use super::written::Written;
use crate::oci::{Namespace, RepositoryName};
use crate::upstream::CredentialEntry;

/// A credential that passed, and where it was written.
pub(super) struct PlacedEntry {
    pub(super) place: Place,
    pub(super) entry: CredentialEntry,
}

/// Reads the credentials file that `file` names.
pub(super) fn read_file(
    file: &Written,
    environment: &Environment,
    canonical: &dyn Fn(&Namespace) -> Namespace,
    findings: &Findings,
) -> Vec<PlacedEntry> {
    let path = Path::new(file.text());
    let Some((text, access)) = findings.parse(file, |_| {
        Ok(findings.read_text(path).map_err(|e| e.to_string())?)
    }) else {
        return Vec::new();
    };
    match access {
        Access::Restricted => {}
        Access::World => findings.warning(format!(
            "everybody on this machine may read the credentials file {}; `chmod o-r` it",
            path.display()
        )),
    }
    let source = Source {
        name: file.text().into(),
        base: path.parent().unwrap_or(path).into(),
        environment,
        findings,
        // It was warned about as a whole.
        access: Access::Restricted,
    };
    let entries = source.read(&text, |root| {
        root.named(|key, section| (key, RawCredential::read(section)))
    });
    let entries = entries.unwrap_or_default();
    let entries = entries.into_iter().filter_map(|(key, raw)| {
        let credential = raw.check(findings);
        let (namespace, prefix) = findings.parse(&key, registry_and_prefix)?;
        let entry = CredentialEntry {
            namespace: canonical(&namespace),
            prefix,
            credential: credential?,
        };
        Some(PlacedEntry {
            place: key.place().clone(),
            entry,
        })
    });
    entries.collect()
}

/// The registry and the repositories that a key of the credentials file is about: `ghcr.io`, `ghcr.io/team`,
/// `https://ghcr.io`, and Docker's `https://index.docker.io/v1/`.
fn registry_and_prefix(key: &str) -> Result<(Namespace, String), Rule> {
    let (is_url, bare) = match key.strip_prefix("https://") {
        Some(bare) => (true, bare),
        None => (false, key),
    };
    if bare == "auths" {
        return Err(
            "is a key of Docker's config.json, which is no credentials file; name that file under docker_config".into(),
        );
    }
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let namespace = value::namespace(host).map_err(|_| {
        "must be a registry with an optional part of a path, such as ghcr.io or registry.example.com:5000/team"
    })?;
    let path = path.strip_suffix('/').unwrap_or(path);
    // Docker writes the version of the interface behind the host; no repository is meant.
    let is_interface = is_url && matches!(path, "v1" | "v2");
    if path.is_empty() || is_interface {
        return Ok((namespace, String::new()));
    }
    let prefix: RepositoryName = path
        .parse()
        .map_err(|error| format!("must name repositories behind the registry: {error}"))?;
    Ok((namespace, prefix.to_string()))
}

/// Gives what is written once, and reports what is written twice.
pub(super) fn unique(entries: Vec<PlacedEntry>, findings: &Findings) -> Vec<CredentialEntry> {
    let mut kept: Vec<PlacedEntry> = Vec::with_capacity(entries.len());
    for PlacedEntry { place, entry } in entries {
        let other = kept.iter().find(|kept| {
            kept.entry.namespace == entry.namespace && kept.entry.prefix == entry.prefix
        });
        if let Some(other) = other {
            let rule = format!(
                "is configured twice; the other credential is at {}",
                other.place
            );
            findings.problem(Problem::of_place(place, rule));
        } else {
            kept.push(PlacedEntry { place, entry });
        }
    }
    kept.into_iter().map(|kept| kept.entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_a_registry_and_a_part_of_it() {
        let check = |key: &str, registry: &str, prefix: &str| {
            let (namespace, found) = registry_and_prefix(key).expect(key);
            assert_eq!((namespace.as_str(), &*found), (registry, prefix), "{key:?}");
        };
        check("ghcr.io", "ghcr.io", "");
        check("GHCR.io:443", "ghcr.io", "");
        check("https://ghcr.io", "ghcr.io", "");
        check("https://ghcr.io/", "ghcr.io", "");
        check("https://index.docker.io/v1/", "index.docker.io", "");
        check("https://ghcr.io/v2/", "ghcr.io", "");
        check(
            "registry.example.com:5000/team",
            "registry.example.com:5000",
            "team",
        );
        check("ghcr.io/team/open/", "ghcr.io", "team/open");
        check("https://ghcr.io/team", "ghcr.io", "team");
        check("ghcr.io/v1", "ghcr.io", "v1");
    }

    #[test]
    fn other_keys_are_refused() {
        for key in [
            "",
            "/",
            "https://",
            "http://ghcr.io",
            "user@ghcr.io",
            "ghcr.io//team",
            "ghcr.io/Team",
            "ghcr.io/team//",
            "ghcr.io/../x",
            "ghcr.io/team?x",
            "*.ghcr.io",
            "auths",
        ] {
            assert!(registry_and_prefix(key).is_err(), "{key:?}");
        }
    }
}
