//! A hyper that errs about what it was given to write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::AsyncWrite as _;

use super::library::content;
use super::network::{Moods, Moody};
use super::{FILE_BYTES, Library, Limits, Socket, a_line, runtime};

/// What an erring hyper does to a placeholder before it is shown.
#[derive(Debug, Clone, Copy)]
pub enum Slip {
    /// Takes so many bytes more of it for written than were.
    Skips(usize),
    /// Takes some of what was written for unwritten, or makes some up.
    GoesBack(usize),
    /// Wants less of it than there is.
    Shortens(usize),
    /// Copies it.
    Copies,
    /// Forgets it.
    Drops,
    /// Shows the next one in its place.
    Delays,
    /// Shows it by itself, as plain bytes.
    Flattens,
}

/// What hyper is given of one response.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The head. It has no zero.
    pub head: String,
    /// How many bytes of the file follow; at least one, and no more than 64 KiB.
    pub length: u64,
}

impl Slip {
    /// Does it to the first of what is shown, a placeholder. Gives whether that makes any difference.
    fn make(self, shown: &mut VecDeque<(Bytes, usize)>) -> bool {
        let Some((whole, at)) = shown.front().cloned() else {
            return false;
        };
        let left = whole.slice(at..);
        let other = match self {
            Self::Skips(n) => (n > 0 && n < left.len()).then(|| left.slice(n..)),
            Self::GoesBack(n) => at
                .checked_sub(n)
                .filter(|_| n > 0)
                .map(|at| whole.slice(at..)),
            Self::Shortens(n) => (n > 0 && n < left.len()).then(|| left.slice(..left.len() - n)),
            Self::Copies => Some(Bytes::copy_from_slice(&left)),
            Self::Drops => Some(Bytes::from_static(b"next head")),
            Self::Delays => {
                let next = shown.iter().skip(1).position(is_placeholder);
                if let Some(next) = next {
                    shown.swap(0, next + 1);
                }
                return next.is_some();
            }
            // See `slip`: nothing else is shown.
            Self::Flattens => return true,
        };
        let is_made = other.is_some();
        if let Some(other) = other {
            shown[0] = (other, 0);
        }
        is_made
    }
}

/// Whether these are no bytes, as their content tells.
fn is_placeholder((bytes, _): &(Bytes, usize)) -> bool {
    bytes.first() == Some(&0)
}

fn write(socket: &mut Socket<Moody>, slices: &[&[u8]]) -> Poll<io::Result<usize>> {
    let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(socket).poll_write_vectored(&mut cx, &slices)
}

/// Writes these responses one behind the other, as hyper does, over a network of these moods; the first placeholder that
/// is due after `after` writes falls to `made`. Panics unless the write that shows it fails, and every byte until then
/// was right.
///
/// # Panics
/// See above.
pub fn slip(library: &Library, responses: &[Shown], writes: Moods, after: usize, made: Slip) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let line = a_line(true);
    let (moody, client) = Moody::new("", Moods::new([]), writes);
    let mut socket = Socket::new(moody, Arc::clone(&line), &Limits::default());
    let (mut shown, mut expected) = (VecDeque::new(), Vec::new());
    for (n, Shown { head, length }) in responses.iter().enumerate() {
        let offset = (n as u64 * 100_003) % (FILE_BYTES - length);
        shown.push_back((Bytes::from(head.clone()), 0));
        shown.push_back((line.queue(library.segment(offset, *length), false), 0));
        expected.extend_from_slice(head.as_bytes());
        expected.extend(content(offset, *length));
    }
    let mut is_made = false;
    let mut has_failed = false;
    for n in 0.. {
        shown.retain(|(bytes, at)| *at < bytes.len());
        if n >= after && !is_made && shown.front().is_some_and(is_placeholder) {
            is_made = made.make(&mut shown);
        }
        if shown.is_empty() {
            break;
        }
        line.begin_turn();
        let slices: Vec<&[u8]> = shown.iter().map(|(bytes, at)| &bytes[*at..]).collect();
        let written = if is_made && matches!(made, Slip::Flattens) {
            let mut cx = Context::from_waker(Waker::noop());
            Pin::new(&mut socket).poll_write(&mut cx, slices[0])
        } else {
            write(&mut socket, &slices)
        };
        let mut written = match written {
            Poll::Pending => continue,
            Poll::Ready(Ok(written @ 1..)) => written,
            Poll::Ready(Ok(0) | Err(_)) => {
                has_failed = true;
                break;
            }
        };
        assert!(!is_made, "{made:?} was taken for right");
        for (bytes, at) in &mut shown {
            let n = written.min(bytes.len() - *at);
            (*at, written) = (*at + n, written - n);
        }
    }
    let received = client.received();
    assert_eq!(has_failed, is_made || received.is_cut);
    assert!(expected.starts_with(&received.bytes), "wrong bytes");
    assert!(has_failed || received.bytes == expected, "it is whole");
}
