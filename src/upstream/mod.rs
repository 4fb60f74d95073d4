//! Other registries: who they are, what may be sent to them, and how they answer.

use std::sync::Arc;

use hashbrown::HashMap;
use reqwest::header::HeaderValue;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oci::{Namespace, RepositoryName};

mod config;
pub use config::{
    AccessMode, AccessPolicy, Config, Credential, CredentialEntry, CredentialKind,
    CredentialSource, Credentials, Limits, Proxies, Secret, UnknownNamespaces, UpstreamConfig,
};

mod way;
pub use way::{ClientIdentity, Way};

mod denial;
mod error;
pub use denial::{Denial, TokenChallenge};
pub use error::{BuildError, Error, Silence};

// Names; nothing is asked.
mod built_in;
mod directory;
mod table;
pub use built_in::{canonical, endpoint as endpoint_of, known_registries};
pub use directory::Directory;

// What may be sent where.
mod guard;
mod realm;
mod redirect;
mod via;
pub use via::Via;

// Bytes, there and back.
mod answer;
mod body;
mod clients;
mod configured;
mod connections;
mod dial;
mod retry;
mod tls;
mod trail;
mod transport;
pub use body::BlobStream;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod trial;

// Who asks.
mod caller;
mod docker_config;
mod docker_file;
mod helper;
mod lent;
pub use docker_config::{DockerConfig, DockerConfigError};
pub use helper::Helper;

mod challenge;
mod issuer;
mod readers;
mod rights;
mod scheme;
mod token;
pub use caller::{CallerToken, Holder, TokenHash};

// Whether to ask at all.
mod breaker;
mod health;
mod quota;
mod waiting;

// One request to one endpoint.
mod endpoint;
mod failures;
mod session;
mod shared;
mod travel;

// What there is to ask for.
mod blob;
mod extent;
mod link;
mod listing;
mod manifest;
mod repository;
mod source;
pub use extent::Extent;
pub use manifest::{MANIFEST_BYTES_MAX, ManifestAnswer, ManifestHead};
pub use repository::{Kept, Repository};
pub use source::BlobSource;

#[cfg(test)]
mod tests;

use caller::TokenHasher;
use clients::ConfiguredClients;
use configured::{Configured, configured};
use endpoint::Upstream;
use rustls::RootCertStore;
use shared::Shared;
use transport::Transport;

/// All upstreams. Cheap to clone: a handle.
#[derive(Debug, Clone)]
pub struct Upstreams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: Directory,
    credentials: Credentials,
    configured: HashMap<Namespace, Configured>,
    /// For the configured upstreams that trust nobody but the usual authorities.
    usual: ConfiguredClients,
    proxies: Proxies,
    own_via: String,
    /// `None` takes no tokens of callers.
    hasher: Option<TokenHasher>,
    shared: Arc<Shared>,
    metrics: Metrics,
}

impl Inner {
    /// Where the credential for a repository comes from. Docker's file counts where it is known to have one: whoever
    /// asks by nobody's right must not turn out to have had one.
    fn credential(&self, namespace: &Namespace, name: &RepositoryName) -> Option<CredentialSource> {
        let found = self.credentials.find(namespace, name.as_str())?;
        let canonical = |name: &Namespace| self.directory.canonical(name);
        match &found {
            CredentialSource::Fixed(_) | CredentialSource::Helper(_) => Some(found),
            CredentialSource::DockerConfig(file) => file
                .has(namespace, name.as_str(), &canonical)
                .then_some(found),
        }
    }
}

impl Upstreams {
    /// Sets up the upstreams of `config`. Connects to none.
    ///
    /// # Errors
    /// When a CA file or a proxy of the configuration is of no use.
    pub fn new(config: Config, clock: Clock, metrics: Metrics) -> Result<Self, BuildError> {
        Self::trusting(&tls::usual_roots(), config, clock, metrics)
    }

