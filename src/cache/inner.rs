//! The inner loops of a hit, as `cargo bench` reaches them. Part of neither the program nor its documentation.

use std::time::SystemTime;

use super::freshness::{Freshness, Spread, TagTerms, decide};

/// Judges tags.
#[derive(Debug, Default)]
pub struct Judge(Spread);

impl Judge {
    /// Whether a tag of this name that was confirmed at `checked` is fresh.
    pub fn is_fresh(
        &self,
        name: &str,
        checked: SystemTime,
        terms: &TagTerms,
        now: SystemTime,
    ) -> bool {
        decide(checked, terms, self.0.of(&name), now) == Freshness::Fresh
    }
}
