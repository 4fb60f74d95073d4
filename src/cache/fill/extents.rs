//! Which bytes of a blob are there. Pure.

use std::ops::Range;

/// A set of bytes as ranges: ascending, not empty, not touching each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extents(Vec<Range<u64>>);

impl Extents {
    /// Adds `range`, joining what touches it.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|present| present.end < range.start);
        let last = self.0.partition_point(|present| present.start <= range.end);
        let joined = self.0[first..last].iter().fold(range, |joined, present| {
            joined.start.min(present.start)..joined.end.max(present.end)
        });
        self.0.splice(first..last, [joined]);
    }

    /// Up to where bytes are there without a gap, from `offset` on; `offset` itself when that one is missing.
    pub(super) fn end_from(&self, offset: u64) -> u64 {
        let after = self.0.partition_point(|present| present.start <= offset);
        self.0[..after]
            .last()
            .map_or(offset, |present| present.end.max(offset))
    }

    /// Where the next bytes are that are there and begin after `offset`.
    pub(super) fn start_after(&self, offset: u64) -> Option<u64> {
        let after = self.0.partition_point(|present| present.start <= offset);
        self.0.get(after).map(|present| present.start)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_front_grows_over_what_came_early() {
        let mut extents = Extents::default();
        assert_eq!(extents.end_from(0), 0);
        extents.insert(10..20);
        assert_eq!(
            (
                extents.end_from(0),
                extents.end_from(12),
                extents.end_from(20)
            ),
            (0, 20, 20)
        );
        extents.insert(0..10);
        assert_eq!((extents.end_from(0), extents.0.len()), (20, 1));
    }

    proptest! {
        #[test]
        fn ranges_agree_with_a_set_of_bytes(
            ranges in proptest::collection::vec((0u64..40, 0u64..12), 0..12),
            offset in 0u64..60,
        ) {
            let mut extents = Extents::default();
            let mut bytes = BTreeSet::new();
            for (start, length) in ranges {
                extents.insert(start..start + length);
                bytes.extend(start..start + length);
            }
            let end = (offset..1000).find(|byte| !bytes.contains(byte)).expect("there is an end");
            prop_assert_eq!(extents.end_from(offset), end);
            prop_assert!(extents.0.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
