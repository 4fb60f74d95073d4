//! Counting answers, which happens for each of them: the counters are looked up once, and not one by one.

use std::hash::{Hash, Hasher};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use hashbrown::{Equivalent, HashMap};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

/// How a client's request was answered.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The label of the upstream.
    pub upstream: &'a str,
    /// `blob`, `manifest`, `tag` or the like.
    pub kind: &'static str,
    /// The outcome, or `error`.
    pub result: &'static str,
    /// Where its body came from: `cache`, `shared` or `upstream`; `None` where there was nothing to serve.
    pub source: Option<&'static str>,
    /// How many bytes of that went to the client.
    pub bytes: u64,
    /// From when its head was read until its body had ended.
    pub took: Duration,
}

/// Counters of answers of one kind.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) requests: Counter,
    pub(super) seconds: Histogram,
    pub(super) bytes: Option<Counter>,
}

/// The counters by kind of answer: as many as there are labels, which are bounded.
#[derive(Debug, Default)]
pub(super) struct Answers(RwLock<HashMap<Kept, Tally>>);

/// What tells the kinds apart.
type Labels<'a> = (&'a str, &'static str, &'static str, Option<&'static str>);

/// The same for good.
#[derive(Debug, PartialEq, Eq)]
struct Kept(String, &'static str, &'static str, Option<&'static str>);

impl Kept {
    fn labels(&self) -> Labels<'_> {
        (&self.0, self.1, self.2, self.3)
    }
}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.labels().hash(state);
    }
}

/// As it is looked up.
#[derive(Hash)]
struct Looked<'a>(Labels<'a>);

impl Equivalent<Kept> for Looked<'_> {
    fn equivalent(&self, kept: &Kept) -> bool {
        self.0 == kept.labels()
    }
}

impl Answers {
    /// Counts an answer, by counters that `make` finds where none of its kind was counted before.
    pub(super) fn count(&self, answered: &Answered<'_>, make: impl FnOnce(&Answered<'_>) -> Tally) {
        let Answered {
            upstream,
            kind,
            result,
            source,
            ..
        } = *answered;
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(tally) = known.get(&Looked((upstream, kind, result, source))) {
            tally.count(answered);
            return;
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let kept = Kept(upstream.to_owned(), kind, result, source);
        let tally = known.entry(kept).or_insert_with(|| make(answered));
        tally.count(answered);
    }
}

impl Tally {
    fn count(&self, answered: &Answered<'_>) {
        self.requests.inc();
        self.seconds.observe(answered.took.as_secs_f64());
        if let Some(bytes) = &self.bytes {
            bytes.inc_by(answered.bytes);
        }
    }
}
