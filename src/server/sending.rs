//! A response on its way to the socket, where hyper does not send it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use hyper::body::Body as _;
use tokio::io::AsyncWrite;

use super::outgoing::Outgoing;
use super::socket::Socket;
use super::wire::Wire;

/// A response of known length, and how far it is sent.
pub(super) struct Sending {
    head: Vec<u8>,
    /// How much of it is sent.
    head_sent: usize,
    /// What is left of the bytes that the body gave last.
    frame: Bytes,
    body: Outgoing,
}

impl Sending {
    /// The response with this head, as it goes out, and this body.
    pub(super) fn new(head: Vec<u8>, body: Outgoing) -> Self {
        Self {
            head,
            head_sent: 0,
            frame: Bytes::new(),
            body,
        }
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// When the client takes no more, or the body breaks off. Then all that there was of it is sent.
    pub(super) fn poll<W: Wire>(
        &mut self,
        socket: &mut Socket<W>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let is_given = self.frame.is_empty() && self.body.is_end_stream();
            let next = if self.frame.is_empty() && !is_given {
                self.poll_frame(cx)?
            } else {
                Poll::Ready(())
            };
            if !self.is_written() {
                ready!(self.poll_write(socket, cx))?;
            } else if next.is_pending() {
                // Whoever gives the body may wait for this.
                ready!(Pin::new(&mut *socket).poll_flush(cx))?;
                return Poll::Pending;
            } else if is_given {
                return Pin::new(socket).poll_flush(cx);
            }
        }
    }

    /// Takes what comes next of the body.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Some(Ok(frame))) => {
                self.frame = frame.into_data().unwrap_or_default();
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Some(Err(error))) => Err(io::Error::other(error)),
            Poll::Ready(None) => Ok(Poll::Ready(())),
        }
    }

    fn is_written(&self) -> bool {
        self.head_sent == self.head.len() && self.frame.is_empty()
    }

    fn poll_write<W: Wire>(
        &mut self,
        socket: &mut Socket<W>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let head = &self.head[self.head_sent..];
        let slices = [IoSlice::new(head), IoSlice::new(&self.frame)];
        // An empty one is none.
        let slices = match (head.is_empty(), self.frame.is_empty()) {
            (true, _) => &slices[1..],
            (false, true) => &slices[..1],
            (false, false) => &slices[..],
        };
        let written = ready!(Pin::new(socket).poll_write_vectored(cx, slices))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_head = written.min(head.len());
        self.head_sent += of_head;
        self.frame.advance(written - of_head);
        Poll::Ready(Ok(()))
    }
}
