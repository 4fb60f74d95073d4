//! What was at hand a moment ago, for requests that come again and again.
//!
//! When a deployment rolls out, a cluster asks the same thing a thousand times in a second. Whatever was decided about the
//! first of these requests holds for the others: who may read it, what it is, whether it is fresh and what the client
//! takes. So it is decided again only after a moment, or when anything has changed. A file is looked at each time.

use std::fs::File;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::{Method, Request};
use tokio::time::Instant;

use super::Registry;
use super::log::{Entry, Subject};
use crate::cache::{Manifest, Outcome};
use crate::http::{Body, Caller, Memo, PreparedHead, Reply, Segment};
use crate::oci::Digest;

/// For how long at most nothing is decided anew. What is in use is told so at least that often, and what changes without
/// a word, as a file with credentials does, counts after that.
const MOMENT: Duration = Duration::from_secs(1);

/// What was decided about a request, and for as long as what it holds.
#[derive(Debug)]
pub(super) struct Recent {
    premises: Premises,
    holds_for: Duration,
    subject: Subject,
    head: Arc<PreparedHead>,
    content: Content,
}

/// What is sent. It is neither kept in memory nor open because of this.
#[derive(Debug)]
enum Content {
    Manifest {
        manifest: Weak<Manifest>,
        /// Its age then, where it has one.
        age: Option<Duration>,
    },
    Blob {
        digest: Digest,
        file: Weak<File>,
        size: u64,
    },
}

/// What a decision depends on beside the request, as it was before it was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Premises {
    /// The registry that decides.
    registry: u64,
    listener: usize,
    /// What [`Cache::changes`](crate::cache::Cache::changes) gives.
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
        let passed = recent.passed(&self.premises(caller))?;
        let wants_head = request.method() == Method::HEAD;
        let (age, body) = match &recent.content {
            Content::Manifest { manifest, age } => {
                let bytes = &manifest.upgrade()?.bytes;
                (age.map(|age| age + passed), full(bytes, wants_head))
            }
            Content::Blob { digest, file, size } => {
                let file = file.upgrade()?;
                if !self.cache.is_still(digest, &file) {
                    return None;
                }
                (None, self.file(*digest, file, *size, wants_head))
            }
        };
        let reply = Reply::prepared(Arc::clone(&recent.head), age, body);
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

    /// All of a blob in a file.
    fn file(&self, digest: Digest, file: Arc<File>, size: u64, wants_head: bool) -> Body {
        if wants_head {
            return Body::empty();
        }
        let segment = Segment {
            file: Arc::clone(&file),
            offset: 0,
            length: size,
        };
        self.told_of_trouble(Body::file(segment), digest, file)
    }
}

fn full(bytes: &Bytes, wants_head: bool) -> Body {
    if wants_head {
        Body::empty()
    } else {
        Body::full(bytes.clone())
    }
}

impl Recent {
    /// That `manifest` is sent under `head`, and stays fresh for `fresh_for`; always, where it has no `age`.
    pub(super) fn manifest(
        (premises, subject): (Premises, Subject),
        head: &Arc<PreparedHead>,
        manifest: &Arc<Manifest>,
        (age, fresh_for): (Option<Duration>, Duration),
    ) -> Self {
        let manifest = Arc::downgrade(manifest);
        Self {
            premises,
            subject,
            holds_for: fresh_for.min(MOMENT),
            head: Arc::clone(head),
            content: Content::Manifest { manifest, age },
        }
    }

    /// That all `size` bytes of the blob `digest` in `file` are sent under `head`.
    pub(super) fn blob(
        (premises, subject): (Premises, Subject),
        head: PreparedHead,
        digest: Digest,
        (file, size): (&Arc<File>, u64),
    ) -> Self {
        let file = Arc::downgrade(file);
        Self {
            premises,
            subject,
            holds_for: MOMENT,
            head: Arc::new(head),
            content: Content::Blob { digest, file, size },
        }
    }

    /// How much time has passed, if all else is as it was.
    fn passed(&self, premises: &Premises) -> Option<Duration> {
        let before = &self.premises;
        // With a clock that was set back nothing is known about what was before.
        let passed = premises.now.duration_since(before.now).ok()?;
        let is_as_it_was = premises.registry == before.registry
            && premises.listener == before.listener
            && premises.changes == before.changes
            && passed < self.holds_for;
        is_as_it_was.then_some(passed)
    }
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, StatusCode};

    use super::*;

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

    fn after(time: Duration) -> Premises {
        Premises {
            now: now() + time,
            ..premises()
        }
    }

    /// A decision of now about what stays fresh for `fresh_for`.
    fn recent(fresh_for: Duration) -> Recent {
        Recent {
            premises: premises(),
            holds_for: fresh_for.min(MOMENT),
            subject: Subject::UNKNOWN,
            head: Arc::new(PreparedHead::new(StatusCode::OK, HeaderMap::new())),
            content: Content::Manifest {
                manifest: Weak::new(),
                age: None,
            },
        }
    }

    #[test]
    fn it_holds_for_a_moment() {
        let recent = recent(Duration::MAX);
        for millis in [0, 1, 999] {
            let passed = Duration::from_millis(millis);
            assert_eq!(recent.passed(&after(passed)), Some(passed));
        }
        assert_eq!(recent.passed(&after(MOMENT)), None);
    }

    #[test]
    fn it_does_not_outlast_what_is_fresh() {
        let fresh_for = Duration::from_millis(10);
        let recent = recent(fresh_for);
        let last = Duration::from_millis(9);
        assert_eq!(recent.passed(&after(last)), Some(last));
        assert_eq!(recent.passed(&after(fresh_for)), None);
    }

    #[test]
    fn nothing_it_was_decided_on_may_be_another() {
        let recent = recent(Duration::MAX);
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
            assert_eq!(recent.passed(&other), None, "{other:?}");
        }
    }
}
