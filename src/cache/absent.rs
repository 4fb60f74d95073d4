//! What upstream said it does not have, for a moment.
//!
//! Clients that are told 404 ask again at once, by another name or on another node, and a cluster that waits for an
//! image asks in chorus. Only 404 is remembered: a 401 or 403 may be over as soon as somebody logs in.

use std::time::{Duration, SystemTime};

use super::Error;
use crate::clock::Clock;
use crate::oci::{Namespace, Reference, RepositoryName};
use crate::upstream::{self, Holder, Repository};

/// For how long: shorter than anybody takes from a push to the pull that follows it.
const REMEMBERED_FOR: Duration = Duration::from_secs(2);

/// How many are remembered, at some two hundred bytes each. Anybody can ask for things that are not there.
const REMEMBERED_MAX: u64 = 10_000;

/// What was not there. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Absent {
    clock: Clock,
    /// When upstream said so.
    said: moka::sync::Cache<Question, SystemTime>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    namespace: Namespace,
    repository: RepositoryName,
    reference: Reference,
    /// What one is not shown may be there for another.
    holder: Holder,
}

impl Absent {
    /// Nothing was asked for yet.
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            said: moka::sync::Cache::new(REMEMBERED_MAX),
        }
    }

    /// Asks `source` about `reference` by `question`, unless it said just now that it does not have it.
    ///
    /// Cancel-safe as far as `question` is.
    ///
    /// # Errors
    /// Those of `question`.
    pub(super) async fn unless<T>(
        &self,
        source: &Repository,
        reference: &Reference,
        question: impl Future<Output = Result<T, upstream::Error>>,
    ) -> Result<T, Error> {
        let key = Question {
            namespace: source.namespace().clone(),
            repository: source.name().clone(),
            reference: reference.clone(),
            holder: source.holder().clone(),
        };
        // A clock that was set back makes nothing last longer.
        let is_recent = |said| {
            let age = self.clock.now().duration_since(said);
            age.is_ok_and(|age| age < REMEMBERED_FOR)
        };
        if self.said.get(&key).is_some_and(is_recent) {
            return Err(upstream::Error::NotFound.into());
        }
        let answer = question.await;
        if let Err(upstream::Error::NotFound) = &answer {
            self.said.insert(key, self.clock.now());
        }
        Ok(answer?)
    }
}
