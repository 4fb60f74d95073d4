//! The API of a registry, read-only: one request, one story.

mod route;
use route::{Inbound, Item, Route, RouteError, Target};

mod known;
use known::KnownRoutes;

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
mod range;
mod response;

mod error;
use error::Error;

mod content;
mod lists;
mod source;

mod log;
use log::{Entry, Subject};

mod recent;
use recent::Recent;

mod clients;
use clients::Clients;

#[doc(hidden)]
pub mod inner;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod trial;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method, Request, Response};
use tokio::time::Instant;

use crate::access::{PasswordFile, Rules};
use crate::cache::Cache;
use crate::http::{Answer, Body, Caller, Memo, Reply, Shares};
use crate::metrics::Metrics;
use crate::oci::Namespace;
use crate::upstream::{Kept, Upstreams};

/// A registry that has what other registries have.
#[derive(Debug)]
pub struct Registry {
    upstreams: Upstreams,
    ways: Ways,
    /// Shared with the bodies that are read from it.
    cache: Arc<Cache>,
    clients: Clients,
    rules: Rules,
    known_routes: KnownRoutes,
    /// Tells it from all other registries of the process.
    serial: u64,
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
    request: Arc<Request<()>>,
    caller: Arc<Caller>,
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
        static SERIAL: AtomicU64 = AtomicU64::new(0);
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
            known_routes: KnownRoutes::default(),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            under_way: Shares::new(requests_max),
            metrics,
        }
    }

    /// Answers with what is at hand.
    fn at_hand(&self, request: &Arc<Request<()>>, caller: &Arc<Caller>) -> Option<Reply> {
        let started = Instant::now();
        if let Some(reply) = self.again(request, caller, started) {
            return Some(reply);
        }
        let ask = Ask::new(request, caller);
        let known = self.known_routes.find(&ask.inbound(), &self.ways);
        let is_known = known.is_some();
        let route = known.or_else(|| self.read_route(&ask).ok())?;
        let Route::Content(target, item) = &*route else {
            return None;
        };
        let reply = self.content_at_hand(&ask, target, item, started)?;
        if !is_known {
            self.known_routes.keep(&ask.inbound(), &self.ways, &route);
        }
        Some(reply)
    }

    /// Routes, decides about access, asks the cache, and answers.
    fn answer(self: &Arc<Self>, request: Arc<Request<()>>, caller: Arc<Caller>) -> Answer {
        let ask = Ask::new(&request, &caller);
        let mut entry = Entry::new(request, caller, Instant::now(), self.metrics.clone());
        let route = match self.read_route(&ask) {
            Ok(route) => route,
            Err(error) => {
                let asked = route::asked(ask.request.uri());
                let response = entry.failed(&error.into(), asked.as_ref());
                return Answer::Here(entry.attach(response).into());
            }
        };
        let this = Arc::clone(self);
        Answer::later(async move {
            let response = match Arc::unwrap_or_clone(route) {
                Route::Base { namespace } => this.greet(&ask, namespace, &mut entry).await,
                Route::Content(target, item) => this.look_for(ask, target, &item, &mut entry).await,
            };
            entry.attach(response).into()
        })
    }

    fn read_route(&self, ask: &Ask) -> Result<Arc<Route>, RouteError> {
        let directory = self.upstreams.directory();
        route::parse(ask.inbound(), &self.ways, directory).map(Arc::new)
    }

    /// Says that this is a registry.
    async fn greet(
        &self,
        ask: &Ask,
        namespace: Option<Namespace>,
        entry: &mut Entry,
    ) -> Response<Body> {
        match self.welcome(ask, namespace.as_ref()).await {
            Ok(()) => response::base(namespace.as_ref()),
            Err(error) => entry.failed(&error, namespace.as_ref()),
        }
    }

    /// Answers with what has to be waited for: as one of the things that the client has under way.
    async fn look_for(
        &self,
        ask: Ask,
        target: Target,
        item: &Item,
        entry: &mut Entry,
    ) -> Response<Body> {
        let directory = self.upstreams.directory();
        entry.asked(Subject::new(item.kind(), &target, directory));
        let what = ask.request.uri().path_and_query().cloned();
        let Some(share) = self.under_way.take(ask.caller.peer.ip(), what) else {
            self.metrics.client_refusal();
            return entry.failed(&Error::TooMuch, Some(echo(&target)));
        };
        let kept = Some(Arc::new(share) as Kept);
        self.find(Ask { kept, ..ask }, target, item, entry).await
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
}

impl Ask {
    fn new(request: &Arc<Request<()>>, caller: &Arc<Caller>) -> Self {
        Self {
            request: Arc::clone(request),
            caller: Arc::clone(caller),
            is_search: false,
            kept: None,
        }
    }

    /// Whether only the head is wanted.
    fn wants_head(&self) -> bool {
        self.request.method() == Method::HEAD
    }

    /// What is kept about the request, if it is one that comes again and again.
    fn memo(&self) -> Option<&Memo> {
        self.request.extensions().get()
    }

    fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// The request as far as it is routed by.
    fn inbound(&self) -> Inbound<'_> {
        Inbound {
            method: self.request.method(),
            target: self.request.uri(),
            door: Door {
                listener: self.caller.listener,
                host: host_of(&self.request),
            },
        }
    }
}

/// The host that the request was sent to. The server has seen to it that header and target agree.
fn host_of(request: &Request<()>) -> Option<&str> {
    let header = request.headers().get(hyper::header::HOST);
    header.and_then(|host| host.to_str().ok()).or_else(|| {
        request
            .uri()
            .authority()
            .map(hyper::http::uri::Authority::as_str)
    })
}

/// The namespace the answer is about: as the client named it, else as it was found.
fn echo(target: &Target) -> &crate::oci::Namespace {
    target.asked.as_ref().unwrap_or(&target.namespace)
}
