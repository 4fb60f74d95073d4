//! Manifests at one endpoint (distribution-spec, "Pulling manifests").

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};

use super::retry::Retry;
use super::session::{Answer, Ask, Session};
use super::{Error, answer, body};
use crate::oci::{Algorithm, Digest, MANIFEST_ACCEPT, MediaType, Reference};

/// Most bytes a manifest may have. Registries take 4 MiB (distribution-spec: SHOULD); twice that is no manifest.
pub const MANIFEST_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What upstream says of a manifest without sending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its media type, where one is stated that is one.
    pub media_type: Option<MediaType>,
    /// Its digest, where upstream states it: many do not.
    pub digest: Option<Digest>,
    /// Its size in bytes as stated. Harbor's is that of a compressed answer, so nothing may be concluded from it.
    pub size: Option<u64>,
}

/// A manifest as it came: nothing of it is checked but the size.
#[derive(Debug, Clone)]
pub struct ManifestAnswer {
    /// `Content-Type` as it stands in the answer; empty where it is missing.
    pub content_type: String,
    /// The digest that upstream claims, where it claims one.
    pub digest: Option<Digest>,
    /// The manifest.
    pub bytes: Bytes,
}

impl Session<'_> {
    /// What the endpoint says of `reference`, by HEAD; by GET where it does not answer that.
    pub(super) async fn head_manifest(&self, reference: &Reference) -> Result<ManifestHead, Error> {
        let answer = match self.ask_manifest(Method::HEAD, reference).await {
            // Some front ends drop the connection on HEAD.
            Err(error) if error.is_dropped() => return self.head_by_get(reference).await,
            outcome => outcome?,
        };
        match answer.status() {
            StatusCode::OK => {
                self.must_be_no_page(&answer)?;
                let headers = answer.response.headers();
                Ok(ManifestHead {
                    media_type: content_type(&answer).parse().ok(),
                    digest: answer::digest(headers),
                    size: answer::length(headers),
                })
            }
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                body::discard(answer.response).await;
                self.head_by_get(reference).await
            }
            _ => Err(self.verdict(answer).await),
        }
    }

    async fn head_by_get(&self, reference: &Reference) -> Result<ManifestHead, Error> {
        self.shared.transport.retry(Retry::HeadFailed);
        let answer = self.get_manifest(reference).await?;
        Ok(ManifestHead {
            media_type: answer.content_type.parse().ok(),
            digest: Some(Digest::of(Algorithm::Sha256, &answer.bytes)),
            size: Some(answer.bytes.len() as u64),
        })
    }

    /// The manifest of `reference`.
    pub(super) async fn get_manifest(
        &self,
        reference: &Reference,
    ) -> Result<ManifestAnswer, Error> {
        let answer = self.ask_manifest(Method::GET, reference).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.verdict(answer).await);
        }
        answer::must_be_identity(answer.response.headers())?;
        self.must_be_no_page(&answer)?;
        Ok(ManifestAnswer {
            content_type: content_type(&answer).to_owned(),
            digest: answer::digest(answer.response.headers()),
            bytes: body::whole(answer.response, MANIFEST_BYTES_MAX).await?,
        })
    }

    /// That a registry speaks, not the log-in page of something in front of it, which comes with a 200. Another
    /// endpoint is better than that; without one, the caller finds out what is wrong with the content.
    fn must_be_no_page(&self, answer: &Answer) -> Result<(), Error> {
        let mut parts = content_type(answer).split(';');
        let is_page = parts
            .next()
            .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/html"));
        if is_page && self.has_next {
            return Err(Error::Protocol("it answers with a web page".to_owned()));
        }
        Ok(())
    }

    async fn ask_manifest(&self, method: Method, reference: &Reference) -> Result<Answer, Error> {
        let ask = Ask {
            method,
            below: &format!("manifests/{reference}"),
            accept: Some(MANIFEST_ACCEPT),
            range: None,
        };
        self.ask(&ask).await
    }
}

fn content_type(answer: &Answer) -> &str {
    answer::text(answer.response.headers(), &CONTENT_TYPE).unwrap_or_default()
}
