//! Blobs at one endpoint (distribution-spec, "Pulling blobs").

use std::ops::Range;

use reqwest::{Method, StatusCode};

use super::Error;
use super::answer::{self, ContentRange};
use super::body::{self, BlobStream};
use super::retry::Retry;
use super::session::{Answer, Ask, Session};
use crate::oci::Digest;

/// How much of a blob is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// All of it, without a `Range`.
    Whole,
    /// What follows the first bytes.
    Rest {
        /// The first byte that is wanted, counted from the start.
        from: u64,
        /// The size of the whole blob, where known. It makes the range a closed one, which more servers understand;
        /// an answer that states another size is refused.
        total: Option<u64>,
    },
    /// Some bytes in the middle, at least one, of a blob whose size is known. An answer that states another size is
    /// refused.
    Part {
        /// The bytes that are wanted, counted from the start.
        range: Range<u64>,
        /// The size of the whole blob.
        total: u64,
    },
}

impl Extent {
    /// The first byte wanted and the one behind the last, where known, if a range is to be asked for at all.
    fn range(&self) -> Option<(u64, Option<u64>)> {
        match self {
            Self::Whole | Self::Rest { from: 0, total: _ } => None,
            Self::Rest { from, total } => Some((*from, *total)),
            Self::Part { range, total: _ } => Some((range.start, Some(range.end))),
        }
    }

    fn total(&self) -> Option<u64> {
        match self {
            Self::Whole => None,
            Self::Rest { from: _, total } => *total,
            Self::Part { range: _, total } => Some(*total),
        }
    }
}

