//! The body of a response: its makers, and what is told or let go at its end.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use super::{Chunk, Segment};

type Cause = Box<dyn Error + Send + Sync>;

/// The body of a response. Boxed at most once, never per chunk; whole bodies are not boxed at all.
///
/// Dropping it is how a client that left shows: [`End::Cancelled`].
pub struct Body {
    /// What is at hand: all of it, or what was not taken of a chunk.
    next: Option<Chunk>,
    /// What gives the rest.
    source: Option<Source>,
    /// How many bytes are still to be given, where that is known.
    left: Option<u64>,
    /// Bytes given so far.
    given: u64,
    ended: Option<End>,
    /// What waits for the end: nearly always one thing, for which nothing is set up.
    at_end: Option<AtEnd>,
    /// What else waits for it.
    then: Vec<AtEnd>,
}

/// One chunk after the other.
type Source = Pin<Box<dyn Stream<Item = Result<Chunk, Cause>> + Send>>;

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
    /// A file it gave cannot be read or is too short, so the connection is closed short.
    Unreadable,
    /// The connection went before the body was through: the client left, was too slow, or the process ends.
    Cancelled,
}

/// Why a body broke off. The client sees fewer bytes than were declared, then the end of the connection.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The source failed.
    #[error("the source of the body failed")]
    Source(#[source] Cause),
    /// A file it gave cannot be read, or is shorter than it said.
    #[error("a file of the body cannot be read")]
    File(#[source] io::Error),
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
        Self::whole(bytes.into().into())
    }

    /// A stretch of a file.
    pub fn file(segment: Segment) -> Self {
        Self::whole(segment.into())
    }

    fn whole(chunk: Chunk) -> Self {
        let length = chunk.length();
        Self::new(Some(chunk), None, Some(length))
    }

    /// The chunks of a stream: bytes, or stretches of files. With a `length`, exactly that many bytes: they are
    /// declared as `Content-Length`, and a stream that gives fewer or more breaks the connection. Without one the
    /// response is chunked, and a failure of the stream shows as a missing last chunk.
    pub fn stream<S, C, E>(chunks: S, length: Option<u64>) -> Self
    where
        S: Stream<Item = Result<C, E>> + Send + 'static,
        C: Into<Chunk> + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let chunks = chunks.map(|chunk| chunk.map(Into::into).map_err(Into::into));
        Self::new(None, Some(Box::pin(chunks)), length)
    }

    /// Holds `guard` until the body ends, however it ends: a permit, a lock, a file.
    #[must_use]
    pub fn retain(self, guard: impl Send + 'static) -> Self {
        self.waited_for(AtEnd::Release(Box::new(guard)))
    }

    /// Calls `tell` exactly once when the body ends, with the bytes given to the connection and how it ended. Bytes
    /// given need not have reached the client: what was given last may be lost when the connection breaks.
    #[must_use]
    pub fn on_end(self, tell: impl FnOnce(u64, End) + Send + 'static) -> Self {
        self.waited_for(AtEnd::Tell(Box::new(tell)))
    }

    fn waited_for(mut self, waiting: AtEnd) -> Self {
        if self.at_end.is_none() {
            self.at_end = Some(waiting);
        } else {
            self.then.push(waiting);
        }
        self
    }

    /// The length in bytes of what is still to be given, where it is known.
    pub fn length(&self) -> Option<u64> {
        self.left
    }

    fn new(next: Option<Chunk>, source: Option<Source>, left: Option<u64>) -> Self {
        Self {
            next,
            source,
            left,
            given: 0,
            ended: None,
            at_end: None,
            then: Vec::new(),
        }
    }

    /// Takes the next chunk, of a file at most `file_bytes`; `None` at the end. What was taken counts once it is
    /// [given](Self::given) to the connection, which has to happen before the next is taken.
    pub fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        file_bytes: u64,
    ) -> Poll<Option<Result<Chunk, BodyError>>> {
        if self.is_given() {
            self.end(End::Ended);
            return Poll::Ready(None);
        }
        let chunk = match (self.next.take(), &mut self.source) {
            (Some(chunk), _) => Some(Ok(chunk)),
            (None, Some(source)) => ready!(poll_next(source, cx)),
            (None, None) => None,
        };
        let chunk = match checked(chunk, self.left).transpose() {
            Ok(Some(Chunk::File(segment))) => {
                self.put_back(segment.after(file_bytes));
                Some(Ok(segment.first(file_bytes).into()))
            }
            Ok(None) => {
                self.end(End::Ended);
                None
            }
            chunk @ Ok(Some(Chunk::Bytes(_))) => chunk.transpose(),
            Err(failure) => {
                self.end(End::Failed);
                Some(Err(failure))
            }
        };
        Poll::Ready(chunk)
    }

    /// Whether bytes of a file are at hand that were not taken yet.
    pub fn has_next_of_file(&self) -> bool {
        matches!(self.next, Some(Chunk::File(_)))
    }

    /// Of the chunk taken last, this was not given.
    pub fn put_back(&mut self, segment: Segment) {
        if segment.length > 0 {
            // Behind it comes what was not taken of the same chunk.
            let behind = self.next.take().map_or(0, |rest| rest.length());
            let length = segment.length + behind;
            self.next = Some(Segment { length, ..segment }.into());
        }
    }

    /// So many bytes, taken before, were given to the connection.
    pub fn given(&mut self, bytes: u64) {
        self.given += bytes;
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes);
        }
        // Nobody asks again once the declared bytes are there.
        if self.is_given() {
            self.end(End::Ended);
        }
    }

    /// Whether all declared bytes were given.
    pub fn is_given(&self) -> bool {
        self.left == Some(0)
    }

    /// A chunk that was taken cannot be given, because its file cannot be read.
    pub fn failed(&mut self, cause: io::Error) -> BodyError {
        self.end(End::Unreadable);
        BodyError::File(cause)
    }

    /// The body without its bytes, as a HEAD gets it: ended well.
    #[must_use]
    pub fn skipped(mut self) -> Self {
        self.end(End::Ended);
        Self::empty()
    }

    /// Ends the body here, unless it has ended, and says how it did.
    pub fn close(&mut self) -> End {
        let end = if self.is_given() {
            End::Ended
        } else {
            End::Cancelled
        };
        self.end(end)
    }

    /// Ends the body, unless it has ended, and says how it did.
    fn end(&mut self, end: End) -> End {
        let end = *self.ended.get_or_insert(end);
        let given = self.given;
        for waiting in self.at_end.take().into_iter().chain(self.then.drain(..)) {
            match waiting {
                AtEnd::Tell(tell) => tell(given, end),
                AtEnd::Release(guard) => drop(guard),
            }
        }
        end
    }
}

/// The next chunk of a source.
fn poll_next(source: &mut Source, cx: &mut Context<'_>) -> Poll<Option<Result<Chunk, BodyError>>> {
    // A panic here would take down the connection's task and reset the client.
    match catch_unwind(AssertUnwindSafe(|| source.as_mut().poll_next(cx))) {
        Ok(polled) => polled.map(|chunk| chunk.map(|chunk| chunk.map_err(BodyError::Source))),
        Err(_) => Poll::Ready(Some(Err(BodyError::Panicked))),
    }
}

/// Holds a chunk against the bytes that are still to come.
fn checked(
    chunk: Option<Result<Chunk, BodyError>>,
    left: Option<u64>,
) -> Option<Result<Chunk, BodyError>> {
    match (chunk, left) {
        (None, Some(missing)) => Some(Err(BodyError::Short { missing })),
        (Some(Ok(chunk)), Some(left)) if chunk.length() > left => {
            let surplus = chunk.length() - left;
            Some(Err(BodyError::Long { surplus }))
        }
        (chunk, _) => chunk,
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
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl End {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Failed => "failed",
            Self::Unreadable => "unreadable",
            Self::Cancelled => "cancelled",
        }
    }
}

#[cfg(test)]
mod tests;
