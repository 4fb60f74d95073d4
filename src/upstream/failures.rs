//! What is said of several endpoints that were asked in vain.

use super::Error;

/// What those said that were asked so far.
#[derive(Default)]
pub(super) struct Failures(pub(super) Option<Error>);

impl Failures {
    /// One more endpoint says this.
    pub(super) fn add(&mut self, error: Error) {
        // The first trouble is kept, over every "not found": what one endpoint lacks, the troubled one may have. A limit
        // is better still: it says when to come back.
        let is_better = match &self.0 {
            Some(Error::RateLimited { .. }) => false,
            Some(kept) if kept.is_trouble() => matches!(error, Error::RateLimited { .. }),
            Some(_) | None => true,
        };
        if is_better {
            self.0 = Some(error);
        }
    }

    /// `NotFound` only if every endpoint said so.
    pub(super) fn worst(self) -> Error {
        self.0.unwrap_or(Error::NotFound)
    }
}
