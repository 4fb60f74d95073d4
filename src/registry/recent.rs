//! Manifests that were at hand a moment ago, for requests that come again and again.
//!
//! When a deployment rolls out, a cluster asks the same thing a thousand times in a second. Whatever was decided about the
//! first of these requests holds for the others: who may read it, which manifest it is, whether it is fresh and what the
//! client takes. So it is decided again only after a moment, or when anything has changed.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use super::log::Subject;
use super::{Ask, Registry};
use crate::cache::Manifest;
use crate::http::{Body, PreparedHead, Reply};

/// For how long at most nothing is decided anew. What is in use is told so at least that often, and what changes without
/// a word, as a file with credentials does, counts after that.
const MOMENT: Duration = Duration::from_secs(1);

/// What was decided about a request, and for as long as what it holds.
#[derive(Debug)]
pub(super) struct Recent {
    /// The registry that decided.
    registry: u64,
    listener: usize,
    /// What [`Cache::changes`](crate::cache::Cache::changes) gave before.
    changes: u64,
    /// When it was decided.
    since: SystemTime,
    holds_for: Duration,
    subject: Subject,
    /// Not kept in memory for this.
    manifest: Weak<Manifest>,
    head: Arc<PreparedHead>,
    /// The age then, where there is one.
    age: Option<Duration>,
}

/// What a decision depends on beside the request, as it was before it was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Premises {
    registry: u64,
    listener: usize,
    changes: u64,
    now: SystemTime,
}

impl Registry {
    /// What holds now for what `ask` asks for.
    pub(super) fn premises(&self, ask: &Ask) -> Premises {
        Premises {
            registry: self.serial,
            listener: ask.caller.listener,
            changes: self.cache.changes(),
            now: self.cache.now(),
        }
    }
}

impl Recent {
    /// That `manifest` is sent under `head`, and stays fresh for `fresh_for`; always, where it has no `age`.
    pub(super) fn new(
        premises: Premises,
        subject: Subject,
        manifest: &Arc<Manifest>,
        head: Arc<PreparedHead>,
        (age, fresh_for): (Option<Duration>, Duration),
    ) -> Self {
        Self {
            registry: premises.registry,
            listener: premises.listener,
            changes: premises.changes,
            since: premises.now,
            holds_for: fresh_for.min(MOMENT),
            subject,
            manifest: Arc::downgrade(manifest),
            head,
            age,
        }
    }

    /// The same answer again, and what it is about, if all is as it was.
    pub(super) fn again(&self, premises: Premises, wants_head: bool) -> Option<(Reply, &Subject)> {
        let Premises {
            registry,
            listener,
            changes,
            now,
        } = premises;
        // With a clock that was set back nothing is known about what was before.
        let passed = now.duration_since(self.since).ok()?;
        let is_as_it_was = registry == self.registry
            && listener == self.listener
            && changes == self.changes
            && passed < self.holds_for;
        if !is_as_it_was {
            return None;
        }
        let manifest = self.manifest.upgrade()?;
        let body = if wants_head {
            Body::empty()
        } else {
            Body::full(manifest.bytes.clone())
        };
        let age = self.age.map(|age| age + passed);
        let reply = Reply::prepared(Arc::clone(&self.head), age, body);
        Some((reply, &self.subject))
    }
}
