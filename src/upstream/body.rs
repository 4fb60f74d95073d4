//! Bodies of answers: small ones whole and capped, blobs as they come.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::connections::Connection;
use super::trail::Origin;
use super::{Error, Silence};
use crate::metrics::UpstreamRequest;

/// Longest silence from upstream while a body is on its way. Not a total: a 10 GiB layer over a slow link is fine,
/// a stalled one is not.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time for a whole small body, a manifest or a token: a byte every 29 s is not silence, but of no use.
const SMALL_BODY_TIMEOUT: Duration = Duration::from_mins(1);

/// Most that is read of the body of an answer that is not wanted, in bytes, so that its connection can be used again
/// and a person can read what it says. go-containerregistry reads as much of an error.
const UNWANTED_BYTES_MAX: u64 = 64 * 1024;

/// Longest time for that. A new connection is cheaper than a longer wait.
const UNWANTED_TIMEOUT: Duration = Duration::from_secs(1);

/// Most characters of an unwanted body that reach the log.
const SNIPPET_CHARS_MAX: usize = 200;

/// An answer whose head is there and whose body is on its way. Dropping it closes the connection, unless the body was
/// read to its end.
#[derive(Debug)]
pub(super) struct Received {
    response: Response,
    /// Counts the body, and ends with it.
    request: UpstreamRequest,
    /// Leave to have sent the request, where that takes some.
    _slot: Option<OwnedSemaphorePermit>,
}

impl Received {
    /// The `response` to `request`.
    pub(super) fn new(
        response: Response,
        request: UpstreamRequest,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            response,
            request,
            _slot: slot,
        }
    }

    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next bytes of the body, possibly none; `None` after the last.
    ///
    /// Cancel-safe: a call that is dropped loses no byte.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match timeout(BODY_IDLE_TIMEOUT, self.response.chunk()).await {
            Ok(Ok(chunk)) => {
                let bytes = chunk.as_ref().map_or(0, Bytes::len);
                self.request.received(bytes as u64);
                Ok(chunk)
            }
            // Without its URL, which may be signed.
            Ok(Err(error)) => Err(Error::Unavailable(Arc::new(error.without_url()))),
            Err(_) => Err(Error::TimedOut(Silence::Body)),
        }
    }
}

/// The bytes of one blob from some offset on, as they come. Dropping it closes the connection, unless it was read to
/// its end, and lets the next in line go ahead.
#[derive(Debug)]
pub struct BlobStream {
    response: Received,
    offset: u64,
    position: u64,
    /// Where the body ends, counted from the start of the blob.
    end: Option<u64>,
    total: Option<u64>,
    validator: Option<String>,
    /// Learns whether the way here is a good one.
    origin: Option<Origin>,
    /// Given back after the last byte, even if the stream is kept.
    connection: Option<Connection>,
}

impl BlobStream {
    /// The body of `response`, which holds the blob from `offset` on.
    pub(super) fn new(
        response: Received,
        offset: u64,
        end: Option<u64>,
        total: Option<u64>,
        validator: Option<String>,
    ) -> Self {
        Self {
            response,
            offset,
            position: offset,
            end,
            total,
            validator,
            origin: None,
            connection: None,
        }
    }

    /// The stream, which came from `origin`.
    pub(super) fn coming_from(self, origin: Origin) -> Self {
        let origin = Some(origin);
        Self { origin, ..self }
    }

    /// The stream, which holds `connection` for as long as it lasts.
    pub(super) fn holding(self, connection: Connection) -> Self {
        let connection = Some(connection);
        Self { connection, ..self }
    }

    /// The first byte that comes, counted from the start of the blob. It is 0 where upstream does not do ranges,
    /// whatever was asked for.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where the stream ends, counted from the start of the blob, where upstream states it.
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    /// The size of the whole blob, in bytes, where upstream states it.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// The strong entity tag of what is sent. Two answers with different ones may not be of the same bytes.
    pub fn validator(&self) -> Option<&str> {
        self.validator.as_deref()
    }

