//! Other registries: who they are, what may be sent to them, and how they answer.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use reqwest::header::HeaderValue;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oci::{Digest, Namespace, Reference, RepositoryName};

mod config;
pub use config::{
    AccessMode, AccessPolicy, Config, Credential, CredentialEntry, CredentialKind,
    CredentialSource, Credentials, Limits, Proxies, Secret, UnknownNamespaces, UpstreamConfig,
};

mod way;
pub use way::{ClientIdentity, Way};

mod denial;
mod dial;
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
mod session;
mod shared;
mod travel;

// What there is to ask for.
mod blob;
mod extent;
mod link;
mod listing;
mod manifest;
mod source;
pub use extent::Extent;
pub use manifest::{MANIFEST_BYTES_MAX, ManifestAnswer, ManifestHead};
pub use source::BlobSource;

#[cfg(test)]
mod tests;

use caller::TokenHasher;
use clients::ConfiguredClients;
use configured::{Configured, configured};
use endpoint::Upstream;
use lent::Lender;
use retry::Retry;
use rustls::RootCertStore;
use session::Session;
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

/// One repository of one upstream, as one caller may see it. Cheap to clone. Two are the same when upstream, name and
/// [`Holder`] are.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
    upstream: Arc<Upstream>,
    name: RepositoryName,
    credential: Option<CredentialSource>,
    /// Whose right it is that is used here.
    holder: Holder,
    /// The caller's own token; then there is no credential.
    caller: Option<CallerToken>,
    /// A token to use once anybody is refused.
    reserve: Option<CallerToken>,
    /// What the request went through before; `None` where it went in a circle.
    via: Option<Via>,
    /// What the caller wants kept.
    _kept: Option<Kept>,
}

/// Something that is to be kept for as long as anything is done by way of a [`Repository`].
pub type Kept = Arc<dyn Any + Send + Sync>;

impl Repository {
    /// The same, which keeps `kept` until it and all its clones are dropped: also those with which something goes on
    /// when its caller has left.
    #[must_use]
    pub fn keeping(self, kept: Kept) -> Self {
        Self {
            _kept: Some(kept),
            ..self
        }
    }

    /// The canonical name of the upstream.
    pub fn namespace(&self) -> &Namespace {
        &self.upstream.namespace
    }

    /// The name of the repository.
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// The metric label of the upstream.
    pub fn label(&self) -> &str {
        &self.upstream.label
    }

    /// Most connections for one of its blobs.
    pub fn connections_per_blob(&self) -> usize {
        self.upstream.connections_per_blob
    }

    /// Whether upstream said a short while ago that it will not give much more. What is known is then better than
    /// knowing it again.
    pub fn is_short_of_quota(&self) -> bool {
        let endpoints = &self.upstream.endpoints;
        endpoints
            .iter()
            .any(|endpoint| endpoint.health.is_short_of_quota())
    }

    /// How long whoever holds a copy waits for upstream: for `patience`, or not at all where somebody else has waited
    /// that long in vain just now.
    pub fn patience(&self, patience: Duration) -> Duration {
        let endpoints = &self.upstream.endpoints;
        // Those that are left alone are passed over at once. Where all of them are, somebody may be trying one, whose
        // answer is not waited for either.
        let asked = endpoints
            .iter()
            .find(|endpoint| endpoint.health.refusal().is_none())
            .or(endpoints.first());
        match asked {
            Some(endpoint) if endpoint.health.is_silent(patience) => Duration::ZERO,
            Some(_) | None => patience,
        }
    }

    /// For how long at least upstream is left alone, where none of its endpoints is asked now: it fails, or limits the
    /// rate. Every request gets the error that led to this, at once.
    pub fn left_alone_for(&self) -> Option<Duration> {
        let endpoints = self.upstream.endpoints.iter();
        let refusals: Option<Vec<_>> = endpoints.map(|one| one.health.refusal()).collect();
        refusals?.iter().map(|refusal| refusal.wait).min()
    }