impl Session<'_> {
    /// The size of a blob in bytes, by HEAD; by a GET of its first byte where that does not work.
    pub(super) async fn head_blob(&self, digest: &Digest) -> Result<u64, Error> {
        if !self.answers_head_blob() {
            return self.size_by_get(digest).await;
        }
        match self.ask_blob(Method::HEAD, digest, None).await {
            Err(error) if error.is_dropped() => {}
            Err(error) => return Err(error),
            Ok(answer) => {
                if let Some(outcome) = self.size_by_head(answer).await {
                    return outcome;
                }
            }
        }
        self.shared.transport.retry(Retry::HeadFailed);
        let size = self.size_by_get(digest).await?;
        self.learn_headless();
        Ok(size)
    }

    /// What an answer to HEAD says, or `None` where GET may say more.
    async fn size_by_head(&self, answer: Answer) -> Option<Result<u64, Error>> {
        let headers = answer.response.headers();
        let is_plain = answer::must_be_identity(headers).is_ok();
        let length = answer::length(headers).filter(|_| is_plain);
        match answer.status() {
            StatusCode::OK => length.map(Ok),
            StatusCode::UNAUTHORIZED if !answer.is_away => match self.verdict(answer).await {
                // Amazon's public registry says 401 to HEAD, whatever token comes along.
                Error::Denied(_) => None,
                error @ (Error::NotFound
                | Error::RateLimited { .. }
                | Error::Unavailable(_)
                | Error::TimedOut(_)
                | Error::TooLarge { .. }
                | Error::Protocol(_)
                | Error::Refused(_)
                | Error::Loop) => Some(Err(error)),
            },
            // A URL signed for GET is refused to HEAD.
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED if answer.is_away => None,
            StatusCode::FORBIDDEN
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => None,
            _ => Some(Err(self.verdict(answer).await)),
        }
    }

    async fn size_by_get(&self, digest: &Digest) -> Result<u64, Error> {
        let range = "bytes=0-0".to_owned();
        let answer = self.get_blob_answer(digest, Some(range)).await?;
        let headers = answer.response.headers();
        answer::must_be_identity(headers)?;
        let size = match (answer.status(), ContentRange::read(headers)) {
            // The body is not read: its connection is closed.
            (StatusCode::OK, _) => answer::length(headers),
            (StatusCode::PARTIAL_CONTENT, Some(ContentRange::Part { total, .. })) => Some(total),
            // Nothing of an empty blob can be asked for.
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(ContentRange::Outside { total: 0 })) => {
                Some(0)
            }
            (StatusCode::PARTIAL_CONTENT, _) => None,
            _ => return Err(self.verdict(answer).await),
        };
        size.ok_or_else(|| Error::Protocol("it does not say how large the blob is".to_owned()))
    }

    /// The blob, or the rest of it.
    pub(super) async fn get_blob(
        &self,
        digest: &Digest,
        extent: &Extent,
    ) -> Result<BlobStream, Error> {
        let range = extent.range();
        let asked = range.map(|(from, total)| range_header(from, total));
        let answer = self.get_blob_answer(digest, asked).await?;
        let answer = match (
            answer.status(),
            ContentRange::read(answer.response.headers()),
            range,
        ) {
            // Some servers know closed ranges only, but say how long the blob is.
            (
                StatusCode::RANGE_NOT_SATISFIABLE,
                Some(ContentRange::Outside { total }),
                Some((from, None)),
            ) if from < total => {
                body::discard(answer.response).await;
                self.shared.transport.retry(Retry::OpenRange);
                let asked = range_header(from, Some(total));
                self.get_blob_answer(digest, Some(asked)).await?
            }
            _ => answer,
        };
        self.stream(answer, extent).await
    }

    /// The body of `answer`, once its headers agree with what was asked for.
    async fn stream(&self, answer: Answer, extent: &Extent) -> Result<BlobStream, Error> {
        let headers = answer.response.headers();
        let from = extent.range().map_or(0, |(from, _)| from);
        let (offset, end, total) = match (answer.status(), ContentRange::read(headers)) {
            (StatusCode::OK, _) => {
                let length = answer::length(headers);
                (0, length, length)
            }
            (StatusCode::PARTIAL_CONTENT, Some(ContentRange::Part { first, last, total }))
                if first == from =>
            {
                (first, Some(last + 1), Some(total))
            }
            (StatusCode::PARTIAL_CONTENT, _) => {
                let reason = "it sends another part of the blob than was asked for";
                return Err(Error::Protocol(reason.to_owned()));
            }
            _ => return Err(self.verdict(answer).await),
        };
        answer::must_be_identity(headers)?;
        if let (Some(known), Some(said)) = (extent.total(), total)
            && known != said
        {
            let reason = format!("the blob has {said} bytes now and had {known} before");
            return Err(Error::Protocol(reason));
        }
        let validator = answer::strong_validator(headers);
        let total = total.or(extent.total());
        Ok(BlobStream::new(
            answer.response,
            offset,
            end,
            total,
            validator,
        ))
    }

    /// The answer to a GET. Where the host it redirects to refuses, the registry is asked once more: signed URLs are
    /// short-lived, and a new one costs one request. A second refusal is that host's trouble, not the caller's rights.
    async fn get_blob_answer(
        &self,
        digest: &Digest,
        range: Option<String>,
    ) -> Result<Answer, Error> {
        let answer = self.ask_blob(Method::GET, digest, range.clone()).await?;
        if !is_refused_away(&answer) {
            return Ok(answer);
        }
        body::discard(answer.response).await;
        self.shared.transport.retry(Retry::RedirectRefused);
        let answer = self.ask_blob(Method::GET, digest, range).await?;
        if !is_refused_away(&answer) {
            return Ok(answer);
        }
        let status = answer.status();
        body::discard(answer.response).await;
        Err(Error::unavailable(format!(
            "the host it redirects to answers {status}"
        )))
    }

    async fn ask_blob(
        &self,
        method: Method,
        digest: &Digest,
        range: Option<String>,
    ) -> Result<Answer, Error> {
        let ask = Ask {
            method,
            below: &format!("blobs/{digest}"),
            accept: None,
            range,
        };
        self.ask(&ask).await
    }
}

fn is_refused_away(answer: &Answer) -> bool {
    answer.is_away
        && matches!(
            answer.status(),
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        )
}

fn range_header(from: u64, total: Option<u64>) -> String {
    match total.and_then(|total| total.checked_sub(1)) {
        Some(last) if from <= last => format!("bytes={from}-{last}"),
        // Nothing is left: let the server say so.
        Some(_) | None => format!("bytes={from}-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_size_closes_the_range() {
        assert_eq!(range_header(5, Some(10)), "bytes=5-9");
        assert_eq!(range_header(5, None), "bytes=5-");
        let rest = |from, total| Extent::Rest { from, total };
        assert_eq!(Extent::Whole.range(), None);
        assert_eq!(rest(0, Some(10)).range(), None);
        assert_eq!(rest(5, Some(10)).range(), Some((5, Some(10))));
        let part = Extent::Part {
            range: 0..5,
            total: 10,
        };
        assert_eq!(part.range(), Some((0, Some(5))));
    }
}
