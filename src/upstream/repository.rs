//! One repository of one upstream, and what may be asked of it.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::body::BlobStream;
use super::caller::{CallerToken, Holder};
use super::config::CredentialSource;
use super::endpoint::Upstream;
use super::extent::Extent;
use super::failures::Failures;
use super::lent::Lender;
use super::manifest::{ManifestAnswer, ManifestHead};
use super::retry::Retry;
use super::session::Session;
use super::source::BlobSource;
use super::via::Via;
use super::{Error, Inner};
use crate::oci::{Digest, Namespace, Reference, RepositoryName};

/// One repository of one upstream, as one caller may see it. Cheap to clone. Two are the same when upstream, name and
/// [`Holder`] are.
#[derive(Clone)]
pub struct Repository {
    pub(super) inner: Arc<Inner>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) name: RepositoryName,
    pub(super) credential: Option<CredentialSource>,
    /// Whose right it is that is used here.
    pub(super) holder: Holder,
    /// The caller's own token; then there is no credential.
    pub(super) caller: Option<CallerToken>,
    /// A token to use once anybody is refused.
    pub(super) reserve: Option<CallerToken>,
    /// What the request went through before; `None` where it went in a circle.
    pub(super) via: Option<Via>,
    /// What the caller wants kept.
    pub(super) _kept: Option<Kept>,
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

    /// A manifest of at most [`MANIFEST_BYTES_MAX`](super::MANIFEST_BYTES_MAX) bytes. Nothing else of it is checked.
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
    pub(super) fn sessions(
        &self,
        first: usize,
    ) -> Result<impl Iterator<Item = Session<'_>>, Error> {
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
