//! The body of a response: its makers, and what is told or let go at its end.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use hyper::body::{Frame, SizeHint};

type Cause = Box<dyn Error + Send + Sync>;

/// The body of a response. Boxed at most once, never per chunk; whole bodies are not boxed at all.
///
/// Dropping it is how a client that left shows: [`End::Cancelled`].
pub struct Body {
    content: Content,
    /// Bytes given so far.
    sent: u64,
    ended: Option<End>,
    at_end: Vec<AtEnd>,
}

/// Where the bytes come from. A closed set, so that the server can treat a kind of its own way: bytes of a file
/// need not pass through here to reach a socket.
enum Content {
    /// All bytes at once; none is left once they are given.
    Whole(Bytes),
    /// One chunk after the other, and how many bytes are still to come where that is known.
    Stream {
        chunks: Pin<Box<dyn Stream<Item = Result<Bytes, Cause>> + Send>>,
        left: Option<u64>,
    },
}

/// What waits for the end of a body.
enum AtEnd {
    Tell(Box<dyn FnOnce(u64, End) + Send>),
    Release(Box<dyn Any + Send>),
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All of it was given to the connection.
    Ended,
    /// Its source failed, so the connection is closed short.
    Failed,
    /// The connection went before the body was through: the client left, was too slow, or the process ends.
    Cancelled,
}

/// Why a body broke off. The client sees fewer bytes than were declared, then the end of the connection.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The source failed.
    #[error("the source of the body failed")]
    Source(#[source] Cause),
    /// The source ended before all declared bytes were there.
    #[error("the source of the body ended {missing} bytes early")]
    Short {
        /// Bytes that were declared and did not come.
        missing: u64,
    },
    /// The source gave more bytes than were declared.
    #[error("the source of the body gave {surplus} bytes too many")]
    Long {
        /// Bytes beyond the declared ones in the chunk that went over.
        surplus: u64,
    },
    /// The source panicked: a bug.
    #[error("the source of the body panicked")]
    Panicked,
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::new(Content::Whole(bytes.into()))
    }

    /// The chunks of a stream. With a `length`, exactly that many bytes: they are declared as `Content-Length`, and a
    /// stream that gives fewer or more breaks the connection. Without one the response is chunked, and a failure of
    /// the stream shows as a missing last chunk.
    pub fn stream<S, E>(chunks: S, length: Option<u64>) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        Self::new(Content::Stream {
            chunks: Box::pin(chunks.map_err(Into::into)),
            left: length,
        })
    }

    /// Holds `guard` until the body ends, however it ends: a permit, a lock, a file.
    #[must_use]
    pub fn retain(mut self, guard: impl Send + 'static) -> Self {
        self.at_end.push(AtEnd::Release(Box::new(guard)));
        self
    }

    /// Calls `tell` exactly once when the body ends, with the bytes given to the connection and how it ended. Bytes
    /// given need not have reached the client: up to a buffer's worth may be lost where the end is not
    /// [`End::Ended`].
    #[must_use]
    pub fn on_end(mut self, tell: impl FnOnce(u64, End) + Send + 'static) -> Self {
        self.at_end.push(AtEnd::Tell(Box::new(tell)));
        self
    }

    /// The length in bytes, where it is known and nothing was given yet.
    pub fn length(&self) -> Option<u64> {
        match &self.content {
            Content::Whole(bytes) => Some(bytes.len() as u64),
            Content::Stream { left, .. } => *left,
        }
    }

    fn new(content: Content) -> Self {
        Self {
            content,
            sent: 0,
            ended: None,
            at_end: Vec::new(),
        }
    }

    /// The body without its bytes, as a HEAD gets it: ended well.
    pub fn skipped(mut self) -> Self {
        self.end(End::Ended);
        Self::empty()
    }

    /// Ends the body here, unless it has ended, and says how it did.
    pub fn close(&mut self) -> End {
        let complete = hyper::body::Body::is_end_stream(self);
        self.end(if complete { End::Ended } else { End::Cancelled })
    }

    /// Ends the body, unless it has ended, and says how it did.
    fn end(&mut self, end: End) -> End {
        let end = *self.ended.get_or_insert(end);
        let sent = self.sent;
        for waiting in self.at_end.drain(..) {
            match waiting {
                AtEnd::Tell(tell) => tell(sent, end),
                AtEnd::Release(guard) => drop(guard),
            }
        }
        end
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match &mut self.content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Content::Stream { left: Some(0), .. } => Poll::Ready(None),
            Content::Stream { chunks, left } => {
                // A panic here would take down the connection's task and reset the client.
                let polled = catch_unwind(AssertUnwindSafe(|| chunks.as_mut().poll_next(cx)));
                let chunk = match polled {
                    Ok(polled) => ready!(polled),
                    Err(_) => return Poll::Ready(Some(Err(BodyError::Panicked))),
                };
                Poll::Ready(checked(chunk, left))
            }
        }
    }
}

