//! The API of a registry, read-only: one request, one story.

mod route;
use route::{Inbound, Item, Route, Target};

mod locate;

mod ways;
use ways::Door;
pub use ways::Ways;

mod search;
use search::Found;

mod current;
pub use current::CurrentRegistry;

mod query;

mod conditional;
use conditional::{Precondition, accepts, precondition};

mod range;
use range::Wanted;

mod response;
use response::Builder;

mod error;
use error::{Content, Error};

mod lists;

mod log;
use log::Entry;

mod clients;
use clients::Clients;

#[doc(hidden)]
pub mod inner;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod trial;

use std::sync::Arc;

use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::access::{self, Asked, Claims, PasswordFile, Refusal, Requirement, Rules};
use crate::cache::{Blob, Cache, Manifest, Outcome};
use crate::http::{Body, Caller, End, Rejection, Service, Shares};
use crate::metrics::Metrics;
use crate::oci::{Digest, Namespace, Reference};
use crate::upstream::{self, AccessMode, Kept, Repository, Upstreams, Via};

/// A registry that has what other registries have.
#[derive(Debug)]
pub struct Registry {
    upstreams: Upstreams,
    ways: Ways,
    /// Shared with the bodies that are read from it.
    cache: Arc<Cache>,
    clients: Clients,
    rules: Rules,
    /// What each client has under way, by the targets of its requests.
    under_way: Shares<Option<PathAndQuery>>,
    metrics: Metrics,
}

/// The clients that the mirror knows, and what they may read.
#[derive(Debug, Clone, Default)]
pub struct Authentication {
    /// Their names and passwords.
    pub passwords: Option<PasswordFile>,
    /// What they may read.
    pub rules: Rules,
}

/// What holds for clients.
#[derive(Debug, Clone)]
pub struct ClientPolicy {
    /// Who they are, and what they may read.
    pub authentication: Authentication,
    /// Most different things that one client may have under way, by its address: asked for and not answered, or on its
    /// way in because of it.
    pub requests_max: usize,
}

/// What the story of a request needs of it.
struct Ask {
    /// Whether only the head is wanted.
    head: bool,
    headers: HeaderMap,
    caller: Caller,
    /// Whether it is still to be found out which registry is meant. A caller's token is then shown to none of them.
    is_search: bool,
    /// What counts it as something that the client has under way, for as long as anything is done about it.
    kept: Option<Kept>,
}

impl Registry {
    /// A registry in front of `upstreams`.
    pub fn new(
        upstreams: Upstreams,
        ways: Ways,
        cache: Cache,
        clients: ClientPolicy,
        metrics: Metrics,
    ) -> Self {
        let ClientPolicy {
            authentication,
            requests_max,
        } = clients;
        Self {
            upstreams,
            ways,
            cache: Arc::new(cache),
            clients: Clients::new(authentication.passwords),
            rules: authentication.rules,
            under_way: Shares::new(requests_max),
            metrics,
        }
    }

    /// Routes, decides about access, asks the cache, and answers.
    async fn respond(
        &self,
        request: Request<()>,
        caller: Caller,
        entry: &mut Entry,
    ) -> Response<Body> {
        let (parts, ()) = request.into_parts();
        let inbound = Inbound {
            method: &parts.method,
            target: &parts.uri,
            door: Door {
                listener: caller.listener,
                host: host_of(&parts),
            },
        };
        let route = match route::parse(inbound, &self.ways, self.upstreams.directory()) {
            Ok(route) => route,
            Err(error) => {
                let asked = route::asked(&parts.uri);
                return entry.failed(&error.into(), asked.as_ref());
            }
        };
        let ask = Ask {
            head: parts.method == Method::HEAD,
            headers: parts.headers,
            caller,
            is_search: false,
            kept: None,
        };
        match route {
            Route::Base { namespace } => match self.welcome(&ask, namespace.as_ref()).await {
                Ok(()) => response::base(namespace.as_ref()),
                Err(error) => entry.failed(&error, namespace.as_ref()),
            },
            Route::Content(target, item) => {
                entry.asked(item.kind(), &target, self.upstreams.directory());
                let what = parts.uri.path_and_query().cloned();
                let client = ask.caller.peer.ip();
                let Some(share) = self.under_way.take(client, what) else {
                    self.metrics.client_refusal();
                    return entry.failed(&Error::TooMuch, Some(echo(&target)));
                };
                let kept = Some(Arc::new(share) as Kept);
                self.find(Ask { kept, ..ask }, target, &item, entry).await
            }
        }
    }

