//! The part of a blob that is in the hands of one worker.

use std::ops::Range;

use super::Fill;
use super::plan::RunId;

/// Shortest run, in bytes. Shorter ones cost a request each for little.
pub(super) const RUN_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// A run that is given back when nobody works on it any more.
pub(super) struct Run<'a> {
    fill: &'a Fill,
    id: RunId,
}

impl<'a> Run<'a> {
    /// The run `id` of `fill`, which its plan has just given out.
    pub(super) fn new(fill: &'a Fill, id: RunId) -> Self {
        Self { fill, id }
    }

    /// What the plan calls it.
    pub(super) fn id(&self) -> RunId {
        self.id
    }

    /// What is still to come of it.
    pub(super) fn left(&self) -> Range<u64> {
        self.fill.plan(|plan| plan.left(self.id))
    }

    /// Whether all of it came.
    pub(super) fn is_through(&self) -> bool {
        self.left().is_empty()
    }

    /// Takes what came up to `end`, to be written; see [`Plan::take`](super::plan::Plan::take).
    pub(super) fn take(&self, end: u64, last: Option<u64>) -> Range<u64> {
        let last = last.unwrap_or(u64::MAX);
        self.fill
            .plan(|plan| plan.take(self.id, end, last, RUN_BYTES_MIN))
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.fill.plan(|plan| plan.release(self.id));
    }
}
