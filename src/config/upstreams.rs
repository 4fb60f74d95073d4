//! The upstreams of the file and of `--upstream`, checked against each other.

use hashbrown::HashMap;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::access;
use super::credentials::PlacedEntry;
use super::problem::{Findings, Place, Rule};
use super::raw::{RawLimits, RawUpstream};
use super::written::Written;
use super::{tags, value};
use crate::cache::TagRule;
use crate::oci::{Namespace, RepositoryPatterns};
use crate::upstream::{self, CredentialEntry, Limits, UpstreamConfig, Way};

/// The upstreams that are configured by name.
pub(super) struct Upstreams {
    configured: Vec<UpstreamConfig>,
    /// Every name and alias: where it was written, and the upstream it stands for.
    names: HashMap<Namespace, (Place, Namespace)>,
    /// The credentials that stand beside them.
    credentials: Vec<PlacedEntry>,
    /// Their rules for tags.
    tags: HashMap<Namespace, Vec<TagRule>>,
}

/// What is said of upstreams, by whom it is for.
pub(super) struct Parts {
    pub(super) configured: Vec<UpstreamConfig>,
    /// The credentials that were written beside them.
    pub(super) credentials: Vec<PlacedEntry>,
    /// Their rules for tags.
    pub(super) tags: HashMap<Namespace, Vec<TagRule>>,
}

impl Upstreams {
    /// Checks the upstreams of the file, and then the texts and the CA file of the command line.
    pub(super) fn check(
        in_file: Vec<RawUpstream>,
        outside: &[Written],
        outside_ca: Option<&Written>,
        has_clients: bool,
        findings: &Findings,
    ) -> Self {
        let mut checked = Self {
            configured: Vec::new(),
            names: HashMap::new(),
            credentials: Vec::new(),
            tags: HashMap::new(),
        };
        let mut aliases = Vec::new();
        for raw in in_file {
            aliases.extend(checked.add_from_file(raw, has_clients, findings));
        }
        checked.add_from_outside(outside, outside_ca, findings);
        // Aliases come last: a name is a name whatever the order in the file.
        for (namespace, alias) in aliases {
            checked.add_alias(&namespace, &alias, findings);
        }
        checked
    }

    /// The one name of the registry that `namespace` is a name of.
    pub(super) fn canonical(&self, namespace: &Namespace) -> Namespace {
        match self.names.get(namespace) {
            Some((_, canonical)) => canonical.clone(),
            None => upstream::canonical(namespace),
        }
    }

    /// What there is, without the names.
    pub(super) fn into_parts(self) -> Parts {
        Parts {
            configured: self.configured,
            credentials: self.credentials,
            tags: self.tags,
        }
    }

    /// Adds an upstream of the file, and gives its aliases.
    fn add_from_file(
        &mut self,
        raw: RawUpstream,
        has_clients: bool,
        findings: &Findings,
    ) -> Vec<(Namespace, Written)> {
        let all = |texts: &[Written]| {
            texts
                .iter()
                .filter_map(|text| findings.parse(text, value::namespace))
                .collect()
        };
        let endpoints: Vec<_> = raw
            .endpoints
            .iter()
            .filter_map(|text| findings.parse(text, value::endpoint))
            .collect();
        let realms = all(&raw.realms);
        let limits = limits(&raw.limits, findings);
        let access = access::policy(&raw.access, has_clients, findings);
        let repositories = raw
            .repositories
            .iter()
            .filter_map(|text| findings.parse(text, value::repository_pattern));
        let repositories = RepositoryPatterns::new(repositories.collect());
        let way = raw.way.check(&raw.name, findings);
        let ca = raw
            .ca
            .as_ref()
            .and_then(|ca| findings.parse(ca, |path| certificates(path, findings)));
        let credential = raw
            .credentials
            .as_ref()
            .map(|raw| (raw.place(), raw.check(findings)));
        let tags = tags::rules(&raw.tags, findings);
        let Some(namespace) = findings.parse(&raw.name, value::namespace) else {
            return Vec::new();
        };
        let namespace = upstream::canonical(&namespace);
        if !self.add_name(&namespace, &raw.name, findings) {
            return Vec::new();
        }
        let endpoints = if raw.endpoints.is_empty() {
            upstream::endpoint_of(&namespace).into_iter().collect()
        } else {
            endpoints
        };
        if endpoints.is_empty() && raw.endpoints.is_empty() {
            // A label that starts with `xn--` may be none that a URL takes.
            let rule = "cannot stand in a URL; write where it is under `endpoints`";
            findings.problem(raw.name.problem(rule));
        }
        if let Some((place, Some(credential))) = credential {
            self.credentials.push(PlacedEntry {
                place: place.clone(),
                entry: CredentialEntry {
                    namespace: namespace.clone(),
                    prefix: String::new(),
                    credential,
                },
            });
        }
        self.tags.insert(namespace.clone(), tags);
        self.configured.push(UpstreamConfig {
            endpoints,
            namespace: namespace.clone(),
            aliases: Vec::new(),
            ca,
            realms,
            limits,
            access,
            repositories,
            way,
        });
        raw.aliases
            .into_iter()
            .map(|alias| (namespace.clone(), alias))
            .collect()
    }

