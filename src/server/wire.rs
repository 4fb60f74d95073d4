//! How bytes get onto the network: what the kernel can do beyond plain writes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::http::Segment;

/// A connection that takes bytes straight from files.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// Sends these bytes as far as there is room, and keeps them from leaving alone: more follow at once.
    fn poll_send_more(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// Keeps bytes that do not fill a packet from leaving until more come, or it is told to let them go. Forgotten, it would
    /// hold the last ones for 200 ms (tcp(7), `TCP_CORK`).
    fn cork(&self, is_corked: bool);

    /// Sends the bytes of a stretch of a file as far as there is room; 0 when the file ends before it. Whether an error
    /// is the file's says [`is_of_file`].
    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        segment: &Segment,
    ) -> Poll<io::Result<usize>>;
}

/// Whether sending failed for the file that was to be read, and not for the client, who has left or takes nothing.
/// sendfile(2) has one error for both.
pub(super) fn is_of_file(error: &io::Error) -> bool {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return true;
    }
    matches!(
        Errno::from_io_error(error),
        // The disk does not give it; a network file system has lost it; its checksum or the file system's own records
        // are wrong (ext4 and XFS say these two).
        Some(Errno::IO | Errno::STALE | Errno::BADMSG | Errno::UCLEAN)
    )
}

impl Wire for TcpStream {
    fn poll_send_more(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_send(self, cx, || {
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            let mut no_control = SendAncillaryBuffer::default();
            Ok(rustix::net::sendmsg(
                &*self,
                slices,
                &mut no_control,
                flags,
            )?)
        })
    }

    fn cork(&self, is_corked: bool) {
        // All it does is to save packets.
        let _ = rustix::net::sockopt::set_tcp_cork(self, is_corked);
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        segment: &Segment,
    ) -> Poll<io::Result<usize>> {
        let length = usize::try_from(segment.length).unwrap_or(usize::MAX);
        poll_send(self, cx, || {
            let mut offset = segment.offset;
            let sent = rustix::fs::sendfile(&*self, &segment.file, Some(&mut offset), length)?;
            Ok(sent)
        })
    }
}

/// What is encrypted leaves from memory: a [`Line`](super::line::Line) to it takes no files.
impl Wire for TlsStream<TcpStream> {
    fn poll_send_more(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write_vectored(cx, slices)
    }

    fn cork(&self, _: bool) {}

    fn poll_send_file(&mut self, _: &mut Context<'_>, _: &Segment) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// Sends when there is room.
fn poll_send(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    mut send: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_io(Interest::WRITABLE, &mut send) {
            // There was room a moment ago; now the wait begins anew.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => return Poll::Ready(sent),
        }
    }
}
