//! What the two ends of a connection inside this process tell each other: the exchange of requests and responses above
//! hyper, and the socket below it.
//!
//! Bytes of files go past hyper. It gets a placeholder of the same length instead, and the file goes into a queue here;
//! when the placeholder comes to be written, the socket sends the bytes of the file.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use crate::http::Segment;

/// Most bytes of a file that are handed over at once. Enough that the work for each does not show; the next stretch is
/// only looked at when this one is sent.
pub(super) const BITE_BYTES: u64 = 512 * 1024;

/// Bytes of files that a connection may send before the others get their turn. One fast reader would otherwise hold a
/// thread for as long as the kernel takes all it is given, which was seen to be 120 ms.
const TURN_BYTES: u64 = BITE_BYTES;

/// What hyper holds in place of bytes of files. It is told by its address, and never read nor written, so that no memory
/// stands behind it.
static PLACEHOLDER: LazyLock<&'static [u8]> = LazyLock::new(|| {
    // A `static` array would be part of the binary's own data.
    let bytes = usize::try_from(BITE_BYTES).unwrap_or(0);
    Box::leak(vec![0; bytes].into_boxed_slice())
});

/// See the module. Both ends run in one task.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Requests whose head was read.
    begun: AtomicU64,
    /// Requests whose response was given to hyper to the end.
    done: AtomicU64,
    /// Somebody waits until all that hyper holds is written.
    flush_wanted: AtomicBool,
    flush_waiter: AtomicWaker,
    /// Whether the socket knows about placeholders.
    takes_files: bool,
    /// For each placeholder that hyper holds, in order, what it stands for.
    segments: Mutex<VecDeque<Queued>>,
    /// Bytes of files sent in this turn.
    sent_in_turn: AtomicU64,
}

/// What a placeholder stands for.
#[derive(Debug)]
struct Queued {
    segment: Segment,
    /// How many bytes of it are sent.
    sent: u64,
}

/// Whether these bytes are no bytes.
pub(super) fn is_placeholder(bytes: &[u8]) -> bool {
    PLACEHOLDER.as_ptr_range().contains(&bytes.as_ptr())
}

impl Line {
    /// A line to a socket that sends the bytes of files itself.
    pub(super) fn with_files() -> Self {
        Self {
            takes_files: true,
            ..Self::default()
        }
    }

    /// A head was read.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Its response was given to hyper to the end.
    pub(super) fn finish(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// How many heads were read.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether a request is still to be answered.
    pub(super) fn is_busy(&self) -> bool {
        self.begun() != self.done.load(Ordering::Relaxed)
    }

    /// Asks to be woken when all that hyper holds is written.
    pub(super) fn want_flush(&self, waker: &Waker) {
        self.flush_waiter.register(waker);
        self.flush_wanted.store(true, Ordering::Relaxed);
    }

    /// Whether all that hyper held at [`Line::want_flush`] is written.
    pub(super) fn is_flushed(&self) -> bool {
        !self.flush_wanted.load(Ordering::Relaxed)
    }

    /// All that hyper holds is written.
    pub(super) fn flushed(&self) {
        if self.flush_wanted.swap(false, Ordering::Relaxed) {
            self.flush_waiter.wake();
        }
    }

    /// Whether bytes of files can go past hyper.
    pub(super) fn takes_files(&self) -> bool {
        self.takes_files
    }

    /// Puts a stretch of a file, of one to [`BITE_BYTES`] bytes, behind all that is to be written. Gives what hyper gets
    /// instead, which must be written next.
    pub(super) fn queue(&self, segment: Segment) -> Bytes {
        let length = usize::try_from(segment.length).unwrap_or(usize::MAX);
        let placeholder = &PLACEHOLDER[..length.min(PLACEHOLDER.len())];
        self.segments().push_back(Queued { segment, sent: 0 });
        Bytes::from_static(placeholder)
    }

    /// Whether hyper holds placeholders.
    pub(super) fn has_segments(&self) -> bool {
        !self.segments().is_empty()
    }

    /// What this placeholder stands for, if it is exactly the unsent part of the one that is due.
    pub(super) fn unsent(&self, placeholder: &[u8]) -> Option<Segment> {
        let segments = self.segments();
        let Queued { segment, sent } = segments.front()?;
        let unsent = segment.after(*sent);
        let start = placeholder
            .as_ptr()
            .addr()
            .checked_sub(PLACEHOLDER.as_ptr().addr())?;
        let agrees = start as u64 == *sent && placeholder.len() as u64 == unsent.length;
        agrees.then_some(unsent)
    }

    /// So many bytes of the segment that is due were sent.
    pub(super) fn sent(&self, bytes: u64) {
        self.sent_in_turn.fetch_add(bytes, Ordering::Relaxed);
        let mut segments = self.segments();
        if let Some(front) = segments.front_mut() {
            front.sent += bytes;
            if front.sent >= front.segment.length {
                segments.pop_front();
            }
        }
    }

    /// The connection's task is polled.
    pub(super) fn begin_turn(&self) {
        self.sent_in_turn.store(0, Ordering::Relaxed);
    }

    /// Whether others are to get their turn before more of a file is sent.
    pub(super) fn had_its_turn(&self) -> bool {
        self.sent_in_turn.load(Ordering::Relaxed) >= TURN_BYTES
    }

    fn segments(&self) -> MutexGuard<'_, VecDeque<Queued>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
