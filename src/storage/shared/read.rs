//! What the store has.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::{GetOptions, GetRange, GetResult};
use tokio::time::timeout;

use super::{ANSWER_TIMEOUT, Error, Operation, Shared};
use crate::oci::Digest;
use crate::storage::RECORD_BYTES_MAX;
use crate::storage::layout::{self, Audience, RecordName};

/// How long a store may be silent in the middle of a blob. The rest then comes from upstream.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A blob that the store has, unverified.
#[derive(Debug, Clone)]
pub struct SharedBlob {
    shared: Shared,
    digest: Digest,
    audience: Audience,
    size: u64,
    /// What tells this object from another that takes its place.
    etag: Option<String>,
}

/// The bytes of a blob, or of a part of it, as they come.
pub struct SharedStream {
    shared: Shared,
    chunks: BoxStream<'static, object_store::Result<Bytes>>,
    /// The next byte, counted from the start of the blob.
    at: u64,
    offset: u64,
    end: u64,
    total: u64,
}

impl Shared {
    /// Looks for the blob `digest`, and begins to read it. What is everybody's comes first.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// See [`Error`]; that it is not there is none.
    pub async fn find(&self, digest: &Digest) -> Result<Option<(SharedBlob, SharedStream)>, Error> {
        let found = self.first_of(digest, Operation::Get, &GetOptions::default);
        let Some((audience, found)) = found.await? else {
            return Ok(None);
        };
        let blob = SharedBlob {
            shared: self.clone(),
            digest: *digest,
            audience,
            size: found.meta.size,
            etag: found.meta.e_tag.clone(),
        };
        let stream = SharedStream::new(self, found);
        Ok(Some((blob, stream)))
    }

    /// The size of the blob `digest` in bytes, and whose it is.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// See [`Error`]; that it is not there is none.
    pub async fn size(&self, digest: &Digest) -> Result<Option<(u64, Audience)>, Error> {
        let options = || GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let found = self.first_of(digest, Operation::Head, &options).await?;
        Ok(found.map(|(audience, found)| (found.meta.size, audience)))
    }

    /// Asks for both objects that the blob may be at once: one after the other takes twice as long for what is not there.
    async fn first_of(
        &self,
        digest: &Digest,
        operation: Operation,
        options: &(impl Fn() -> GetOptions + Sync),
    ) -> Result<Option<(Audience, GetResult)>, Error> {
        let ask = |audience| async move {
            let place = self.place(&layout::blob(digest, audience).path());
            let question = self.0.store.get_opts(&place, options());
            self.ask(operation, ANSWER_TIMEOUT, question).await
        };
        let mut private = std::pin::pin!(ask(Audience::Entitled));
        let mut public = std::pin::pin!(ask(Audience::Everybody));
        let (mut private_says, public_says) = tokio::select! {
            biased;
            says = &mut public => (None, says),
            says = &mut private => (Some(says), public.await),
        };
        if let Some(found) = public_says? {
            return Ok(Some((Audience::Everybody, found)));
        }
        let says = match private_says.take() {
            Some(says) => says,
            None => private.await,
        };
        Ok(says?.map(|found| (Audience::Entitled, found)))
    }

    /// The record called `name`.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// See [`Error`]; that it is not there is none.
    pub async fn record(&self, name: &RecordName) -> Result<Option<Bytes>, Error> {
        let found = self.small(&name.path(), RECORD_BYTES_MAX).await?;
        Ok(found.map(|(content, _)| content))
    }

    /// The bytes of the manifest `digest`, where there are at most `bytes_max`.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// See [`Error`]; that it is not there is none.
    pub async fn document(&self, digest: &Digest, bytes_max: u64) -> Result<Option<Bytes>, Error> {
        let path = layout::document(digest).path();
        let found = self.small(&path, bytes_max).await?;
        Ok(found.map(|(content, _)| content))
    }

    /// A small object, whole, and what tells it from the next in its place. One that is larger is none.
    pub(super) async fn small(
        &self,
        path: &str,
        bytes_max: u64,
    ) -> Result<Option<(Bytes, object_store::UpdateVersion)>, Error> {
        let place = self.place(path);
        let question = async {
            let options = GetOptions::default();
            let found = self.0.store.get_opts(&place, options).await?;
            let version = object_store::UpdateVersion {
                e_tag: found.meta.e_tag.clone(),
                version: found.meta.version.clone(),
            };
            let mut content = BytesMut::new();
            let mut chunks = found.into_stream();
            while let Some(chunk) = chunks.next().await {
                content.extend_from_slice(&chunk?);
                if content.len() as u64 > bytes_max {
                    return Ok(None);
                }
            }
            Ok(Some((content.freeze(), version)))
        };
        Ok(self
            .ask(Operation::Get, ANSWER_TIMEOUT, question)
            .await?
            .flatten())
    }
}

impl SharedBlob {
    /// Whose it is.
    pub fn audience(&self) -> Audience {
        self.audience
    }

    /// Its size in bytes, as the store says.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Begins to read the bytes of `range`, at least one.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// See [`Error`]; that it is gone, or another, counts as `Refused` or `Unavailable`.
    pub async fn get(&self, range: Range<u64>) -> Result<SharedStream, Error> {
        let place = layout::blob(&self.digest, self.audience).path();
        let place = self.shared.place(&place);
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            if_match: self.etag.clone(),
            ..GetOptions::default()
        };
        let question = self.shared.0.store.get_opts(&place, options);
        let asked = self.shared.ask(Operation::Get, ANSWER_TIMEOUT, question);
        // Whoever manages the store may remove anything at any time.
        let found = asked.await?.ok_or(Error::TimedOut)?;
        Ok(SharedStream::new(&self.shared, found))
    }
}

impl SharedStream {
    fn new(shared: &Shared, found: GetResult) -> Self {
        let range = found.range.clone();
        Self {
            shared: shared.clone(),
            total: found.meta.size,
            chunks: found.into_stream(),
            at: range.start,
            offset: range.start,
            end: range.end,
        }
    }

    /// Where it begins, counted from the start of the blob.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The size of the whole blob, in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The next bytes; `None` at the end.
    ///
    /// Cancel-safe: a dropped call takes nothing.
    ///
    /// # Errors
    /// `TimedOut` when nothing comes for 5 s, `Unavailable` when it ends early.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if self.at >= self.end {
            return Ok(None);
        }
        let next = match timeout(STALL_TIMEOUT, self.chunks.next()).await {
            Ok(Some(Ok(chunk))) => Ok(chunk),
            Ok(Some(Err(error))) => Err(Error::from(error)),
            // An end before the end.
            Ok(None) | Err(_) => Err(Error::TimedOut),
        };
        match next {
            Ok(mut chunk) => {
                let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
                chunk.truncate(left);
                self.at += chunk.len() as u64;
                self.shared.0.metrics.shared_received(chunk.len() as u64);
                Ok(Some(chunk))
            }
            Err(error) => {
                let label = error.as_str();
                self.shared
                    .0
                    .metrics
                    .shared_request(Operation::Get.as_str(), label);
                self.shared.troubled(&error);
                Err(error)
            }
        }
    }
}

impl fmt::Debug for SharedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.at..self.end;
        f.debug_tuple("SharedStream").field(&rest).finish()
    }
}
