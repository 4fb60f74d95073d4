//! A client's socket below hyper, with what hyper lacks: deadlines for all there is to wait for (hyper has one for
//! heads, none for writing, and takes waiting for the next request and reading its head for one thing), and bytes of
//! files that go from the page cache to the network.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Limits;
use super::line::{Due, Line, is_placeholder};
use super::wire::{Wire, is_of_file};

/// A client's socket below hyper.
pub(super) struct Socket<W = TcpStream> {
    stream: W,
    line: Arc<Line>,
    /// What was read and is to be read again.
    unread: Bytes,
    /// See [`Wire::cork`]. Set in the middle of a file alone.
    is_corked: bool,
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

// === impl Socket ===

impl<W: Wire> Socket<W> {
    /// A socket on which the first head is awaited from now on.
    pub(super) fn new(stream: W, line: Arc<Line>, limits: &Limits) -> Self {
        let mut read_deadline = Deadline::default();
        read_deadline.set(limits.head_timeout);
        Self {
            stream,
            awaiting_since: line.begun(),
            line,
            unread: Bytes::new(),
            is_corked: false,
            awaiting: Awaiting::Head,
            read_deadline,
            write_deadline: Deadline::default(),
            head_timeout: limits.head_timeout,
            idle_timeout: limits.idle_timeout,
            write_idle_timeout: limits.write_idle_timeout,
        }
    }

    /// The socket itself, without deadlines.
    pub(super) fn into_stream(self) -> W {
        self.stream
    }

    /// These bytes, read before, are read again, before all that is still to come.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            // Kept, it would hold the memory of all that was read with it.
            return;
        }
        self.unread = if self.unread.is_empty() {
            bytes
        } else {
            // What was put back before, and read in part.
            [&bytes[..], &self.unread[..]].concat().into()
        };
    }

    fn await_what(&mut self, awaiting: Awaiting) {
        self.awaiting_since = self.line.begun();
        if self.awaiting == awaiting {
            return;
        }
        self.awaiting = awaiting;
        match awaiting {
            // Most heads come whole: there is a deadline once one turns out not to have.
            Awaiting::Nothing | Awaiting::Head => self.read_deadline.clear(),
            Awaiting::Request => self.read_deadline.set(self.idle_timeout),
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
        if self.awaiting == Awaiting::Head && !self.read_deadline.is_set() {
            self.read_deadline.set(self.head_timeout);
        }
        ready!(self.read_deadline.poll(cx));
        let what = match self.awaiting {
            Awaiting::Nothing => return Poll::Pending,
            Awaiting::Request => "no further request came",
            Awaiting::Head => "the head of the request took too long",
        };
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }

    /// Writes what hyper shows: bytes as they are, and placeholders as the bytes of the files they stand for. In all
    /// cases of doubt it fails, and with it the connection: a placeholder never reaches the client.
    fn poll_write_shown(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let before = slices.iter().take_while(|it| !is_placeholder(it)).count();
        let Some(placeholder) = slices.get(before) else {
            if self.line.has_segments() {
                return Poll::Ready(Err(disagreement()));
            }
            self.cork(false);
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        };
        let Some(due) = self.line.due(placeholder) else {
            return Poll::Ready(Err(disagreement()));
        };
        if before > 0 {
            return self.stream.poll_send_more(cx, &slices[..before]);
        }
        self.poll_send_file(cx, &due)
    }

    /// A stretch of a file hardly ever fills its last packet; what follows at once does.
    fn cork(&mut self, is_corked: bool) {
        if self.is_corked != is_corked {
            self.stream.cork(is_corked);
            self.is_corked = is_corked;
        }
    }

    fn poll_send_file(&mut self, cx: &mut Context<'_>, due: &Due) -> Poll<io::Result<usize>> {
        let Due { segment, goes_on } = due;
        if self.line.had_its_turn() {
            // Polled once, it has the task woken behind everybody else who is ready, and behind the network; waking it
            // in the usual way would have it polled next.
            let _ = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        }
        if *goes_on {
            self.cork(true);
        }
        let sent = match ready!(self.stream.poll_send_file(cx, segment)) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            sent => sent,
        };
        match &sent {
            Ok(bytes) => {
                self.line.sent(*bytes as u64);
                if !goes_on && *bytes as u64 == segment.length {
                    self.cork(false);
                }
            }
            Err(error) if is_of_file(error) => self.line.fail(),
            Err(_) => {}
        }
        Poll::Ready(sent)
    }

    /// What a write or a flush came to, with the deadline for it.
    fn poll_written<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
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

/// What hyper shows is not what it was given: a bug.
fn disagreement() -> io::Error {
    io::Error::other("the bytes to write are not those of the bodies")
}

impl<W: Wire> AsyncRead for Socket<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let n = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(n));
            self.has_read();
            return Poll::Ready(Ok(()));
        }
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

impl<W: Wire> AsyncWrite for Socket<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Copied by whoever calls this instead of the next, a placeholder could not be told from bytes.
        if self.line.has_segments() {
            return Poll::Ready(Err(disagreement()));
        }
        self.cork(false);
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_write_shown(cx, slices);
        self.poll_written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes only when it has written all it holds. It does not read again after that if it found nothing to
    /// read while it was busy, so the wait for the next request begins here.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // TLS holds bytes of its own, which may find no room. A socket does not, and its deadline is that of the writes.
        if flushed.is_pending() {
            return self.poll_written(flushed, cx);
        }
        ready!(flushed)?;
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
