//! A network that takes what it likes of what is written to it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::Segment;
use crate::server::wire::Wire;

/// What a read or a write comes to where there is no reason for less, in bytes.
const A_GOOD_DEAL: usize = 20_000;

/// What becomes of one read, write or flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It comes to this many bytes at most, and at least one.
    Takes(usize),
    /// A read comes to the rest of one request, a write to a good deal.
    Request,
    /// Not now.
    Waits,
    /// It fails, for good. A read does not.
    Fails(Fault),
}

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client has left.
    Reset,
    /// No byte is taken, which no socket says.
    NoBytes,
    /// The file is shorter than it was. Bytes from memory are taken, one by one.
    FileEnds,
    /// The disk does not give it. Bytes from memory are taken, one by one.
    Disk,
}

/// Its moods, one after the other and from the start again.
#[derive(Debug, Clone)]
pub struct Moods {
    moods: Vec<Mood>,
    next: usize,
}

/// The network: requests come from it, and what is written to it is kept.
#[derive(Debug)]
pub(in crate::server) struct Moody {
    requests: VecDeque<u8>,
    reads: Moods,
    writes: Moods,
    flushes: Moods,
    received: Arc<Mutex<Received>>,
}

/// What the client has of it.
#[derive(Debug, Default)]
pub(in crate::server) struct Received {
    pub(in crate::server) bytes: Vec<u8>,
    /// Whether the last bytes would wait for more.
    pub(in crate::server) is_corked: bool,
    /// Whether anything failed.
    pub(in crate::server) is_cut: bool,
}

/// What the client has of it, still being written or not.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Client(Arc<Mutex<Received>>);

// === impl Moods ===

impl Moods {
    /// These, and one that takes a good deal, so that all is taken sooner or later, and not byte by byte.
    pub fn new(moods: impl IntoIterator<Item = Mood>) -> Self {
        Self::only(moods.into_iter().chain([Mood::Takes(A_GOOD_DEAL)]))
    }

    pub(in crate::server) fn only(moods: impl IntoIterator<Item = Mood>) -> Self {
        Self {
            moods: moods.into_iter().collect(),
            next: 0,
        }
    }

    fn now(&self) -> Mood {
        self.moods[self.next % self.moods.len()]
    }

    fn pass(&mut self) -> Mood {
        let now = self.now();
        self.next += 1;
        now
    }
}

impl Mood {
    /// Most bytes that come of it.
    fn most(self) -> usize {
        match self {
            Self::Takes(bytes) => bytes.max(1),
            Self::Request => A_GOOD_DEAL,
            Self::Waits | Self::Fails(_) => 1,
        }
    }
}

// === impl Client ===

impl Client {
    pub(in crate::server) fn received(&self) -> MutexGuard<'_, Received> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Moody ===

impl Moody {
    /// A network from which `requests` come, and its far end.
    pub(in crate::server) fn new(requests: &str, reads: Moods, writes: Moods) -> (Self, Client) {
        let client = Client::default();
        let moody = Self {
            requests: requests.bytes().collect(),
            reads,
            flushes: writes.clone(),
            writes,
            received: Arc::clone(&client.0),
        };
        (moody, client)
    }

    fn accept(&mut self, cx: &Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mood = self.writes.pass();
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        match mood {
            Mood::Waits => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Mood::Fails(Fault::Reset) => {
                received.is_cut = true;
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            Mood::Fails(Fault::NoBytes) => {
                received.is_cut = true;
                Poll::Ready(Ok(0))
            }
            Mood::Takes(_) | Mood::Request | Mood::Fails(Fault::FileEnds | Fault::Disk) => {
                let mut left = mood.most();
                let before = received.bytes.len();
                for slice in slices {
                    let taken = &slice[..slice.len().min(left)];
                    received.bytes.extend_from_slice(taken);
                    left -= taken.len();
                }
                Poll::Ready(Ok(received.bytes.len() - before))
            }
        }
    }
}

impl AsyncRead for Moody {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.requests.is_empty() {
            return Poll::Pending;
        }
        let mood = self.reads.pass();
        if mood == Mood::Waits {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let all = self.requests.make_contiguous();
        let end = all.windows(4).position(|it| it == b"\r\n\r\n");
        let n = match (mood, end) {
            (Mood::Request, Some(end)) => end + 4,
            _ => all.len().min(mood.most()),
        };
        let n = n.min(buffer.remaining());
        buffer.put_slice(&self.requests.drain(..n).collect::<Vec<u8>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Moody {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.accept(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.accept(cx, slices)
    }

    /// A socket's is always ready; that of TLS is not.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flushes.pass() == Mood::Waits {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Wire for Moody {
    fn cork(&self, is_corked: bool) {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.is_corked = is_corked;
    }

    fn poll_send_more(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.accept(cx, slices)
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        segment: &Segment,
    ) -> Poll<io::Result<usize>> {
        let mood = self.writes.now();
        let fails = matches!(mood, Mood::Fails(Fault::FileEnds | Fault::Disk));
        if fails {
            let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
            received.is_cut = true;
        }
        if mood == Mood::Fails(Fault::FileEnds) {
            return Poll::Ready(Ok(0));
        }
        if mood == Mood::Fails(Fault::Disk) {
            return Poll::Ready(Err(Errno::IO.into()));
        }
        let length = usize::try_from(segment.length).unwrap();
        let mut bytes = vec![0; length.min(mood.most())];
        let read = segment.file.read_at(&mut bytes, segment.offset).unwrap();
        if read == 0 {
            return Poll::Ready(Ok(0));
        }
        self.accept(cx, &[IoSlice::new(&bytes[..read])])
    }
}