    /// What one target has of it.
    async fn content(
        &self,
        ask: &Ask,
        target: &Target,
        item: &Item,
        entry: &mut Entry,
    ) -> Result<Found, Error> {
        let response = match item {
            Item::Manifest(reference) => self.manifest(ask, target, reference.clone(), entry).await,
            Item::Blob(digest) => self.blob(ask, target, *digest, entry).await,
            Item::Tags(written, page) => {
                Box::pin(self.tags(ask, target, written, page, entry)).await
            }
            Item::Referrers(written, subject, filter) => {
                let asked = (*subject, filter);
                return Box::pin(self.referrers(ask, target, written, asked, entry)).await;
            }
        };
        response.map(Found::It)
    }

    async fn manifest(
        &self,
        ask: &Ask,
        target: &Target,
        reference: Reference,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Error> {
        let source = self.source(ask, target, Content::Manifest).await?;
        let failed = |error| Error::Cache(error, Content::Manifest);
        let builder = Builder::new(StatusCode::OK);
        let (outcome, manifest, builder, any_type) = match reference {
            Reference::Digest(digest) => {
                let found = self.cache.manifest(source, digest).await.map_err(failed)?;
                // Whoever names the digest means these bytes, whatever they are.
                (found.0, found.1, builder, true)
            }
            Reference::Tag(tag) => {
                let found = self
                    .cache
                    .tagged_manifest(source, tag)
                    .await
                    .map_err(failed)?;
                (found.0, found.1.manifest, builder.age(found.1.age), false)
            }
        };
        entry.came(outcome);
        if !any_type && !accepts(&ask.headers, &manifest.descriptor.media_type) {
            return Err(Error::NotAcceptable);
        }
        send_manifest(ask, target, builder.outcome(outcome), &manifest)
    }

    async fn blob(
        &self,
        ask: &Ask,
        target: &Target,
        digest: Digest,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Error> {
        let source = self.source(ask, target, Content::Blob).await?;
        let failed = |error| Error::Cache(error, Content::Blob);
        let etag = digest.to_string();
        let precondition = precondition(&ask.headers, &etag);
        if precondition == Precondition::Failed {
            return Err(Error::PreconditionFailed);
        }
        let describe = |outcome: Outcome, status| {
            Builder::new(status)
                .namespace(echo(target))
                .outcome(outcome)
                .digest(&etag)
        };
        if ask.head || precondition == Precondition::NotModified {
            // Boxed, as everything is that few requests take: its state would be part of every request's.
            let sized = Box::pin(self.cache.blob_size(&source, digest)).await;
            let (outcome, size) = sized.map_err(failed)?;
            entry.came(outcome);
            return Ok(match precondition {
                Precondition::NotModified => describe(outcome, StatusCode::NOT_MODIFIED).head(None),
                Precondition::Holds | Precondition::Failed => {
                    describe(outcome, StatusCode::OK).octets().head(Some(size))
                }
            });
        }
        let (outcome, blob) = self.cache.blob(source, digest).await.map_err(failed)?;
        entry.came(outcome);
        let file = blob.file();
        let response = send_blob(blob, &ask.headers, &etag, |status| {
            describe(outcome, status)
        })?;
        let Some(file) = file else {
            return Ok(response);
        };
        let cache = Arc::clone(&self.cache);
        Ok(response.map(|body| {
            body.on_end(move |_, end| {
                if end == End::Unreadable {
                    cache.unreadable(digest, file);
                }
            })
        }))
    }

    /// The source the caller brings, once it is decided what they have to show for it.
    async fn source(
        &self,
        ask: &Ask,
        target: &Target,
        content: Content,
    ) -> Result<Repository, Error> {
        let (namespace, repository) = (&target.namespace, &target.repository);
        if !self.upstreams.directory().offers(namespace, repository) {
            return Err(Error::NotOffered(namespace.clone()));
        }
        let asked = Asked {
            namespace,
            repository,
            mode: self.upstreams.access(namespace).mode,
            has_credential: self.upstreams.has_credential(namespace, repository),
        };
        let claims = self.claims(ask, asked.mode).await;
        let requirement = access::decide(self.upstreams.directory(), &self.rules, asked, claims)
            .map_err(|refusal| Error::access(refusal, &ask.caller))?;
        let via = Via::parse(ask.headers.get_all(hyper::header::VIA));
        if self.upstreams.is_circle(&via) {
            // Not even from the cache: joining a fill that waits for this very request would hold up both.
            return Err(Error::Cache(upstream::Error::Loop.into(), content));
        }
        let source = self.upstreams.repository(namespace, repository, &via);
        let source = match &ask.kept {
            Some(kept) => source.keeping(Arc::clone(kept)),
            None => source,
        };
        Ok(match requirement {
            Requirement::Open | Requirement::Mirror | Requirement::Client(_) => source,
            Requirement::OpenOr(token) => source.or_for_caller(token),
            Requirement::Caller(token) => source.for_caller(token),
        })
    }

    /// What the caller brings along: an identity where the mirror wants one, else a token for the upstream.
    async fn claims(&self, ask: &Ask, mode: AccessMode) -> Claims {
        match mode {
            AccessMode::Authenticated => Claims {
                identity: self.clients.identify(&ask.caller, &ask.headers).await,
                token: None,
            },
            AccessMode::Auto | AccessMode::Verify if ask.is_search => Claims::default(),
            AccessMode::Auto | AccessMode::Verify => {
                let header = ask.headers.get(hyper::header::AUTHORIZATION);
                Claims {
                    token: header.and_then(|header| self.upstreams.caller_token(header)),
                    identity: None,
                }
            }
            AccessMode::Shared => Claims::default(),
        }
    }

    /// Whether a caller may know that this is a registry: where it wants to know its clients, those alone, so that a
    /// client's log-in shows whether its password is right.
    async fn welcome(&self, ask: &Ask, namespace: Option<&Namespace>) -> Result<(), Error> {
        let directory = self.upstreams.directory();
        let namespace = match namespace {
            Some(namespace) => directory.canonical(namespace),
            None => directory.default_upstream().clone(),
        };
        let mode = self.upstreams.access(&namespace).mode;
        let is_known =
            mode != AccessMode::Authenticated || self.claims(ask, mode).await.identity.is_some();
        if is_known {
            Ok(())
        } else {
            Err(Error::access(Refusal::Unknown(namespace), &ask.caller))
        }
    }
}

/// The host that the request was sent to. The server has seen to it that header and target agree.
fn host_of(parts: &hyper::http::request::Parts) -> Option<&str> {
    let header = parts.headers.get(hyper::header::HOST);
    header.and_then(|host| host.to_str().ok()).or_else(|| {
        parts
            .uri
            .authority()
            .map(hyper::http::uri::Authority::as_str)
    })
}

/// The namespace the answer is about: as the client named it, else as it was found.
fn echo(target: &Target) -> &crate::oci::Namespace {
    target.asked.as_ref().unwrap_or(&target.namespace)
}

fn send_manifest(
    ask: &Ask,
    target: &Target,
    builder: Builder,
    manifest: &Manifest,
) -> Result<Response<Body>, Error> {
    let descriptor = &manifest.descriptor;
    let etag = descriptor.digest.to_string();
    let builder = builder.namespace(echo(target)).digest(&etag);
    match precondition(&ask.headers, &etag) {
        Precondition::Failed => Err(Error::PreconditionFailed),
        Precondition::NotModified => Ok(builder.status(StatusCode::NOT_MODIFIED).head(None)),
        Precondition::Holds => {
            let builder = builder.media_type(descriptor.media_type.as_str());
            Ok(if ask.head {
                builder.head(Some(descriptor.size))
            } else {
                builder.full(manifest.bytes.clone())
            })
        }
    }
}

fn send_blob(
    blob: Blob,
    headers: &HeaderMap,
    etag: &str,
    describe: impl Fn(StatusCode) -> Builder,
) -> Result<Response<Body>, Error> {
    let size = blob.size();
    match range::wanted(headers, size, etag) {
        Wanted::Whole => Ok(describe(StatusCode::OK)
            .octets()
            .reader(blob.read(0..size), size)),
        Wanted::Part(part) => {
            let length = part.end - part.start;
            let builder = describe(StatusCode::PARTIAL_CONTENT)
                .octets()
                .part(&part, size);
            Ok(builder.reader(blob.read(part), length))
        }
        Wanted::Nothing => Err(Error::RangeNotSatisfiable { size }),
    }
}

impl Service for Registry {
    async fn call(&self, request: Request<()>, caller: Caller) -> Response<Body> {
        let mut entry = Entry::new(&request, caller.clone(), self.metrics.clone());
        let response = self.respond(request, caller, &mut entry).await;
        entry.attach(response)
    }

    fn reject(&self, rejection: Rejection) -> Response<Body> {
        response::failure(&Error::Rejected(rejection), None)
    }
}
