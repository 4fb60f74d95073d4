//! Which registries may have what is asked for: one as a rule, several where the request names none and there is more
//! than one default registry. Those are asked in order, and the first that has the repository is remembered.

use std::time::Duration;

use hyper::Response;
use moka::sync::Cache;

use super::error::Error;
use super::log::Entry;
use super::route::{Item, Target};
use super::{Ask, Registry, echo};
use crate::cache;
use crate::http::Body;
use crate::oci::{Namespace, RepositoryName};
use crate::upstream;

/// Most repositories that are remembered, at some hundred bytes each. What is forgotten costs a question that is answered
/// by 404.
const HOMES_MAX: u64 = 10_000;

/// How long a repository is taken to be where it was found. One that turns up in a registry further up the list is
/// served from there after this time.
const HOME_REMEMBERED: Duration = Duration::from_hours(1);

/// Where repositories were found that were asked for by their name alone.
#[derive(Debug)]
pub(super) struct Homes(Cache<RepositoryName, Namespace>);

impl Homes {
    /// Nothing found yet.
    pub(super) fn new() -> Self {
        let found = Cache::builder()
            .max_capacity(HOMES_MAX)
            .time_to_live(HOME_REMEMBERED);
        Self(found.build())
    }

    fn find(&self, name: &RepositoryName) -> Option<Namespace> {
        self.0.get(name)
    }

    /// Takes down where a repository is. What is known stays: that another registry has a tag which its own lacks does
    /// not move all the others.
    fn keep(&self, name: &RepositoryName, namespace: &Namespace) {
        if !self.0.contains_key(name) {
            self.0.insert(name.clone(), namespace.clone());
        }
    }
}

impl Registry {
    /// Answers from the first of the registries that has it. What one of several does not have, or refuses, the next may
    /// have; whatever else happens at one is the answer: an outage does not decide which registry is meant.
    pub(super) async fn find(
        &self,
        ask: Ask,
        target: Target,
        item: &Item,
        entry: &mut Entry,
    ) -> Response<Body> {
        let name = target.unplaced.clone();
        let targets = self.targets(target, item).await;
        let is_search = targets.len() > 1;
        let ask = Ask { is_search, ..ask };
        for target in &targets {
            entry.asked(item.kind(), target, self.upstreams.directory());
            match self.content(&ask, target, item, entry).await {
                Ok(response) => {
                    if let (true, Some(name)) = (is_search && item.proves_repository(), &name) {
                        self.homes.keep(name, &target.namespace);
                    }
                    return response;
                }
                Err(error) if is_search && says_not_here(&error) => {
                    tracing::debug!(registry = %target.namespace, %error, "not here, searching on");
                }
                Err(error) => return entry.failed(&error, Some(echo(target))),
            }
        }
        entry.failed(&Error::Nowhere(item.content()), None)
    }

    /// The targets that may be meant by `target`, in the order in which they are asked: first where the very content was
    /// seen before in a repository of this name. Never empty.
    async fn targets(&self, target: Target, item: &Item) -> Vec<Target> {
        let Some(name) = &target.unplaced else {
            return vec![target];
        };
        let origin = self.origin(name, &target, item).await;
        let directory = self.upstreams.directory();
        let further = directory.further_defaults();
        if further.is_empty() {
            return vec![origin.unwrap_or(target)];
        }
        let home = self.homes.find(name);
        let first = home.iter().filter(|home| further.contains(home));
        let in_order = std::iter::once(directory.default_upstream()).chain(further);
        let mut targets: Vec<Target> = Vec::with_capacity(further.len() + 2);
        targets.extend(origin);
        for namespace in first.chain(in_order) {
            // A name that is too long below `library/` is that of no repository there.
            if targets.iter().all(|known| known.namespace != *namespace)
                && let Ok(repository) = directory.repository_name(namespace, name.clone())
            {
                targets.push(Target {
                    namespace: namespace.clone(),
                    repository,
                    ..target.clone()
                });
            }
        }
        targets
    }

    /// Where content that is named by its digest was seen before in a repository called `name`.
    async fn origin(&self, name: &RepositoryName, target: &Target, item: &Item) -> Option<Target> {
        let digest = item.digest()?;
        let found = self.cache.origin(name, &target.repository, digest);
        let (namespace, repository) = Box::pin(found).await?;
        let is_served = self.upstreams.directory().serves(&namespace);
        is_served.then(|| Target {
            namespace,
            repository,
            ..target.clone()
        })
    }
}

/// Whether `error` says that a registry does not have a repository. Docker Hub answers 401 for those that are not there.
fn says_not_here(error: &Error) -> bool {
    match error {
        Error::Cache(cache::Error::Upstream(error), _) => matches!(
            error,
            upstream::Error::NotFound | upstream::Error::Denied(_)
        ),
        Error::NotOffered(_) => true,
        Error::Cache(
            cache::Error::WrongDigest { .. }
            | cache::Error::Manifest(_)
            | cache::Error::Full { .. }
            | cache::Error::Broken,
            _,
        )
        | Error::Route(_)
        | Error::Access(_)
        | Error::Unauthenticated
        | Error::NotAcceptable
        | Error::Nowhere(_)
        | Error::PreconditionFailed
        | Error::RangeNotSatisfiable { .. }
        | Error::Rejected(_) => false,
    }
}