    /// What upstream says of a manifest, without its bytes.
    ///
    /// Cancel-safe: nothing is kept of a call that is dropped, except a token.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn head_manifest(&self, reference: &Reference) -> Result<ManifestHead, Error> {
        let mut failures = Failures::default();
        for session in self.sessions(0)? {
            match session.head_manifest(reference).await {
                Err(error) if session.falls_through(&error) => failures.add(error),
                outcome => return outcome,
            }
        }
        Err(failures.worst())
    }

    /// A manifest of at most [`MANIFEST_BYTES_MAX`] bytes. Nothing else of it is checked.
    ///
    /// Cancel-safe: nothing is kept of a call that is dropped, except a token.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_manifest(&self, reference: &Reference) -> Result<ManifestAnswer, Error> {
        let mut failures = Failures::default();
        for session in self.sessions(0)? {
            match session.get_manifest(reference).await {
                Err(error) if session.falls_through(&error) => failures.add(error),
                outcome => return outcome,
            }
        }
        Err(failures.worst())
    }

    /// The size of a blob in bytes, as upstream states it.
    ///
    /// Cancel-safe: nothing is kept of a call that is dropped, except a token.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn head_blob(&self, digest: &Digest) -> Result<u64, Error> {
        let mut failures = Failures::default();
        for session in self.sessions(0)? {
            match session.head_blob(digest).await {
                Err(error) if session.falls_through(&error) => failures.add(error),
                outcome => return outcome,
            }
        }
        Err(failures.worst())
    }

    /// A handle on one blob, for whoever asks for it more than once. Asks for nothing yet.
    pub fn blob(&self, digest: &Digest) -> BlobSource {
        BlobSource::new(self.clone(), *digest)
    }

    /// [`BlobSource::get`], for whoever asks once.
    ///
    /// Cancel-safe: nothing is kept of a call that is dropped, except a token.
    ///
    /// # Errors
    /// As there.
    pub async fn get_blob(&self, digest: &Digest, extent: Extent) -> Result<BlobStream, Error> {
        self.blob(digest).get(extent).await
    }

    /// One session per endpoint: the `first`, and then the others in the order of the configuration.
    fn sessions(&self, first: usize) -> Result<impl Iterator<Item = Session<'_>>, Error> {
        let via = self.via.as_ref().ok_or(Error::Loop)?;
        let via = via.through(&self.inner.own_via).ok_or(Error::Loop)?;
        let upstream = &*self.upstream;
        if upstream.endpoints.is_empty() {
            let reason = format!("{} cannot stand in a URL", upstream.namespace);
            return Err(Error::Refused(reason));
        }
        let shared = &self.inner.shared;
        let endpoints = upstream.endpoints.iter().enumerate();
        let others = endpoints
            .clone()
            .filter(move |(position, _)| *position != first);
        let in_order = endpoints.skip(first).take(1).chain(others).enumerate();
        Ok(in_order.map(move |(asked, (position, endpoint))| {
            if asked > 0 {
                shared.transport.retry(Retry::NextEndpoint);
            }
            let source = self.credential.as_ref();
            let source = source.filter(|_| endpoint.sees_credentials);
            Session {
                shared,
                upstream,
                endpoint,
                position,
                has_next: asked + 1 < upstream.endpoints.len(),
                repository: endpoint.repository(&self.name),
                caller: self.caller.as_ref().filter(|_| endpoint.sees_credentials),
                relays: self.relays(),
                credential: source.and_then(CredentialSource::fixed),
                lender: source.map(|source| Lender {
                    source,
                    directory: &self.inner.directory,
                    repository: &self.name,
                }),
                via: via.clone(),
            }
        }))
    }
}

/// What the endpoints said that were asked so far.
#[derive(Default)]
struct Failures(Option<Error>);

impl Failures {
    fn add(&mut self, error: Error) {
        // The first trouble is kept, over every "not found": what one endpoint lacks, the troubled one may have. A limit
        // is better still: it says when to come back.
        let is_better = match &self.0 {
            Some(Error::RateLimited { .. }) => false,
            Some(kept) if kept.is_trouble() => matches!(error, Error::RateLimited { .. }),
            Some(_) | None => true,
        };
        if is_better {
            self.0 = Some(error);
        }
    }

    /// `NotFound` only if every endpoint said so.
    fn worst(self) -> Error {
        self.0.unwrap_or(Error::NotFound)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.name)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Repository {
    fn eq(&self, other: &Self) -> bool {
        self.namespace() == other.namespace()
            && self.name == other.name
            && self.holder == other.holder
    }
}

impl Eq for Repository {}

impl Hash for Repository {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.namespace().hash(state);
        self.name.hash(state);
    }
}