    fn trusting(
        roots: &RootCertStore,
        config: Config,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, BuildError> {
        let transport = Transport::new(roots, &config.proxies, metrics.clone())?;
        let usual = ConfiguredClients::usual(roots, &config.proxies)?;
        let nothing = HashMap::new();
        let configured = configured(roots, &config, &usual, &metrics, &nothing)?;
        Ok(Self(Arc::new(Inner {
            directory: Directory::new(&config),
            credentials: config.credentials,
            configured,
            hasher: TokenHasher::new(),
            usual,
            proxies: config.proxies,
            own_via: format!("entrepot-{:016x}", fastrand::u64(..)),
            shared: Arc::new(Shared::new(transport, clock, metrics.clone())),
            metrics,
        })))
    }

    /// The upstreams of another configuration. What is known of those that did not change stays, and so do the
    /// connections to them; tokens of credentials that are no more are forgotten. Proxies are those of the environment,
    /// which does not change. Connects to none, and reads the usual authorities again: it blocks.
    ///
    /// # Errors
    /// As [`Upstreams::new`].
    pub fn reconfigured(&self, config: Config) -> Result<Self, BuildError> {
        let before = &self.0;
        let config = Config {
            proxies: before.proxies.clone(),
            ..config
        };
        let roots = tls::usual_roots();
        let configured = configured(
            &roots,
            &config,
            &before.usual,
            &before.metrics,
            &before.configured,
        )?;
        before.shared.keep_only(&config.credentials);
        Ok(Self(Arc::new(Inner {
            directory: Directory::new(&config),
            credentials: config.credentials,
            configured,
            usual: before.usual.clone(),
            proxies: config.proxies,
            hasher: before.hasher.clone(),
            own_via: before.own_via.clone(),
            shared: Arc::clone(&before.shared),
            metrics: before.metrics.clone(),
        })))
    }

    /// A client for an object store: it goes the usual way, through the same proxies, and trusts the authorities in `ca`
    /// (PEM) beside the usual ones. Connects to nothing, and reads the usual authorities: it blocks.
    ///
    /// # Errors
    /// When `ca` or a proxy is of no use.
    pub fn client_for_storage(&self, ca: Option<&[u8]>) -> Result<reqwest::Client, BuildError> {
        let roots = tls::usual_roots();
        let roots = match ca {
            Some(pem) => {
                tls::with_authorities(&roots, pem).map_err(BuildError::SharedAuthorities)?
            }
            None => roots,
        };
        clients::for_storage(roots, &self.0.proxies)
    }

    /// Which registries there are.
    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// The name of this process in `Via`; another one after a restart.
    pub fn own_via(&self) -> &str {
        &self.0.own_via
    }

    /// Whether the request that `via` belongs to went through this process before, so that it must not wait for
    /// anything that it may itself have caused.
    pub fn is_circle(&self, via: &Via) -> bool {
        via.has(&self.0.own_via)
    }

    /// The token in an `Authorization` header of a caller, where it holds one.
    pub fn caller_token(&self, authorization: &HeaderValue) -> Option<CallerToken> {
        self.0.hasher.as_ref()?.read(authorization)
    }

    /// Who may read what comes from `namespace`, which is canonical.
    pub fn access(&self, namespace: &Namespace) -> AccessPolicy {
        let upstream = self.0.configured.get(namespace);
        upstream.map_or_else(AccessPolicy::default, |configured| {
            configured.upstream.access
        })
    }

    /// Whether the mirror has a credential for the repository `name` of `namespace`, which is canonical.
    pub fn has_credential(&self, namespace: &Namespace, name: &RepositoryName) -> bool {
        let found = self.0.credential(namespace, name);
        found.is_some()
    }

    /// A source: the repository `name` of `namespace`, with the credential that is in force for it. `namespace` is
    /// canonical and served, and `name` is as [`Directory::repository_name`] gives it.
    pub fn repository(
        &self,
        namespace: &Namespace,
        name: &RepositoryName,
        via: &Via,
    ) -> Repository {
        let inner = &self.0;
        let upstream = match inner.configured.get(namespace) {
            Some(configured) => Arc::clone(&configured.upstream),
            // Not kept: clients may make up any number of them.
            None => Arc::new(Upstream::public(
                namespace,
                inner.directory.label(namespace),
                &inner.shared.public_connections,
                &inner.shared.public_health,
            )),
        };
        let credential = inner.credential(namespace, name);
        Repository {
            inner: Arc::clone(inner),
            upstream,
            name: name.clone(),
            holder: match &credential {
                Some(credential) => Holder::Mirror(credential.label().into()),
                None => Holder::Anybody,
            },
            credential,
            caller: None,
            reserve: None,
            via: (!self.is_circle(via)).then(|| via.clone()),
            _kept: None,
        }
    }
}
