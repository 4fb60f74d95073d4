//! What the two ends of a connection inside this process tell each other: the exchange of requests and responses above
//! hyper, and the socket below it.
//!
//! Bytes of files go past hyper. It gets a placeholder of the same length instead, and the file goes into a queue here;
//! when the placeholder comes to be written, the socket sends the bytes of the file.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use super::reads::Reads;
use crate::http::Segment;
use crate::metrics::Metrics;

/// Most bytes of a file that are handed over at once. Enough that the work for each does not show; the next stretch is
/// only looked at when this one is sent.
pub(super) const BITE_BYTES: u64 = MOST as u64;

/// Bytes of files that a connection may send before the others get their turn. One fast reader would otherwise hold a
/// thread for as long as the kernel takes all it is given, which was seen to be 120 ms.
const TURN_BYTES: u64 = BITE_BYTES;

/// What hyper holds in place of bytes of files: a part of this, told by its address. It is never read nor written, so
/// that no memory stands behind it.
static PLACEHOLDERS: LazyLock<&'static [u8]> = LazyLock::new(|| {
    // A `static` array would be part of the binary's own data.
    Box::leak(vec![0; 2 * MOST].into_boxed_slice())
});

/// The longest placeholder.
const MOST: usize = 512 * 1024;

/// From the start of one placeholder to the start of the next, so that neither is taken for the other.
const STEP: usize = 64;

/// See the module. Both ends run in one task.
#[derive(Debug)]
pub(super) struct Line {
    /// Reads for all connections.
    pub(super) reads: Reads,
    pub(super) metrics: Metrics,
    /// Requests whose head was read.
    begun: AtomicU64,
    /// Requests whose response was given to hyper to the end.
    done: AtomicU64,
    /// How many were begun when all was answered and written last.
    flushed_at: AtomicU64,
    /// How many were begun when hyper got the connection last.
    handed_over_at: AtomicU64,
    /// The connection takes no request after the one that is being answered: what follows may be a body.
    is_last: AtomicBool,
    /// Somebody waits until all that hyper holds is written.
    flush_wanted: AtomicBool,
    flush_waiter: AtomicWaker,
    /// Whether the socket knows about placeholders.
    takes_files: bool,
    queue: Mutex<Queue>,
    /// How many it holds.
    queued: AtomicUsize,
    /// A file did not have the bytes it was to have.
    file_failed: AtomicBool,
    /// Bytes of files sent in this turn.
    sent_in_turn: AtomicU64,
}

/// For each placeholder that hyper holds, in order, what it stands for.
#[derive(Debug, Default)]
struct Queue {
    segments: VecDeque<Queued>,
    /// Where the next placeholder starts among [`PLACEHOLDERS`].
    start: usize,
}

/// What a placeholder stands for.
#[derive(Debug)]
struct Queued {
    segment: Segment,
    /// Where the placeholder starts among [`PLACEHOLDERS`].
    start: usize,
    /// How many bytes of it are sent.
    sent: u64,
    /// Whether more of the same file follows at once.
    goes_on: bool,
}

/// What is due: bytes of a file that are still to be sent.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) segment: Segment,
    /// Whether more of the same file follows at once.
    pub(super) goes_on: bool,
}

