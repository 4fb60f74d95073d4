//! Which registries may have what is asked for: one as a rule, several where the request names none and there is more
//! than one default registry. Those are asked in order, and the first that has the repository is remembered.

use std::collections::VecDeque;

use hyper::Response;

use super::error::Error;
use super::log::{Entry, Subject};
use super::route::{Item, Target};
use super::{Ask, Registry, echo};
use crate::cache::{self, Home};
use crate::http::Body;
use crate::oci::{Namespace, RepositoryName};
use crate::upstream;

/// What one registry has.
pub(super) enum Found {
    /// What was asked for.
    It(Response<Body>),
    /// A list with nothing in it, which is what a registry without the repository says, too.
    EmptyList(Response<Body>),
}

/// The registries that may be meant, in the order in which they are asked.
struct Candidates {
    targets: VecDeque<Target>,
    /// Where the repository was found before.
    home: Option<Home>,
}

impl Candidates {
    /// The one that is meant.
    fn one(target: Target) -> Self {
        Self {
            targets: [target].into(),
            home: None,
        }
    }

    /// Whether the repository was found in the registry of `target`.
    fn are_home(&self, target: &Target) -> bool {
        let mut home = self.home.iter();
        home.any(|home| home.namespace == target.namespace)
    }

    /// Leaves the one where the repository was found before, if it is still to be asked.
    fn leave_home(&mut self) -> bool {
        let home = self.home.take();
        self.targets.retain(|target| {
            home.as_ref()
                .is_some_and(|home| home.namespace == target.namespace)
        });
        !self.targets.is_empty()
    }
}

impl Registry {
    /// Answers from the first of the registries that has it. What one of several does not have, or refuses, the next may
    /// have; whatever else happens at one is the answer: an outage does not decide which registry is meant. Where that
    /// was decided before, it stays so.
    pub(super) async fn find(
        &self,
        ask: Ask,
        target: Target,
        item: &Item,
        entry: &mut Entry,
    ) -> Response<Body> {
        let name = target.unplaced.clone();
        let mut candidates = self.candidates(target, item).await;
        let is_search = candidates.targets.len() > 1;
        let ask = Ask { is_search, ..ask };
        let (mut empty, mut is_stand_in) = (None, false);
        while let Some(target) = candidates.targets.pop_front() {
            let directory = self.upstreams.directory();
            entry.asked(Subject::new(item.kind(), &target, directory));
            match self.content(&ask, &target, item, entry).await {
                Ok(Found::EmptyList(response)) if is_search && !candidates.are_home(&target) => {
                    empty = Some(response);
                }
                Ok(Found::It(response) | Found::EmptyList(response)) => {
                    let is_proven = is_search && !is_stand_in && item.proves_repository();
                    if let (true, Some(name)) = (is_proven, &name) {
                        self.cache.keep_home(name, &target.namespace);
                    }
                    return response;
                }
                Err(error) if is_search && says_not_here(&error) => {
                    tracing::debug!(registry = %target.namespace, %error, "not here, searching on");
                }
                Err(error) if is_search && is_trouble(&error) && candidates.leave_home() => {
                    tracing::debug!(registry = %target.namespace, %error, "asking where it was found before");
                    is_stand_in = true;
                }
                Err(error) => return entry.failed(&error, Some(echo(&target))),
            }
        }
        empty.unwrap_or_else(|| entry.failed(&Error::Nowhere(item.content()), None))
    }

    /// Who may be meant by `target`: first where the very content was seen before in a repository of this name. Never
    /// empty.
    async fn candidates(&self, target: Target, item: &Item) -> Candidates {
        let Some(name) = &target.unplaced else {
            return Candidates::one(target);
        };
        let origin = self.origin(name, &target, item).await;
        let directory = self.upstreams.directory();
        let further = directory.further_defaults();
        if further.is_empty() {
            return Candidates::one(origin.unwrap_or(target));
        }
        let is_listed = |home: &Home| {
            further.contains(&home.namespace) || *directory.default_upstream() == home.namespace
        };
        let home = self.cache.home(name).await.filter(is_listed);
        let first = home.iter().filter(|home| home.is_fresh);
        let first = first.map(|home| &home.namespace);
        let in_order = std::iter::once(directory.default_upstream()).chain(further);
        let mut targets = VecDeque::with_capacity(further.len() + 2);
        targets.extend(origin);
        for namespace in first.chain(in_order) {
            // A name that is too long below `library/` is that of no repository there.
            if targets
                .iter()
                .all(|known: &Target| known.namespace != *namespace)
                && let Ok(repository) = directory.repository_name(namespace, name.clone())
            {
                targets.push_back(Target {
                    namespace: namespace.clone(),
                    repository,
                    ..target.clone()
                });
            }
        }
        Candidates { targets, home }
    }

    /// Where content that is named by its digest was seen before in a repository called `name`.
    async fn origin(&self, name: &RepositoryName, target: &Target, item: &Item) -> Option<Target> {
        let digest = item.digest()?;
        let found = self.cache.origin(name, &target.repository, digest);
        let origin = Box::pin(found).await?;
        self.at_origin(target, origin)
    }

    /// `target` as the repository that `origin` is, if that is served.
    pub(super) fn at_origin(
        &self,
        target: &Target,
        (namespace, repository): (Namespace, RepositoryName),
    ) -> Option<Target> {
        let is_served = self.upstreams.directory().serves(&namespace);
        is_served.then(|| Target {
            namespace,
            repository,
            ..target.clone()
        })
    }
}

/// Whether a registry may have it all the same.
fn is_trouble(error: &Error) -> bool {
    match error {
        Error::Cache(error, _) => error.is_trouble(),
        Error::Route(_)
        | Error::Access(_)
        | Error::Unauthenticated
        | Error::NotOffered(_)
        | Error::NotAcceptable
        | Error::Nowhere(_)
        | Error::PreconditionFailed
        | Error::RangeNotSatisfiable { .. }
        | Error::TooMuch
        | Error::Rejected(_) => false,
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
        | Error::TooMuch
        | Error::Rejected(_) => false,
    }
}
