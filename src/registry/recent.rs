//! Manifests that were at hand a moment ago, for requests that come again and again.
//!
//! When a deployment rolls out, a cluster asks the same thing a thousand times in a second. Whatever was decided about the
//! first of these requests holds for the others: who may read it, which manifest it is, whether it is fresh and what the
//! client takes. So it is decided again only after a moment, or when anything has changed.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use hyper::{Method, Request};
use tokio::time::Instant;

use super::Registry;
use super::log::{Entry, Subject};
use crate::cache::{Manifest, Outcome};
use crate::http::{Body, Caller, Memo, PreparedHead, Reply};

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
    /// Answers a request that was answered a moment ago.
    pub(super) fn again(
        &self,
        request: &Arc<Request<()>>,
        caller: &Arc<Caller>,
        started: Instant,
    ) -> Option<Reply> {
        let recent = request.extensions().get::<Memo>()?.get::<Recent>()?;
        let reply = recent.again(self.premises(caller), request.method() == Method::HEAD)?;
        let entry = self.hit(request, caller, recent.subject.clone(), started);
        Some(entry.attach(reply))
    }

    /// What holds now for what `caller` asks for.
    pub(super) fn premises(&self, caller: &Caller) -> Premises {
        Premises {
            registry: self.serial,
            listener: caller.listener,
            changes: self.cache.changes(),
            now: self.cache.now(),
        }
    }

    /// What is said in the log of a request for what is here.
    pub(super) fn hit(
        &self,
        request: &Arc<Request<()>>,
        caller: &Arc<Caller>,
        subject: Subject,
        started: Instant,
    ) -> Entry {
        let (request, caller) = (Arc::clone(request), Arc::clone(caller));
        let mut entry = Entry::new(request, caller, started, self.metrics.clone());
        entry.asked(subject);
        entry.came(Outcome::Hit);
        entry
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

    /// The same answer again, if all is as it was.
    fn again(&self, premises: Premises, wants_head: bool) -> Option<Reply> {
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
        Some(Reply::prepared(Arc::clone(&self.head), age, body))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::{HeaderMap, StatusCode};

    use super::*;
    use crate::oci::{Algorithm, Descriptor, Digest};

    const AGE: Duration = Duration::from_secs(60);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
    }

    fn premises() -> Premises {
        Premises {
            registry: 1,
            listener: 2,
            changes: 3,
            now: now(),
        }
    }

    fn manifest() -> Arc<Manifest> {
        let bytes = Bytes::from_static(b"{}");
        let descriptor = Descriptor {
            media_type: "application/vnd.oci.image.index.v1+json"
                .parse()
                .expect("a media type"),
            digest: Digest::of(Algorithm::Sha256, &bytes),
            size: 2,
        };
        Arc::new(Manifest::of_everybody(descriptor, bytes))
    }

    fn recent(manifest: &Arc<Manifest>, fresh_for: Duration) -> Recent {
        let head = Arc::new(PreparedHead::new(StatusCode::OK, HeaderMap::new()));
        let age = (Some(AGE), fresh_for);
        Recent::new(premises(), Subject::UNKNOWN, manifest, head, age)
    }

    #[track_caller]
    fn check(recent: &Recent, premises: Premises, expected: bool) {
        assert_eq!(recent.again(premises, false).is_some(), expected);
        assert_eq!(recent.again(premises, true).is_some(), expected);
    }

    fn after(time: Duration) -> Premises {
        Premises {
            now: now() + time,
            ..premises()
        }
    }

    #[test]
    fn it_holds_for_a_moment_and_ages() {
        let manifest = manifest();
        let recent = recent(&manifest, Duration::MAX);
        check(&recent, premises(), true);
        let last = Duration::from_millis(999);
        check(&recent, after(last), true);
        check(&recent, after(MOMENT), false);
        let aged = recent.again(after(last), false).expect("it holds");
        let mut head = Vec::new();
        aged.write_head(&mut head);
        assert_eq!(head, b"HTTP/1.1 200 OK\r\nage: 60\r\n");
        assert_eq!(aged.body().length(), Some(2));
        let head = recent.again(premises(), true).expect("it holds");
        assert_eq!(head.body().length(), Some(0));
    }

    #[test]
    fn it_does_not_outlast_what_is_fresh() {
        let manifest = manifest();
        let recent = recent(&manifest, Duration::from_millis(10));
        check(&recent, after(Duration::from_millis(9)), true);
        check(&recent, after(Duration::from_millis(10)), false);
    }

    #[test]
    fn nothing_it_was_decided_on_may_be_another() {
        let manifest = manifest();
        let recent = recent(&manifest, Duration::MAX);
        for other in [
            Premises {
                registry: 0,
                ..premises()
            },
            Premises {
                listener: 0,
                ..premises()
            },
            Premises {
                changes: 4,
                ..premises()
            },
            Premises {
                now: now() - Duration::from_nanos(1),
                ..premises()
            },
        ] {
            check(&recent, other, false);
        }
        drop(manifest);
        check(&recent, premises(), false);
    }
}