/// Adds to a number that is changed in one task alone, so that nothing comes between.
fn add(number: &AtomicU64, by: u64) {
    number.store(number.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

/// Whether these bytes are no bytes.
pub(super) fn is_placeholder(bytes: &[u8]) -> bool {
    PLACEHOLDERS.as_ptr_range().contains(&bytes.as_ptr())
}

impl Line {
    /// A line to a socket that sends the bytes of files itself if it `takes_files`.
    pub(super) fn new(takes_files: bool, reads: Reads, metrics: Metrics) -> Self {
        Self {
            reads,
            metrics,
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            flushed_at: AtomicU64::new(0),
            handed_over_at: AtomicU64::new(0),
            is_last: AtomicBool::new(false),
            flush_wanted: AtomicBool::new(false),
            flush_waiter: AtomicWaker::new(),
            takes_files,
            queue: Mutex::default(),
            queued: AtomicUsize::new(0),
            file_failed: AtomicBool::new(false),
            sent_in_turn: AtomicU64::new(0),
        }
    }

    /// A head was read.
    pub(super) fn begin(&self) {
        add(&self.begun, 1);
    }

    /// Its response was given to hyper to the end.
    pub(super) fn finish(&self) {
        add(&self.done, 1);
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

    /// No request is taken after the one that is being answered.
    pub(super) fn ends(&self) {
        self.is_last.store(true, Ordering::Relaxed);
    }

    /// hyper gets the connection.
    pub(super) fn hand_over(&self) {
        self.handed_over_at.store(self.begun(), Ordering::Relaxed);
    }

    /// Whether hyper has read a request, and all that it has read is answered and written. Never where there is to be no
    /// other: hyper closes that connection, and nobody is to read on.
    pub(super) fn has_come_to_rest(&self) -> bool {
        if self.is_last.load(Ordering::Relaxed) {
            return false;
        }
        let begun = self.begun();
        let has_begun = begun != self.handed_over_at.load(Ordering::Relaxed);
        has_begun && !self.is_busy() && begun == self.flushed_at.load(Ordering::Relaxed)
    }

    /// All that hyper holds is written.
    pub(super) fn flushed(&self) {
        if !self.is_busy() {
            self.flushed_at.store(self.begun(), Ordering::Relaxed);
        }
        if !self.is_flushed() {
            self.flush_wanted.store(false, Ordering::Relaxed);
            self.flush_waiter.wake();
        }
    }

    /// Whether bytes of files can go past hyper.
    pub(super) fn takes_files(&self) -> bool {
        self.takes_files
    }

    /// Puts a stretch of a file, of one to [`BITE_BYTES`] bytes, behind all that is to be written; more of the file follows
    /// at once if it `goes_on`. Gives what hyper gets instead, which must be written next.
    pub(super) fn queue(&self, segment: Segment, goes_on: bool) -> Bytes {
        let mut queue = self.lock();
        let start = queue.start;
        queue.start = (start + STEP) % MOST;
        let length = usize::try_from(segment.length).map_or(MOST, |length| length.min(MOST));
        queue.segments.push_back(Queued {
            segment,
            start,
            sent: 0,
            goes_on,
        });
        self.queued.store(queue.segments.len(), Ordering::Relaxed);
        Bytes::from_static(&PLACEHOLDERS[start..start + length])
    }

    /// Whether hyper holds placeholders.
    pub(super) fn has_segments(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > 0
    }

    /// What this placeholder stands for, if it is exactly the unsent part of the one that is due.
    pub(super) fn due(&self, placeholder: &[u8]) -> Option<Due> {
        let queue = self.lock();
        let Queued {
            segment,
            start,
            sent,
            goes_on,
        } = queue.segments.front()?;
        let (unsent, goes_on) = (segment.after(*sent), *goes_on);
        let base = PLACEHOLDERS.as_ptr().addr();
        let at = placeholder.as_ptr().addr().checked_sub(base)?;
        let agrees = at as u64 == *start as u64 + sent && placeholder.len() as u64 == unsent.length;
        agrees.then_some(Due {
            segment: unsent,
            goes_on,
        })
    }

    /// So many bytes of the segment that is due were sent.
    pub(super) fn sent(&self, bytes: u64) {
        add(&self.sent_in_turn, bytes);
        let mut queue = self.lock();
        if let Some(front) = queue.segments.front_mut() {
            front.sent += bytes;
            if front.sent >= front.segment.length {
                queue.segments.pop_front();
            }
        }
        self.queued.store(queue.segments.len(), Ordering::Relaxed);
    }

    /// The file of the segment that is due does not have its bytes.
    pub(super) fn fail(&self) {
        self.file_failed.store(true, Ordering::Relaxed);
    }

    /// Whether it is for a file that the connection breaks.
    pub(super) fn has_failed(&self) -> bool {
        self.file_failed.load(Ordering::Relaxed)
    }

    /// The connection's task is polled.
    pub(super) fn begin_turn(&self) {
        self.sent_in_turn.store(0, Ordering::Relaxed);
    }

    /// Whether others are to get their turn before more of a file is sent.
    pub(super) fn had_its_turn(&self) -> bool {
        self.sent_in_turn.load(Ordering::Relaxed) >= TURN_BYTES
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
