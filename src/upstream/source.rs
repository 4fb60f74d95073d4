//! One blob of one repository, asked for piece by piece.

use std::fmt;
use std::sync::Arc;

use super::body::BlobStream;
use super::connections::Connection;
use super::dial::knowing;
use super::failures::Failures;
use super::trail::Trail;
use super::{Error, Extent, Repository};
use crate::oci::Digest;

/// One blob of one repository, for whoever asks for it more than once, at several places at a time or one after the
/// other. It remembers the way: the endpoint that gave something last is asked first, and where that redirected to is
/// asked right away, until it stops working. Cheap to clone; clones share what they learn, and nobody else does.
#[derive(Clone)]
pub struct BlobSource(Arc<Inner>);

struct Inner {
    repository: Repository,
    digest: Digest,
    trail: Arc<Trail>,
}

impl BlobSource {
    pub(super) fn new(repository: Repository, digest: Digest) -> Self {
        Self(Arc::new(Inner {
            repository,
            digest,
            trail: Arc::default(),
        }))
    }

    /// The repository that is asked.
    pub fn repository(&self) -> &Repository {
        &self.0.repository
    }

    /// The bytes of the blob, or of a part of it. Where upstream does not do ranges the stream starts at the first
    /// byte: see [`BlobStream::offset`]. Nothing of the content is checked but the length.
    ///
    /// Waits up to 10 s for a connection, behind those who came before.
    ///
    /// Cancel-safe: nothing is kept of a call that is dropped, except a token and the way.
    ///
    /// # Errors
    /// `Busy` when no connection became free; else see [`Error`].
    pub async fn get(&self, extent: Extent) -> Result<BlobStream, Error> {
        self.must_not_wait_in_vain()?;
        let connection = self.repository().upstream.connections.wait().await?;
        self.get_by(connection, &extent).await
    }

    /// As [`get`](Self::get), for a connection that only helps: it waits for none, and takes none from those who wait.
    ///
    /// Cancel-safe, as `get` is.
    ///
    /// # Errors
    /// `Busy` when no connection is free right now; else see [`Error`].
    pub async fn get_if_free(&self, extent: Extent) -> Result<BlobStream, Error> {
        let connection = self.repository().upstream.connections.at_once()?;
        self.get_by(connection, &extent).await
    }

    /// That whoever stands in line for a connection may use it: not where upstream is left alone, and nothing is known
    /// of where it redirected to before.
    fn must_not_wait_in_vain(&self) -> Result<(), Error> {
        let Inner {
            repository, trail, ..
        } = &*self.0;
        let endpoints = repository.upstream.endpoints.iter().enumerate();
        let mut failures = Failures::default();
        for (position, endpoint) in endpoints {
            match endpoint.health.refusal() {
                Some(refusal) if trail.target(position).is_none() => {
                    failures.add(refusal.error());
                }
                Some(_) | None => return Ok(()),
            }
        }
        let Some(error) = failures.0 else {
            return Ok(());
        };
        for endpoint in &repository.upstream.endpoints {
            endpoint.health.refused();
        }
        Err(error)
    }

    async fn get_by(&self, connection: Connection, extent: &Extent) -> Result<BlobStream, Error> {
        let Inner {
            repository,
            digest,
            trail,
        } = &*self.0;
        let first = trail.first(repository.upstream.endpoints.len());
        let comes_back = trail.take_returning();
        let mut failures = Failures::default();
        for session in repository.sessions(first)? {
            let asking = session.get_blob(digest, extent, trail);
            match knowing(comes_back, asking).await {
                Err(error) if session.falls_through(&error) => failures.add(error),
                outcome => return Ok(outcome?.holding(connection)),
            }
        }
        Err(failures.worst())
    }
}

impl fmt::Debug for BlobSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.0.repository, self.0.digest)
    }
}
