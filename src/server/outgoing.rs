//! A body on its way through hyper, and past it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::line::{BITE_BYTES, Line};
use super::reads::{Residency, residency};
use crate::http::{Body, BodyError, Chunk, Segment};

/// A body as hyper polls it.
///
/// Bytes of files go past hyper where the connection can send them itself and the file system says what is in memory,
/// and are read otherwise. Neither waits for a disk here.
///
/// When a body fails, hyper drops the connection with all it holds, so the failure is kept back until that is written:
/// the client gets every byte there was, and then a clean end.
pub(super) struct Outgoing {
    body: Body,
    /// What is being waited for of a file.
    fetching: Option<Fetching>,
    failure: Option<BodyError>,
    line: Arc<Line>,
}

type Fetching = Pin<Box<dyn Future<Output = io::Result<Fetched>> + Send>>;

/// What came of a file.
enum Fetched {
    /// It is in memory now, and can be sent from there.
    Resident(Segment),
    /// These bytes of it were read, and this is left.
    Read(Bytes, Segment),
}

impl Outgoing {
    pub(super) fn new(body: Body, line: Arc<Line>) -> Self {
        Self {
            body,
            fetching: None,
            failure: None,
            line,
        }
    }

    fn queue(&self, segment: Segment) -> Bytes {
        self.line.queue(segment, self.body.has_next_of_file())
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(fetching) = &mut self.fetching {
                let fetched = ready!(fetching.as_mut().poll(cx));
                self.fetching = None;
                let bytes = fetched.map(|fetched| match fetched {
                    Fetched::Resident(segment) => self.queue(segment),
                    Fetched::Read(bytes, rest) => {
                        self.body.put_back(rest);
                        bytes
                    }
                });
                let bytes = bytes.map_err(|error| self.body.failed(error));
                return Poll::Ready(Some(bytes));
            }
            let segment = match ready!(self.body.poll_chunk(cx, BITE_BYTES)) {
                Some(Ok(Chunk::File(segment))) if segment.length > 0 => segment,
                Some(Ok(Chunk::File(_))) => continue,
                Some(Ok(Chunk::Bytes(bytes))) => return Poll::Ready(Some(Ok(bytes))),
                Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
                None => return Poll::Ready(None),
            };
            let residency = if self.line.takes_files() {
                residency(&segment)
            } else {
                Ok(Residency::Unknown)
            };
            let reads = self.line.reads.clone();
            self.fetching = match residency {
                Ok(Residency::Resident) => return Poll::Ready(Some(Ok(self.queue(segment)))),
                Ok(Residency::Absent) => Some(Box::pin(async {
                    reads.fetch(segment).await.map(Fetched::Resident)
                })),
                Ok(Residency::Unknown) => Some(Box::pin(async {
                    let (bytes, rest) = reads.read(segment).await?;
                    Ok(Fetched::Read(bytes, rest))
                })),
                Err(error) => return Poll::Ready(Some(Err(self.body.failed(error)))),
            };
        }
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.failure.is_none() {
            match ready!(self.poll_bytes(cx)) {
                Some(Ok(bytes)) => {
                    self.body.given(bytes.len() as u64);
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Err(failure)) => self.failure = Some(failure),
                None => return Poll::Ready(None),
            }
            self.line.want_flush(cx.waker());
        }
        if !self.line.is_flushed() {
            return Poll::Pending;
        }
        Poll::Ready(self.failure.take().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.failure.is_none() && self.body.is_given()
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .length()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // The connection broke, and not for the client.
        if self.line.has_failed() && !self.body.is_given() {
            let _ = self.body.failed(io::ErrorKind::UnexpectedEof.into());
        }
        self.line.metrics.body(self.body.close().as_str());
        self.line.finish();
    }
}
