//! How much the cache may take.

use super::{Limit, Reason};
use crate::storage::Space;

/// What the operator lets the cache have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// How much it may take.
    pub max_size: Amount,
    /// How much of the file system stays free, whoever uses the rest.
    pub min_free: Amount,
}

/// A part of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of it.
    Percent(u8),
}

impl Amount {
    /// In bytes, of a file system of `total` bytes.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => total / 100 * u64::from(percent),
        }
    }
}

impl Budget {
    /// The same in bytes alone, for those who add to a cache beside the mirror.
    pub(in crate::cache) fn bytes(self, space: Space, taken: u64) -> u64 {
        self.limit(space, taken).bytes
    }

    /// How much the cache may take on a file system with so much space, of which it has `taken` so much.
    pub(super) fn limit(self, space: Space, taken: u64) -> Limit {
        let max_size = self.max_size.of(space.total);
        let floor = self.min_free.of(space.total);
        let leaving_room = taken.saturating_add(space.available).saturating_sub(floor);
        if leaving_room < max_size {
            Limit {
                bytes: leaving_room,
                reason: Reason::MinFree,
            }
        } else {
            Limit {
                bytes: max_size,
                reason: Reason::MaxSize,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(budget: Budget, available: u64, taken: u64, bytes: u64, reason: Reason) {
        let space = Space {
            total: 1000,
            available,
        };
        let limit = budget.limit(space, taken);
        assert_eq!((limit.bytes, limit.reason), (bytes, reason));
    }

    #[test]
    fn the_smaller_of_both_bounds_counts() {
        let budget = Budget {
            max_size: Amount::Percent(80),
            min_free: Amount::Bytes(150),
        };
        check(budget, 1000, 0, 800, Reason::MaxSize);
        check(budget, 900, 0, 750, Reason::MinFree);
        check(budget, 150, 700, 700, Reason::MinFree);
        // Others have taken what was to stay free: the cache gives way.
        check(budget, 50, 700, 600, Reason::MinFree);
        check(budget, 0, 100, 0, Reason::MinFree);
    }
}