/// Holds a chunk against the bytes that are still to come.
fn checked(
    chunk: Option<Result<Bytes, Cause>>,
    left: &mut Option<u64>,
) -> Option<Result<Bytes, BodyError>> {
    match (chunk, left) {
        (Some(Err(cause)), _) => Some(Err(BodyError::Source(cause))),
        (None, Some(missing)) => Some(Err(BodyError::Short { missing: *missing })),
        (Some(Ok(bytes)), Some(left)) => {
            let length = bytes.len() as u64;
            if length > *left {
                let surplus = length - *left;
                return Some(Err(BodyError::Long { surplus }));
            }
            *left -= length;
            Some(Ok(bytes))
        }
        (Some(Ok(bytes)), None) => Some(Ok(bytes)),
        (None, None) => None,
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let chunk = ready!(self.poll_chunk(cx));
        match &chunk {
            Some(Ok(bytes)) => {
                self.sent += bytes.len() as u64;
                // hyper does not ask again once the declared bytes are there.
                if self.is_end_stream() {
                    self.end(End::Ended);
                }
            }
            Some(Err(_)) => {
                self.end(End::Failed);
            }
            None => {
                self.end(End::Ended);
            }
        }
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.length() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("length", &self.length())
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

impl End {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, Weak};

    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    type Told = Arc<Mutex<Vec<(u64, End)>>>;

    /// The body with what it tells at its end, and a guard to watch.
    fn watched(body: Body) -> (Body, Told, Weak<()>) {
        let told = Told::default();
        let (teller, guard) = (Arc::clone(&told), Arc::new(()));
        let watch = Arc::downgrade(&guard);
        let body = body
            .retain(guard)
            .on_end(move |bytes, end| teller.lock().unwrap().push((bytes, end)));
        (body, told, watch)
    }

    fn source(chunks: &[Result<&'static str, &'static str>], length: Option<u64>) -> Body {
        let chunks: Vec<_> = chunks.iter().map(|chunk| chunk.map(Bytes::from)).collect();
        Body::stream(stream::iter(chunks), length)
    }

    /// Reads a body to its end, which must be as expected, told once, and let go of the guard.
    #[track_caller]
    fn check(body: Body, text: Result<&'static str, &str>, sent: u64, end: End) {
        let (body, told, guard) = watched(body);
        let collected = futures_util::FutureExt::now_or_never(body.collect()).unwrap();
        let collected = collected
            .map(http_body_util::Collected::to_bytes)
            .map_err(|it| it.to_string());
        let text = text.map(Bytes::from).map_err(str::to_owned);
        assert_eq!(collected, text);
        assert_eq!(*told.lock().unwrap(), [(sent, end)]);
        assert_eq!(guard.strong_count(), 0);
    }

    #[test]
    fn whole_bodies_end_well() {
        check(Body::empty(), Ok(""), 0, End::Ended);
        check(Body::full("abc"), Ok("abc"), 3, End::Ended);
    }

    #[test]
    fn streams_end_as_declared_or_fail() {
        let ab = [Ok("a"), Ok("b")];
        check(source(&ab, None), Ok("ab"), 2, End::Ended);
        check(source(&ab, Some(2)), Ok("ab"), 2, End::Ended);
        let short = "the source of the body ended 1 bytes early";
        check(source(&ab, Some(3)), Err(short), 2, End::Failed);
        let long = "the source of the body gave 1 bytes too many";
        check(source(&[Ok("ab")], Some(1)), Err(long), 0, End::Failed);
        let failed = [Ok("a"), Err("lost")];
        let failure = "the source of the body failed";
        check(source(&failed, Some(2)), Err(failure), 1, End::Failed);
        check(source(&failed, None), Err(failure), 1, End::Failed);
    }

    #[test]
    fn a_body_that_is_dropped_before_its_end_was_cancelled() {
        let (body, told, guard) = watched(source(&[Ok("a")], Some(1)));
        assert_eq!(guard.strong_count(), 1);
        drop(body);
        assert_eq!(*told.lock().unwrap(), [(0, End::Cancelled)]);
        assert_eq!(guard.strong_count(), 0);
    }

    #[test]
    fn a_body_that_is_skipped_ended_well() {
        let (body, told, guard) = watched(Body::full("abc"));
        assert_eq!(body.skipped().length(), Some(0));
        assert_eq!(*told.lock().unwrap(), [(0, End::Ended)]);
        assert_eq!(guard.strong_count(), 0);
    }
}
