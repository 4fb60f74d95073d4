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
mod range;
mod response;

mod error;
use error::Error;

mod content;
mod lists;
mod source;

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
use hyper::{HeaderMap, Method, Request, Response};

use crate::access::{PasswordFile, Rules};
use crate::cache::Cache;
use crate::http::{Answer, Body, Caller, Shares};
use crate::metrics::Metrics;
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
    fn answer(self: &Arc<Self>, request: Request<()>, caller: Caller) -> Answer {
        let mut entry = Entry::new(&request, caller.clone(), self.metrics.clone());
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
                let response = entry.failed(&error.into(), asked.as_ref());
                return Answer::Here(entry.attach(response));
            }
        };
        let ask = Ask {
            head: parts.method == Method::HEAD,
            headers: parts.headers,
            caller,
            is_search: false,
            kept: None,
        };
        let this = Arc::clone(self);
        match route {
            Route::Base { namespace } => Answer::later(async move {
                let response = match this.welcome(&ask, namespace.as_ref()).await {
                    Ok(()) => response::base(namespace.as_ref()),
                    Err(error) => entry.failed(&error, namespace.as_ref()),
                };
                entry.attach(response)
            }),
            Route::Content(target, item) => {
                if let Some(response) = self.at_hand(&ask, &target, &item, &mut entry) {
                    return Answer::Here(entry.attach(response));
                }
                let what = parts.uri.path_and_query().cloned();
                Answer::later(async move {
                    let response = this.look_for(ask, what, target, &item, &mut entry).await;
                    entry.attach(response)
                })
            }
        }
    }

    /// Answers with what has to be waited for: as one of the things that the client has under way.
    async fn look_for(
        &self,
        ask: Ask,
        what: Option<PathAndQuery>,
        target: Target,
        item: &Item,
        entry: &mut Entry,
    ) -> Response<Body> {
        entry.asked(item.kind(), &target, self.upstreams.directory());
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
