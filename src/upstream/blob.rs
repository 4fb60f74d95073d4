//! Blobs at one endpoint (distribution-spec, "Pulling blobs").

use std::sync::Arc;

use reqwest::{Method, StatusCode};

use super::answer::{self, ContentRange};
use super::body::{self, BlobStream};
use super::extent::range_header;
use super::retry::Retry;
use super::session::{Answer, Ask, Session};
use super::trail::{Origin, Trail};
use super::{Error, Extent};
use crate::oci::Digest;

impl Session<'_> {
    /// The size of a blob in bytes, by HEAD; by a GET of its first byte where that does not work.
    pub(super) async fn head_blob(&self, digest: &Digest) -> Result<u64, Error> {
        if !self.answers_head_blob() {
            return self.size_by_get(digest).await;
        }
        let ask = Ask {
            method: Method::HEAD,
            below: &below(digest),
            accept: None,
            range: None,
        };
        match self.ask(&ask).await {
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
                | Error::Busy { .. }
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
        let first = Some("bytes=0-0".to_owned());
        let unknown = Trail::default();
        let answer = self.get_blob_answer(digest, first, &unknown).await?;
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

    /// The blob, or a part of it, by the way that `trail` knows. What is learned of the way is added to it.
    pub(super) async fn get_blob(
        &self,
        digest: &Digest,
        extent: &Extent,
        trail: &Arc<Trail>,
    ) -> Result<BlobStream, Error> {
        let range = extent.range();
        let asked = range.map(|(from, total)| range_header(from, total));
        let answer = self.get_blob_answer(digest, asked, trail).await?;
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
                self.get_blob_answer(digest, Some(asked), trail).await?
            }
            _ => answer,
        };
        let origin = Origin {
            trail: Arc::clone(trail),
            endpoint: self.position,
            target: answer.target.clone(),
        };
        match self.stream(answer, extent).await {
            Ok(stream) => {
                origin.gives();
                Ok(stream.coming_from(origin))
            }
            Err(error) => {
                // Another endpoint is asked for this one's lack by itself.
                origin.fails(true);
                Err(error)
            }
        }
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

    /// The answer to a GET, from where the registry redirected to last if `trail` knows that. Where that does not work
    /// any more, and where it redirects to a host that refuses, the registry is asked once more: signed URLs are
    /// short-lived, and a new one costs one request. A second refusal is that host's trouble, not the caller's rights.
    async fn get_blob_answer(
        &self,
        digest: &Digest,
        range: Option<String>,
        trail: &Trail,
    ) -> Result<Answer, Error> {
        let below = below(digest);
        let ask = Ask {
            method: Method::GET,
            below: &below,
            accept: None,
            range,
        };
        let known = trail.target(self.position);
        let answer = match &known {
            Some(target) => self.ask_at(&ask, target).await,
            None => self.ask(&ask).await,
        };
        let Some(why) = reason_to_return(&answer, known.is_some()) else {
            return answer;
        };
        match &known {
            Some(target) if why == Retry::RedirectRefused => {
                trail.refused(self.position, &target.url);
            }
            Some(target) => _ = trail.forget(self.position, &target.url),
            None => {}
        }
        if let Ok(answer) = answer {
            body::discard(answer.response).await;
        }
        self.shared.transport.retry(why);
        let answer = self.ask(&ask).await?;
        if !is_refused_away(&answer) {
            return Ok(answer);
        }
        let status = answer.status();
        body::discard(answer.response).await;
        Err(Error::unavailable(format!(
            "the host it redirects to answers {status}"
        )))
    }
}

/// Why the registry is to be asked once more, if it is. `is_known` where it was not asked this time, but the place
/// that it had redirected to before.
fn reason_to_return(answer: &Result<Answer, Error>, is_known: bool) -> Option<Retry> {
    let answer = match answer {
        Ok(answer) if is_refused_away(answer) => return Some(Retry::RedirectRefused),
        // A redirect that has just been made is believed; what else it leads to is final.
        Ok(_) | Err(_) if !is_known => return None,
        Ok(answer) => answer,
        Err(_) => return Some(Retry::RedirectFailed),
    };
    match answer.status() {
        StatusCode::NOT_FOUND | StatusCode::GONE => Some(Retry::RedirectRefused),
        StatusCode::REQUEST_TIMEOUT => Some(Retry::RedirectFailed),
        status => status.is_server_error().then_some(Retry::RedirectFailed),
    }
}

fn is_refused_away(answer: &Answer) -> bool {
    answer.is_away
        && matches!(
            answer.status(),
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        )
}

/// Where a blob is, below its repository.
fn below(digest: &Digest) -> String {
    format!("blobs/{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Silence;

    #[test]
    fn silence_sends_back_to_the_registry_from_where_it_led_before() {
        let silent = || Err(Error::TimedOut(Silence::Headers));
        assert_eq!(
            reason_to_return(&silent(), true),
            Some(Retry::RedirectFailed)
        );
        assert_eq!(reason_to_return(&silent(), false), None);
    }
}
