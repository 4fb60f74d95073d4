//! What the operator says about upstreams, checked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use super::connections::CONNECTIONS_MAX;
use super::guard::host_of;
use super::way::is_loopback;
use super::{DockerConfig, Helper, Way};
use crate::oci::{Namespace, RepositoryPatterns};

/// Most connections for one blob, unless the operator says otherwise. Registries and CDNs tolerate a handful from one
/// client; browsers use six.
const CONNECTIONS_PER_BLOB_MAX: usize = 4;

/// Everything `upstream` needs to know at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where a request goes that names no registry.
    pub default_upstream: Namespace,
    /// Where it goes on to where that one does not have the repository, in this order.
    pub further_defaults: Vec<Namespace>,
    /// Registries that something else of the configuration leads to, such as a listener of their own.
    pub named: Vec<Namespace>,
    /// What becomes of a namespace nobody configured.
    pub unknown_namespaces: UnknownNamespaces,
    /// The upstreams configured by name. Namespaces and aliases are all different.
    pub upstreams: Vec<UpstreamConfig>,
    /// Credentials by registry host and path prefix, from the credentials file.
    pub credentials: Credentials,
    /// The proxies of the environment.
    pub proxies: Proxies,
}

/// What becomes of a namespace nobody configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownNamespaces {
    /// It is served: https only, without credentials, and only from public addresses.
    #[default]
    Public,
    /// It is not served here.
    Deny,
}

/// One upstream configured by name. It may have private addresses and plain http.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamConfig {
    /// The canonical name.
    pub namespace: Namespace,
    /// Base URLs, in the order they are asked; never empty. Scheme http or https, no user info, query or fragment.
    pub endpoints: Vec<Url>,
    /// Other names of the same registry.
    pub aliases: Vec<Namespace>,
    /// CA certificates (PEM) trusted for this upstream beside the usual roots.
    pub ca: Option<Arc<[u8]>>,
    /// Further hosts that may issue its tokens, and receive its credentials for that.
    pub realms: Vec<Namespace>,
    /// What may be pulled from it.
    pub repositories: RepositoryPatterns,
    /// How much of it is used at once.
    pub limits: Limits,
    /// Who may read what comes from it.
    pub access: AccessPolicy,
    /// The way to it.
    pub way: Way,
}

impl UpstreamConfig {
    /// The endpoints that are shown a credential over plain http, where others on the way can read it.
    pub fn shows_credentials_in_plain(&self) -> impl Iterator<Item = &Url> {
        let is_plain = |url: &&Url| {
            url.scheme() == "http"
                && !is_loopback(host_of(url))
                && self.way.may_show_credentials(url, &self.endpoints)
        };
        self.endpoints.iter().filter(is_plain)
    }
}

/// How much of one upstream is used at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most blobs on their way from it, or parts of blobs; further ones wait in line. At least 1.
    pub connections: usize,
    /// Most of those that are parts of the same blob. At least 1.
    pub connections_per_blob: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            connections_per_blob: CONNECTIONS_PER_BLOB_MAX,
        }
    }
}

/// Who may read what comes from an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessPolicy {
    /// What a caller has to show.
    pub mode: AccessMode,
    /// How long a right that upstream confirmed is believed without asking again.
    pub authz_ttl: Duration,
    /// How long after that a caller's right is still believed while upstream is in trouble.
    pub authz_grace: Duration,
}

/// What a caller has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessMode {
    /// Nothing, where the mirror has a credential for the repository or none is needed; else a token of their own.
    #[default]
    Auto,
    /// Nothing: whoever reaches the port may read what the mirror's credential may read.
    Shared,
    /// A token of their own, also where the mirror has a credential.
    Verify,
    /// Who they are, to the mirror; and its rules must allow it.
    Authenticated,
}

impl AccessPolicy {
    /// How long a right is believed where nobody says: what a revoked one may go on for (docs: `authz_ttl`).
    pub const AUTHZ_TTL: Duration = Duration::from_mins(5);
}

impl Default for AccessPolicy {
    fn default() -> Self {
        Self {
            mode: AccessMode::default(),
            authz_ttl: Self::AUTHZ_TTL,
            authz_grace: Duration::ZERO,
        }
    }
}

/// A user name and a password. Both empty means anonymous and is `None` wherever a credential is optional.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// The user name.
    pub username: String,
    /// The password or token.
    pub password: Secret,
    /// How it is shown.
    pub kind: CredentialKind,
}

/// How a credential is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CredentialKind {
    /// As name and password, to the registry or to who issues its tokens.
    #[default]
    Password,
    /// As it is, to the registry alone. There is no name.
    Token,
    /// As the refresh token of a grant, to who issues the registry's tokens (RFC 6749 section 6); as a password, with
    /// the name that stands for tokens, where only that is taken.
    Identity,
}

impl Credential {
    /// A name and a password.
    pub fn password(username: &str, password: Secret) -> Self {
        Self {
            username: username.to_owned(),
            password,
            kind: CredentialKind::Password,
        }
    }

    /// What `docker login` keeps in place of a password where a registry gives one for it (`identitytoken`).
    pub fn identity(token: &str) -> Self {
        Self {
            username: IDENTITY_USER.to_owned(),
            password: Secret::new(token),
            kind: CredentialKind::Identity,
        }
    }

    /// A token that the registry takes as it is.
    pub fn token(token: &str) -> Self {
        Self {
            username: String::new(),
            password: Secret::new(token),
            kind: CredentialKind::Token,
        }
    }
}

/// The name that goes with an identity token in place of a password. Azure's registries take it so.
const IDENTITY_USER: &str = "00000000-0000-0000-0000-000000000000";

