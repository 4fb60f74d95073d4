//! What comes of a stream at a time, and the part of it that is wanted.

use std::ops::Range;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::giver::Stream;
use crate::upstream;

/// How many bytes are gathered into one write. Larger is not faster: measured 1.73 CPU seconds per GiB at 256 KiB,
/// 2.09 at 1 MiB.
const WRITE_BYTES: usize = 256 * 1024;

/// What a source gave without making us wait, and its end where it came to one.
pub(super) struct Gathered {
    pub(super) chunks: Vec<Bytes>,
    pub(super) bytes: u64,
    pub(super) end: Option<Result<(), upstream::Error>>,
}

/// Waits for the next bytes, and takes along what is there already: a slow source is passed on at once, a fast one in
/// large writes. Cancelled, what had come is lost.
pub(super) async fn gather(stream: &mut Stream) -> Gathered {
    let mut gathered = Gathered {
        chunks: Vec::new(),
        bytes: 0,
        end: None,
    };
    let mut next = Some(stream.chunk().await);
    while let Some(chunk) = next {
        match chunk {
            Ok(Some(chunk)) => {
                gathered.bytes += chunk.len() as u64;
                gathered.chunks.push(chunk);
            }
            Ok(None) => gathered.end = Some(Ok(())),
            Err(error) => gathered.end = Some(Err(error)),
        }
        let more = gathered.end.is_none() && gathered.bytes < WRITE_BYTES as u64;
        next = if more {
            stream.chunk().now_or_never()
        } else {
            None
        };
    }
    gathered
}

/// The parts of `chunks`, which stand at `offset`, that lie in `wanted`.
pub(super) fn cut(chunks: Vec<Bytes>, offset: u64, wanted: &Range<u64>) -> Vec<Bytes> {
    let mut at = offset;
    let within = |chunk: Bytes| {
        let here = at..at + chunk.len() as u64;
        at = here.end;
        let start = wanted.start.clamp(here.start, here.end) - here.start;
        let end = wanted.end.clamp(here.start, here.end) - here.start;
        // Both lie within the chunk, so they fit.
        let index = |place: u64| usize::try_from(place).unwrap_or(chunk.len());
        chunk.slice(index(start)..index(end.max(start)))
    };
    chunks
        .into_iter()
        .map(within)
        .filter(|chunk| !chunk.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_is_kept() {
        let chunks = || vec![Bytes::from_static(b"0123"), Bytes::from_static(b"456789")];
        let check = |wanted: Range<u64>, expected: &[&str]| {
            let kept = cut(chunks(), 100, &wanted);
            assert_eq!(kept, expected, "{wanted:?}");
        };
        check(0..1000, &["0123", "456789"]);
        check(102..107, &["23", "456"]);
        check(104..110, &["456789"]);
        check(0..50, &[]);
        check(110..200, &[]);
        check(103..103, &[]);
    }
}
