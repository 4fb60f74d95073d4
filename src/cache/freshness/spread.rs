//! Lets tags that were pulled in the same moment not all be asked for in the same moment again.
//!
//! A cluster pulls a hundred tags in one second, when it is upgraded. Did they all live equally long, it would ask for
//! all hundred in one second a quarter of an hour later, and again after that. So each lives a little shorter than its
//! ttl, by a share of its own that does not change: a lifetime that changed with every look would be over at the
//! shortest of them. Never longer: a ttl is a promise. The shares are other ones in every process, so that two mirrors
//! in front of one registry do not meet there either.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::time::Duration;

/// A lifetime is cut by less than one part in this many.
const CUT_PART: u32 = 10;

/// Gives every tag its share.
#[derive(Debug, Clone, Default)]
pub(in crate::cache) struct Spread(RandomState);

/// By how much a lifetime is cut: from not at all to almost a tenth, in 1/65536 of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) struct Early(u16);

impl Spread {
    /// The share of `key`.
    pub(in crate::cache) fn of(&self, key: &impl Hash) -> Early {
        // Any bits of a hash are as good as any.
        let [one, other, ..] = self.0.hash_one(key).to_le_bytes();
        Early(u16::from_le_bytes([one, other]))
    }
}

impl Early {
    /// Not at all.
    pub(in crate::cache) const NOT: Self = Self(0);

    /// What is left of `ttl`.
    pub(in crate::cache) fn cut(self, ttl: Duration) -> Duration {
        let most = ttl / CUT_PART;
        ttl.saturating_sub(most / (u32::from(u16::MAX) + 1) * u32::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const TTL: Duration = Duration::from_mins(15);

    impl Early {
        /// Any.
        pub(in crate::cache) fn of(share: u16) -> Self {
            Self(share)
        }
    }

    #[test]
    fn a_lifetime_is_cut_by_less_than_a_tenth() {
        assert_eq!(Early::NOT.cut(TTL), TTL);
        let least = Early::of(u16::MAX).cut(TTL);
        assert!(least > TTL * 9 / 10 && least < TTL * 91 / 100, "{least:?}");
        assert_eq!(Early::of(u16::MAX).cut(Duration::ZERO), Duration::ZERO);
        let ever = Duration::from_hours(100 * 365 * 24);
        assert!(Early::of(u16::MAX).cut(ever) > ever * 9 / 10);
    }

    #[test]
    fn tags_are_spread_and_each_keeps_its_place() {
        let spread = Spread::default();
        let lifetimes = || (0..100).map(|tag| spread.of(&tag).cut(TTL).as_secs());
        assert!(lifetimes().eq(lifetimes()));
        let seconds: HashSet<_> = lifetimes().collect();
        assert!(seconds.len() > 30, "of 90: {}", seconds.len());
    }
}