    /// The next bytes, never empty; `None` after the last byte of what was asked for, or of what upstream was willing
    /// to give of it.
    ///
    /// Cancel-safe: a call that is dropped loses no byte.
    ///
    /// # Errors
    /// `TimedOut(Body)` when nothing comes for 30 s; `Unavailable` when the connection breaks or the body ends before
    /// the blob does; `Protocol` when it goes on after it.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let outcome = self.next().await;
        match &outcome {
            Ok(Some(_)) => {}
            Ok(None) => drop(self.connection.take()),
            Err(_) => {
                if let Some(origin) = self.origin.take() {
                    origin.fails(self.position > self.offset);
                }
            }
        }
        outcome
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Some(bytes) = self.response.next().await? else {
                return match self.end {
                    Some(end) if self.position < end => {
                        Err(Error::unavailable("the body ended early"))
                    }
                    Some(_) | None => Ok(None),
                };
            };
            self.position = self.position.saturating_add(bytes.len() as u64);
            if self.end.is_some_and(|end| self.position > end) {
                let reason = "the body is longer than it said";
                return Err(Error::Protocol(reason.to_owned()));
            }
            if !bytes.is_empty() {
                if self.end == Some(self.position)
                    && let Some(origin) = &self.origin
                {
                    origin.gave_all();
                }
                return Ok(Some(bytes));
            }
        }
    }
}

/// The whole body of `response`.
///
/// # Errors
/// `TooLarge` when it has more than `bytes_max`; `TimedOut(Body)` and `Unavailable` when it does not come.
pub(super) async fn whole(mut response: Received, bytes_max: u64) -> Result<Bytes, Error> {
    let declared = response.response.content_length();
    if declared.is_some_and(|length| length > bytes_max) {
        return Err(Error::TooLarge { bytes_max });
    }
    let read = async {
        let mut body = BytesMut::new();
        while let Some(chunk) = response.next().await? {
            if (body.len() + chunk.len()) as u64 > bytes_max {
                return Err(Error::TooLarge { bytes_max });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    };
    match timeout(SMALL_BODY_TIMEOUT, read).await {
        Ok(body) => body,
        Err(_) => Err(Error::TimedOut(Silence::Body)),
    }
}

/// Reads the body of an answer that is not wanted, so that its connection can be used again.
pub(super) async fn discard(response: Received) {
    words(response).await;
}

/// The beginning of the body of an answer that is not wanted, as it is shown to whoever debugs; empty where it does
/// not come. Never for clients: anything may stand in it.
pub(super) async fn words(response: Received) -> String {
    let status = response.status().as_u16();
    // Whatever goes wrong here, the answer was not wanted.
    match timeout(UNWANTED_TIMEOUT, whole(response, UNWANTED_BYTES_MAX)).await {
        Ok(Ok(body)) if !body.is_empty() => {
            let words = snippet(&body);
            tracing::debug!(status, body = words, "upstream's words");
            words
        }
        Ok(_) | Err(_) => String::new(),
    }
}

/// The beginning of `body` on one line, without control characters.
fn snippet(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let shown = text.chars().take(SNIPPET_CHARS_MAX);
    shown
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn answer(body: &'static [u8]) -> Received {
        let request = Metrics::new().upstream_request("other", "GET");
        Received::new(hyper::Response::new(body).into(), request, None)
    }

    #[tokio::test]
    async fn a_small_body_is_capped() {
        assert_eq!(
            whole(answer(b"12345"), 5).await.expect("small").as_ref(),
            b"12345"
        );
        let refused = whole(answer(b"123456"), 5).await;
        assert!(matches!(refused, Err(Error::TooLarge { bytes_max: 5 })));
    }

    #[tokio::test]
    async fn a_blob_is_as_long_as_it_said() {
        let read = async |offset, total| {
            let mut stream = BlobStream::new(answer(b"12345"), offset, total, total, None);
            while stream.chunk().await?.is_some() {}
            Ok::<_, Error>(stream.position)
        };
        assert!(matches!(read(0, Some(5)).await, Ok(5)));
        assert!(matches!(read(5, Some(10)).await, Ok(10)));
        assert!(matches!(read(0, None).await, Ok(5)));
        assert!(matches!(read(0, Some(6)).await, Err(Error::Unavailable(_))));
        assert!(matches!(read(0, Some(4)).await, Err(Error::Protocol(_))));
    }

    #[test]
    fn a_snippet_is_short_and_has_no_control_characters() {
        assert_eq!(snippet(b"a\r\n\x1b[31mb"), "a\\r\\n\\u{1b}[31mb");
        assert_eq!(snippet("ü".repeat(1000).as_bytes()).chars().count(), 200);
    }
}
