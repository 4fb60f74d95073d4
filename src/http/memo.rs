//! What was found out about a request that comes again and again.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

type Found = Arc<dyn Any + Send + Sync>;

/// Goes along with a request that clients repeat, as one of its extensions: whoever answers it leaves here what need not
/// be found out the next time. Cheap to clone; all clones hold the same.
#[derive(Clone, Default)]
pub struct Memo(Arc<RwLock<Option<Found>>>);

impl Memo {
    /// What was left last, if it is a `T`.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let found = self.0.read().unwrap_or_else(PoisonError::into_inner);
        found.clone()?.downcast().ok()
    }

    /// Leaves `found` in place of whatever was there.
    pub fn set(&self, found: impl Any + Send + Sync) {
        let mut place = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *place = Some(Arc::new(found));
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo").finish_non_exhaustive()
    }
}
