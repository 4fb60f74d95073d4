//! Requests for content: manifests and blobs.
//!
//! Nearly all of it is at hand: in memory, or in a file that is open, and anybody's to read. That is answered without
//! waiting for anything; whatever is not, and every refusal, goes the long way.

use std::borrow::Cow;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Response, StatusCode};
use tokio::time::Instant;

use super::conditional::{Precondition, accepts, precondition};
use super::error::{Content, Error};
use super::log::{Entry, Subject};
use super::range::{self, Wanted};
use super::response::Builder;
use super::route::{Item, Target};
use super::{Ask, Recent, Registry, echo};
use crate::cache::{Blob, Manifest, Outcome};
use crate::http::{Body, End, Memo, PreparedHead, Reply};
use crate::oci::{Descriptor, Digest, Namespace, Reference};

impl Registry {
    /// Answers with what is at hand.
    pub(super) fn content_at_hand(
        &self,
        ask: &Ask,
        target: &Target,
        item: &Item,
        started: Instant,
    ) -> Option<Reply> {
        let target = &*self.meant_at_hand(target, item)?;
        let subject = Subject::new(item.kind(), target, self.upstreams.directory());
        let memo = ask.memo().map(|memo| (memo, &subject));
        let reply = match item {
            Item::Manifest(reference) => self.manifest_at_hand(ask, target, reference, memo)?,
            Item::Blob(digest) => self.blob_at_hand(ask, target, *digest, memo)?,
            Item::Tags(..) | Item::Referrers(..) => return None,
        };
        let mut entry = self.hit(&ask.request, &ask.caller, subject, started);
        let reply = reply.unwrap_or_else(|error| entry.failed(&error, Some(echo(target))).into());
        Some(entry.attach(reply))
    }

    fn manifest_at_hand(
        &self,
        ask: &Ask,
        target: &Target,
        reference: &Reference,
        memo: Option<(&Memo, &Subject)>,
    ) -> Option<Result<Reply, Error>> {
        // Before anything is looked at, so that a change meanwhile shows.
        let premises = self.premises(&ask.caller);
        let source = self.source_at_hand(ask, target, Content::Manifest)?;
        let (manifest, age, fresh_for) = match reference {
            Reference::Digest(digest) => {
                let manifest = self.cache.manifest_at_hand(&source, digest)?;
                (manifest, None, Duration::MAX)
            }
            Reference::Tag(tag) => {
                let (tagged, fresh_for) = self.cache.tagged_manifest_at_hand(&source, tag)?;
                (tagged.manifest, Some(tagged.age), fresh_for)
            }
        };
        let document = Document {
            outcome: Outcome::Hit,
            manifest,
            age,
        };
        let answer = document.answer(ask, target);
        if let Some((memo, subject)) = memo
            && let Ok(Some(head)) = answer.as_ref().map(Reply::prepared_head)
        {
            let decision = (premises, subject.clone());
            let (manifest, freshness) = (&document.manifest, (age, fresh_for));
            memo.set(Recent::manifest(decision, head, manifest, freshness));
        }
        Some(answer)
    }

    fn blob_at_hand(
        &self,
        ask: &Ask,
        target: &Target,
        digest: Digest,
        memo: Option<(&Memo, &Subject)>,
    ) -> Option<Result<Reply, Error>> {
        let premises = self.premises(&ask.caller);
        let source = self.source_at_hand(ask, target, Content::Blob)?;
        let wanted = WantedBlob::new(ask, target, digest).ok()?;
        let blob = self.cache.blob_at_hand(&source, &digest)?;
        if let Some((memo, subject)) = memo
            && let (Some(file), Some(head)) = (blob.file(), wanted.whole(blob.size()))
        {
            let decision = (premises, subject.clone());
            memo.set(Recent::blob(decision, head, digest, (&file, blob.size())));
        }
        let response = if wanted.is_head_enough() {
            Ok(wanted.head(Outcome::Hit, blob.size()))
        } else {
            self.send(&wanted, Outcome::Hit, blob)
        };
        Some(response.map(Reply::from))
    }