impl CredentialSource {
    /// The credential, where it is known before it is needed.
    pub fn fixed(&self) -> Option<&Credential> {
        match self {
            Self::Fixed(credential) => Some(credential),
            Self::DockerConfig(_) | Self::Helper(_) => None,
        }
    }

    /// What it goes by where rights are written down: the user name, else where it comes from.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Fixed(credential) => credential.username.clone(),
            Self::DockerConfig(file) => file.path().display().to_string(),
            Self::Helper(helper) => helper.program().to_owned(),
        }
    }
}

/// Where a credential comes from when it is needed.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// It is known.
    Fixed(Credential),
    /// Docker's file says it.
    DockerConfig(Arc<DockerConfig>),
    /// A program says it.
    Helper(Arc<Helper>),
}

/// A text that must never be printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes the text in.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Credentials by namespace and repository prefix.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    pub(super) entries: Vec<CredentialEntry>,
    /// Where nothing else is said.
    pub(super) docker_config: Option<Arc<DockerConfig>>,
}

/// One line of the credentials file.
#[derive(Debug, Clone)]
pub struct CredentialEntry {
    /// The canonical namespace the credential belongs to.
    pub namespace: Namespace,
    /// The first parts of the repositories it covers, without slashes at the ends; empty covers all.
    pub prefix: String,
    /// The credential; `None` makes the repositories below `prefix` anonymous.
    pub credential: Option<CredentialSource>,
}

impl Credentials {
    /// Takes the entries in, in any order.
    pub fn new(mut entries: Vec<CredentialEntry>) -> Self {
        // Longest prefix first, so the first that fits is the one that counts.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.prefix.len()));
        Self {
            entries,
            docker_config: None,
        }
    }

    /// Whether `credential` is one of these, and known without asking.
    pub(super) fn hold(&self, credential: &Credential) -> bool {
        let mut known = self
            .entries
            .iter()
            .filter_map(|entry| entry.credential.as_ref()?.fixed());
        known.any(|known| known == credential)
    }

    /// Whether there is one for a repository of `namespace`, as far as is known by now.
    pub fn cover(&self, namespace: &Namespace) -> bool {
        let is_for =
            |entry: &CredentialEntry| entry.credential.is_some() && entry.namespace == *namespace;
        let in_file = |file: &Arc<DockerConfig>| file.names(namespace);
        self.entries.iter().any(is_for) || self.docker_config.as_ref().is_some_and(in_file)
    }

    /// With Docker's file for what the entries say nothing of.
    #[must_use]
    pub fn with_docker_config(self, docker_config: Option<Arc<DockerConfig>>) -> Self {
        Self {
            docker_config,
            ..self
        }
    }

    /// The credential for `repository` of `namespace`: that of the longest prefix of whole parts. Docker's file may turn
    /// out to hold none.
    pub fn find(&self, namespace: &Namespace, repository: &str) -> Option<CredentialSource> {
        let fits = |entry: &&CredentialEntry| {
            entry.namespace == *namespace && covers(&entry.prefix, repository)
        };
        match self.entries.iter().find(fits) {
            Some(entry) => entry.credential.clone(),
            None => self
                .docker_config
                .clone()
                .map(CredentialSource::DockerConfig),
        }
    }
}

/// Whether the repositories below `prefix`, which is of whole parts, include `repository`.
pub(super) fn covers(prefix: &str, repository: &str) -> bool {
    prefix.is_empty()
        || repository
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The proxies of the environment: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` and their lower-case forms,
/// as they are written there; empty when unset.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `http:` upstreams.
    pub http: String,
    /// For `https:` upstreams.
    pub https: String,
    /// For both, where neither is set.
    pub all: String,
    /// Hosts, domains and CIDR blocks that are reached directly.
    pub no: String,
}

impl fmt::Debug for Proxies {
    /// Says which are set, not what they are: the URL of a proxy may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &!self.http.is_empty())
            .field("https", &!self.https.is_empty())
            .field("all", &!self.all.is_empty())
            .field("no", &self.no)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(prefix: &str, username: &str) -> CredentialEntry {
        let credential = Credential::password(username, Secret::new("hunter2"));
        let credential = (!username.is_empty()).then_some(CredentialSource::Fixed(credential));
        CredentialEntry {
            namespace: "ghcr.io".parse().expect("a namespace"),
            prefix: prefix.to_owned(),
            credential,
        }
    }

    #[test]
    fn the_longest_prefix_of_whole_parts_wins() {
        let credentials = Credentials::new(vec![
            entry("", "all"),
            entry("team", "team"),
            entry("team/open", ""),
        ]);
        let find = |namespace: &str, repository: &str| {
            let namespace = namespace.parse().expect("a namespace");
            credentials
                .find(&namespace, repository)
                .and_then(|found| Some(found.fixed()?.username.clone()))
        };
        assert_eq!(find("ghcr.io", "other/app").as_deref(), Some("all"));
        assert_eq!(find("ghcr.io", "teamwork/app").as_deref(), Some("all"));
        assert_eq!(find("ghcr.io", "team/app").as_deref(), Some("team"));
        assert_eq!(find("ghcr.io", "team").as_deref(), Some("team"));
        assert_eq!(find("ghcr.io", "team/open/app"), None);
        assert_eq!(find("quay.io", "team/app"), None);
    }

    #[test]
    fn secrets_are_not_printed() {
        assert!(!format!("{:?}", entry("", "user")).contains("hunter2"));
        let proxies = Proxies {
            all: "http://user:hunter2@proxy.example".to_owned(),
            ..Proxies::default()
        };
        assert!(!format!("{proxies:?}").contains("hunter2"));
    }
}