    /// Adds what `--upstream` or its variable says: `NAME=URL`, the URLs of one name in their order.
    fn add_from_outside(&mut self, outside: &[Written], ca: Option<&Written>, findings: &Findings) {
        let n_in_file = self.configured.len();
        let ca_file = ca.and_then(|ca| findings.parse(ca, |path| certificates(path, findings)));
        if let (Some(ca), []) = (ca, outside) {
            findings.problem(ca.problem("is for what --upstream names, and nothing is named"));
        }
        for written in outside {
            let Some((namespace, url)) = findings.parse(written, name_and_endpoint) else {
                continue;
            };
            let namespace = upstream::canonical(&namespace);
            let known = self.configured[n_in_file..]
                .iter_mut()
                .find(|upstream| upstream.namespace == namespace);
            if let Some(known) = known {
                known.endpoints.push(url);
            } else if self.add_name(&namespace, written, findings) {
                self.configured.push(UpstreamConfig {
                    namespace,
                    endpoints: vec![url],
                    aliases: Vec::new(),
                    ca: ca_file.clone(),
                    realms: Vec::new(),
                    repositories: RepositoryPatterns::default(),
                    limits: Limits::default(),
                    access: upstream::AccessPolicy::default(),
                    way: Way::default(),
                });
            }
        }
    }

    /// Adds a canonical name; `false` after the problem that it is there already was taken down.
    fn add_name(&mut self, namespace: &Namespace, written: &Written, findings: &Findings) -> bool {
        if let Some((place, _)) = self.names.get(namespace) {
            let rule = format!("is {namespace}, which is configured twice; it is also at {place}");
            findings.problem(written.problem(rule));
            return false;
        }
        let entry = (written.place().clone(), namespace.clone());
        self.names.insert(namespace.clone(), entry);
        true
    }

    fn add_alias(&mut self, namespace: &Namespace, written: &Written, findings: &Findings) {
        let Some(alias) = findings.parse(written, value::namespace) else {
            return;
        };
        if let Some((place, canonical)) = self.names.get(&alias) {
            let rule = if *canonical == *namespace {
                format!("is a name of {namespace} already, at {place}")
            } else {
                format!(
                    "is a name of {canonical} already, at {place}; a name stands for one upstream"
                )
            };
            findings.problem(written.problem(rule));
            return;
        }
        let entry = (written.place().clone(), namespace.clone());
        self.names.insert(alias.clone(), entry);
        let upstream = self
            .configured
            .iter_mut()
            .find(|upstream| upstream.namespace == *namespace);
        if let Some(upstream) = upstream {
            upstream.aliases.push(alias);
        }
    }
}

fn limits(raw: &RawLimits, findings: &Findings) -> Limits {
    let usual = Limits::default();
    let given = |written: &Option<Written>, check: fn(&str) -> Result<usize, Rule>| {
        written
            .as_ref()
            .and_then(|text| findings.parse(text, check))
    };
    let connections = given(&raw.connections, value::connections);
    let per_blob = given(&raw.connections_per_blob, value::connections_per_blob);
    Limits {
        connections: connections.unwrap_or(usual.connections),
        connections_per_blob: per_blob.unwrap_or(usual.connections_per_blob),
    }
}

fn name_and_endpoint(text: &str) -> Result<(Namespace, reqwest::Url), Rule> {
    let (name, url) = text
        .split_once('=')
        .ok_or("must be NAME=URL, such as registry.example.com=http://10.0.0.5:5000")?;
    Ok((value::namespace(name)?, value::endpoint(url)?))
}

/// The PEM file at `path`, which holds at least one certificate.
pub(super) fn certificates(path: &str, findings: &Findings) -> Result<Arc<[u8]>, Rule> {
    let (bytes, _) = findings
        .read_bytes(Path::new(path))
        .map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|_| "is not a well-formed PEM file")?;
        roots
            .add(certificate)
            .map_err(|_| "holds a certificate that cannot be read")?;
    }
    if roots.is_empty() {
        return Err(
            "holds no certificate; it must be a PEM file with -----BEGIN CERTIFICATE-----".into(),
        );
    }
    Ok(bytes.into())
}
