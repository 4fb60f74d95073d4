//! How much of a blob is asked for.

use std::ops::Range;

/// How much of a blob is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// All of it, without a `Range`.
    Whole,
    /// What follows the first bytes.
    Rest {
        /// The first byte that is wanted, counted from the start.
        from: u64,
        /// The size of the whole blob, where known. It makes the range a closed one, which more servers understand;
        /// an answer that states another size is refused.
        total: Option<u64>,
    },
    /// Some bytes in the middle, at least one, of a blob whose size is known. An answer that states another size is
    /// refused.
    Part {
        /// The bytes that are wanted, counted from the start.
        range: Range<u64>,
        /// The size of the whole blob.
        total: u64,
    },
}

impl Extent {
    /// The first byte wanted and the one behind the last, where known, if a range is to be asked for at all.
    pub(super) fn range(&self) -> Option<(u64, Option<u64>)> {
        match self {
            Self::Whole | Self::Rest { from: 0, total: _ } => None,
            Self::Rest { from, total } => Some((*from, *total)),
            Self::Part { range, total: _ } => Some((range.start, Some(range.end))),
        }
    }

    /// The size of the whole blob, where known.
    pub(super) fn total(&self) -> Option<u64> {
        match self {
            Self::Whole => None,
            Self::Rest { from: _, total } => *total,
            Self::Part { range: _, total } => Some(*total),
        }
    }
}

/// The `Range` that asks for what begins at `from` and ends before `end`, where that is known.
pub(super) fn range_header(from: u64, end: Option<u64>) -> String {
    match end.and_then(|end| end.checked_sub(1)) {
        Some(last) if from <= last => format!("bytes={from}-{last}"),
        // Nothing is left: let the server say so.
        Some(_) | None => format!("bytes={from}-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_size_closes_the_range() {
        assert_eq!(range_header(5, Some(10)), "bytes=5-9");
        assert_eq!(range_header(5, None), "bytes=5-");
        let rest = |from, total| Extent::Rest { from, total };
        assert_eq!(Extent::Whole.range(), None);
        assert_eq!(rest(0, Some(10)).range(), None);
        assert_eq!(rest(5, Some(10)).range(), Some((5, Some(10))));
        let part = Extent::Part {
            range: 0..5,
            total: 10,
        };
        assert_eq!(part.range(), Some((0, Some(5))));
    }
}