    pub(super) async fn manifest(
        &self,
        ask: &Ask,
        target: &Target,
        reference: Reference,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Error> {
        let source = self.source(ask, target, Content::Manifest).await?;
        let failed = |error| Error::Cache(error, Content::Manifest);
        let (outcome, manifest, age) = match reference {
            Reference::Digest(digest) => {
                let found = self.cache.manifest(source, digest).await;
                let (outcome, manifest) = found.map_err(failed)?;
                (outcome, manifest, None)
            }
            Reference::Tag(tag) => {
                let found = self.cache.tagged_manifest(source, tag).await;
                let (outcome, tagged) = found.map_err(failed)?;
                (outcome, tagged.manifest, Some(tagged.age))
            }
        };
        entry.came(outcome);
        let document = Document {
            outcome,
            manifest,
            age,
        };
        document.answer(ask, target).map(Response::from)
    }

    pub(super) async fn blob(
        &self,
        ask: &Ask,
        target: &Target,
        digest: Digest,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Error> {
        let source = self.source(ask, target, Content::Blob).await?;
        let failed = |error| Error::Cache(error, Content::Blob);
        let wanted = WantedBlob::new(ask, target, digest)?;
        if wanted.is_head_enough() {
            let sized = self.cache.blob_size(&source, digest).await;
            let (outcome, size) = sized.map_err(failed)?;
            entry.came(outcome);
            return Ok(wanted.head(outcome, size));
        }
        let found = self.cache.blob(source, digest).await;
        let (outcome, blob) = found.map_err(failed)?;
        entry.came(outcome);
        self.send(&wanted, outcome, blob)
    }

    /// Sends what is wanted of a blob.
    fn send(
        &self,
        wanted: &WantedBlob<'_>,
        outcome: Outcome,
        blob: Blob,
    ) -> Result<Response<Body>, Error> {
        let file = blob.file();
        let response = wanted.send(outcome, blob)?;
        let Some(file) = file else {
            return Ok(response);
        };
        Ok(response.map(|body| self.told_of_trouble(body, wanted.digest, file)))
    }

    /// A body that is read from the file of a blob. Should that turn out to be unreadable, the cache is told.
    pub(super) fn told_of_trouble(&self, body: Body, digest: Digest, file: Arc<File>) -> Body {
        let cache = Arc::clone(&self.cache);
        body.on_end(move |_, end| {
            if end == End::Unreadable {
                cache.unreadable(digest, file);
            }
        })
    }

    /// The target, if it is clear at once which registry is meant.
    fn meant_at_hand<'a>(&self, target: &'a Target, item: &Item) -> Option<Cow<'a, Target>> {
        let Some(name) = &target.unplaced else {
            return Some(Cow::Borrowed(target));
        };
        if !self.upstreams.directory().further_defaults().is_empty() {
            return None;
        }
        let Some(digest) = item.digest() else {
            return Some(Cow::Borrowed(target));
        };
        let origin = self
            .cache
            .origin_at_hand(name, &target.repository, digest)?;
        self.at_origin(target, origin).map(Cow::Owned)
    }
}

/// A manifest that is to be sent.
struct Document {
    outcome: Outcome,
    manifest: Arc<Manifest>,
    /// How long ago upstream confirmed that the tag points to it; `None` where it was asked for by its digest.
    age: Option<Duration>,
}

impl Document {
    fn answer(&self, ask: &Ask, target: &Target) -> Result<Reply, Error> {
        let Manifest {
            descriptor, bytes, ..
        } = &*self.manifest;
        // Whoever names the digest means these bytes, whatever they are.
        if self.age.is_some() && !accepts(ask.headers(), &descriptor.media_type) {
            return Err(Error::NotAcceptable);
        }
        match precondition(ask.headers(), &descriptor.digest) {
            Precondition::Failed => Err(Error::PreconditionFailed),
            Precondition::NotModified => {
                let builder = Builder::new(StatusCode::NOT_MODIFIED);
                let builder = builder.digest(&descriptor.digest.to_string());
                let builder = builder.namespace(echo(target)).outcome(self.outcome);
                let builder = match self.age {
                    Some(age) => builder.age(age),
                    None => builder,
                };
                Ok(builder.head(None).into())
            }
            Precondition::Holds => {
                let head = self
                    .manifest
                    .head(|| head_of(descriptor, &target.namespace));
                let head = self.come(head, target);
                let body = if ask.wants_head() {
                    Body::empty()
                } else {
                    Body::full(bytes.clone())
                };
                Ok(Reply::prepared(head, self.age, body))
            }
        }
    }

