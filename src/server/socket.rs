//! A client's socket with its deadlines: hyper has one for heads, none for writing, and takes waiting for the next
//! request and reading its head for one thing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Limits;

/// What the two ends of a connection inside this process tell each other: the exchange of requests and responses, and
/// the socket below hyper. Both run in one task.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Requests whose head was read.
    begun: AtomicU64,
    /// Requests whose response was given to hyper to the end.
    done: AtomicU64,
    /// Somebody waits until all that hyper holds is written.
    flush_wanted: AtomicBool,
    flush_waiter: AtomicWaker,
}

/// A client's socket below hyper.
pub(super) struct Socket {
    stream: TcpStream,
    line: Arc<Line>,
    awaiting: Awaiting,
    /// The number of requests begun when `awaiting` was set: with another, it is of the past.
    awaiting_since: u64,
    read_deadline: Deadline,
    write_deadline: Deadline,
    head_timeout: Duration,
    idle_timeout: Duration,
    write_idle_timeout: Duration,
}

/// What the client is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaiting {
    /// Nothing: we are to answer.
    Nothing,
    /// The first byte of a request.
    Request,
    /// The rest of a head.
    Head,
}

// === impl Line ===

impl Line {
    /// A head was read.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Its response was given to hyper to the end.
    pub(super) fn finish(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
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

    fn flushed(&self) {
        if self.flush_wanted.swap(false, Ordering::Relaxed) {
            self.flush_waiter.wake();
        }
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        self.begun() != self.done.load(Ordering::Relaxed)
    }
}

// === impl Socket ===

impl Socket {
    /// A socket on which the first head is awaited from now on.
    pub(super) fn new(stream: TcpStream, line: Arc<Line>, limits: &Limits) -> Self {
        let mut read_deadline = Deadline::default();
        read_deadline.set(limits.head_timeout);
        Self {
            stream,
            awaiting_since: line.begun(),
            line,
            awaiting: Awaiting::Head,
            read_deadline,
            write_deadline: Deadline::default(),
            head_timeout: limits.head_timeout,
            idle_timeout: limits.idle_timeout,
            write_idle_timeout: limits.write_idle_timeout,
        }
    }

    /// The socket itself, without deadlines.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn await_what(&mut self, awaiting: Awaiting) {
        self.awaiting_since = self.line.begun();
        if self.awaiting == awaiting {
            return;
        }
        self.awaiting = awaiting;
        match awaiting {
            Awaiting::Nothing => self.read_deadline.clear(),
            Awaiting::Request => self.read_deadline.set(self.idle_timeout),
            Awaiting::Head => self.read_deadline.set(self.head_timeout),
        }
    }

    /// Forgets what was awaited before the last request.
    fn refresh(&mut self) {
        if self.line.is_busy() || self.awaiting_since != self.line.begun() {
            self.await_what(Awaiting::Nothing);
        }
    }

    /// Some bytes came.
    fn has_read(&mut self) {
        self.refresh();
        if !self.line.is_busy() {
            self.await_what(Awaiting::Head);
        }
    }

    /// Nothing is to be read: an error once it is too late for it.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.refresh();
        if !self.line.is_busy() && self.awaiting == Awaiting::Nothing {
            self.await_what(Awaiting::Request);
        }
        ready!(self.read_deadline.poll(cx));
        let what = match self.awaiting {
            Awaiting::Nothing => return Poll::Pending,
            Awaiting::Request => "no further request came",
            Awaiting::Head => "the head of the request took too long",
        };
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }

    /// What a write came to, with the deadline for it.
    fn poll_written(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.write_deadline.clear();
            // While the client takes what it asked for, it need not ask again.
            if self.awaiting == Awaiting::Request {
                self.await_what(Awaiting::Nothing);
            }
            return written;
        }
        if !self.write_deadline.is_set() {
            self.write_deadline.set(self.write_idle_timeout);
        }
        ready!(self.write_deadline.poll(cx));
        let what = "the client takes no bytes";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_pending() {
            return self.poll_overdue(cx);
        }
        if buffer.filled().len() > before {
            self.has_read();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.poll_written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes only when it has written all it holds. It does not read again after that if it found nothing to
    /// read while it was busy, so the wait for the next request begins here.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.line.flushed();
        match self.poll_overdue(cx) {
            Poll::Ready(overdue) => Poll::Ready(overdue),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A point in time that moves often and is hardly ever reached: moving it forward does not touch the timer, which
/// looks again when it fires.
#[derive(Debug, Default)]
struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    fn set(&mut self, after: Duration) {
        self.at = Some(Instant::now() + after);
    }

    fn clear(&mut self) {
        self.at = None;
    }

    fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// Ready when the deadline is set and over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}