    /// The head, where it came about in another way than as a hit, or the client has another name for the registry.
    fn come(&self, head: &Arc<PreparedHead>, target: &Target) -> Arc<PreparedHead> {
        if self.outcome == Outcome::Hit && *echo(target) == target.namespace {
            return Arc::clone(head);
        }
        let builder = Builder::of(StatusCode::OK, head.fields().clone());
        let builder = builder.namespace(echo(target)).outcome(self.outcome);
        Arc::new(builder.prepared())
    }
}

/// What is said of a manifest in every answer that sends it, where it is a hit, as nearly all are.
fn head_of(descriptor: &Descriptor, namespace: &Namespace) -> PreparedHead {
    Builder::new(StatusCode::OK)
        .namespace(namespace)
        .digest(&descriptor.digest.to_string())
        .media_type(descriptor.media_type.as_str())
        .outcome(Outcome::Hit)
        .length(descriptor.size)
        .prepared()
}

/// A blob that is asked for, and what of it.
struct WantedBlob<'a> {
    ask: &'a Ask,
    target: &'a Target,
    digest: Digest,
    etag: String,
    is_known: bool,
}

impl<'a> WantedBlob<'a> {
    /// What `ask` wants.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`], where it is another blob.
    fn new(ask: &'a Ask, target: &'a Target, digest: Digest) -> Result<Self, Error> {
        let is_known = match precondition(ask.headers(), &digest) {
            Precondition::Failed => return Err(Error::PreconditionFailed),
            Precondition::NotModified => true,
            Precondition::Holds => false,
        };
        Ok(Self {
            ask,
            target,
            digest,
            etag: digest.to_string(),
            is_known,
        })
    }

    /// Whether no byte of it is wanted.
    fn is_head_enough(&self) -> bool {
        self.ask.wants_head() || self.is_known
    }

    fn described(&self, outcome: Outcome, status: StatusCode) -> Builder {
        Builder::new(status)
            .namespace(echo(self.target))
            .outcome(outcome)
            .digest(&self.etag)
    }

    fn head(&self, outcome: Outcome, size: u64) -> Response<Body> {
        if self.is_known {
            self.described(outcome, StatusCode::NOT_MODIFIED).head(None)
        } else {
            let builder = self.described(outcome, StatusCode::OK).octets();
            builder.head(Some(size))
        }
    }

    /// The head of the answer to everybody who asks in the same words, where that is all of the blob.
    fn whole(&self, size: u64) -> Option<PreparedHead> {
        if self.is_known || range::wanted(self.ask.headers(), size, &self.etag) != Wanted::Whole {
            return None;
        }
        let builder = self.described(Outcome::Hit, StatusCode::OK).octets();
        Some(builder.length(size).prepared())
    }

    fn send(&self, outcome: Outcome, blob: Blob) -> Result<Response<Body>, Error> {
        let size = blob.size();
        let described = |status| self.described(outcome, status).octets();
        match range::wanted(self.ask.headers(), size, &self.etag) {
            Wanted::Whole => Ok(described(StatusCode::OK).reader(blob.read(0..size), size)),
            Wanted::Part(part) => {
                let length = part.end - part.start;
                let builder = described(StatusCode::PARTIAL_CONTENT).part(&part, size);
                Ok(builder.reader(blob.read(part), length))
            }
            Wanted::Nothing => Err(Error::RangeNotSatisfiable { size }),
        }
    }
}
