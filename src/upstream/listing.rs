//! Lists: the tags of a repository and what refers to a manifest, whole, however upstream cuts them into pages
//! (distribution-spec, "Content Discovery").

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use tokio::time::timeout;

use super::failures::Failures;
use super::session::{Answer, Ask, Session};
use super::{Error, Repository, Silence, answer, body, link};
use crate::oci::{
    Digest, INDEX_MEDIA_TYPE, ListError, MediaType, Reference, Referrers, TAGS_MAX, TagList,
    check_manifest,
};

/// How many tags are asked for at once. Amazon's registries refuse more (405), distribution and others give no more.
const PAGE_TAGS: usize = 1000;

/// Most pages of one list. Quay and the Container registry of GitHub give no more than a hundred tags a page; a list
/// that is longer than this is one without end.
const PAGES_MAX: usize = 1000;

/// Most bytes of all pages of one list. Google's registries describe every manifest on the way, at some hundred bytes
/// a tag.
const LIST_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Longest time for all pages of one list at one endpoint: a thousand pages, at a tenth of a second each.
const LIST_TIMEOUT: Duration = Duration::from_mins(2);

impl Repository {
    /// All tags, sorted.
    ///
    /// Cancel-safe: nothing is kept of a call that is dropped, except a token.
    ///
    /// # Errors
    /// `TooLarge` and `Protocol` for a list without end; else see [`Error`].
    pub async fn tags(&self) -> Result<TagList, Error> {
        let mut failures = Failures::default();
        for session in self.sessions(0)? {
            match in_time(session.tags()).await {
                Err(error) if session.falls_through(&error) => failures.add(error),
                outcome => return outcome,
            }
        }
        Err(failures.worst())
    }

    /// All manifests that refer to `subject`, whether or not that is there. Where an endpoint knows no referrers, the
    /// index under the tag that stands in for them (distribution-spec, "Referrers Tag Schema").
    ///
    /// Cancel-safe: nothing is kept of a call that is dropped, except a token.
    ///
    /// # Errors
    /// `TooLarge` and `Protocol` for a list without end; never `NotFound`; else see [`Error`].
    pub async fn referrers(&self, subject: &Digest) -> Result<Referrers, Error> {
        let mut failures = Failures::default();
        for session in self.sessions(0)? {
            match in_time(session.referrers(subject)).await {
                Err(error) if session.falls_through(&error) => failures.add(error),
                outcome => return outcome,
            }
        }
        let worst = failures.worst();
        if matches!(worst, Error::NotFound) {
            // Nothing refers to what is not there (distribution-spec: an empty list, and no 404).
            return Ok(Referrers::default());
        }
        Err(worst)
    }
}

async fn in_time<T>(listing: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let outcome = timeout(LIST_TIMEOUT, listing).await;
    outcome.unwrap_or(Err(Error::TimedOut(Silence::Body)))
}

/// The pages of a list, one after the other.
struct Pages<'a> {
    session: &'a Session<'a>,
    /// What is asked for, below the repository, without a query.
    below: String,
    accept: Option<&'static str>,
    /// The query of the next page.
    query: Option<String>,
    /// How many pages there were.
    asked: usize,
    /// How many bytes may still come.
    bytes_left: u64,
}

impl<'a> Pages<'a> {
    fn new(session: &'a Session<'a>, below: String, accept: Option<&'static str>) -> Self {
        Self {
            session,
            below,
            accept,
            query: None,
            asked: 0,
            bytes_left: LIST_BYTES_MAX,
        }
    }

    /// Asks for the next page.
    async fn ask(&mut self) -> Result<Answer, Error> {
        if self.asked == PAGES_MAX {
            let reason = format!("a list of more than {PAGES_MAX} pages");
            return Err(Error::Protocol(reason));
        }
        self.asked += 1;
        let below = match &self.query {
            Some(query) => format!("{}?{query}", self.below),
            None => self.below.clone(),
        };
        let ask = Ask {
            method: Method::GET,
            below: &below,
            accept: self.accept,
            range: None,
        };
        self.session.ask(&ask).await
    }

    /// Reads the page that `answer` is; gives whether another one follows, too.
    async fn read(&mut self, answer: Answer) -> Result<(Bytes, bool), Error> {
        let headers = answer.response.headers();
        answer::must_be_identity(headers)?;
        let next = link::next_query(headers).map(str::to_owned);
        let follows = next.is_some() && next != self.query;
        self.query = next;
        let page = body::whole(answer.response, self.bytes_left).await?;
        self.bytes_left = self.bytes_left.saturating_sub(page.len() as u64);
        Ok((page, follows))
    }
}

impl Session<'_> {
    /// All tags of the repository here.
    async fn tags(&self) -> Result<TagList, Error> {
        for _ in 0..2 {
            if let Some(tags) = self.walk_tags().await? {
                return Ok(tags);
            }
        }
        Err(page_missing())
    }

    /// Walks over all pages. None where one that should follow is missing: zot does not know where to go on when the tag
    /// before was deleted meanwhile. That is no word about the repository.
    async fn walk_tags(&self) -> Result<Option<TagList>, Error> {
        let mut tags = BTreeSet::new();
        let mut pages = Pages::new(self, "tags/list".to_owned(), None);
        pages.query = Some(format!("n={PAGE_TAGS}"));
        loop {
            let answer = pages.ask().await?;
            if answer.status() == StatusCode::NOT_FOUND && pages.asked > 1 {
                body::discard(answer.response).await;
                return Ok(None);
            }
            if answer.status() != StatusCode::OK {
                return Err(self.verdict(answer).await);
            }
            let (page, follows) = pages.read(answer).await?;
            let page = TagList::parse_page(&page).map_err(|error| is_no_list(&error))?;
            let has_some = !page.is_empty();
            let known = tags.len();
            tags.extend(page);
            if tags.len() > TAGS_MAX {
                let reason = format!("a list of more than {TAGS_MAX} tags");
                return Err(Error::Protocol(reason));
            }
            // A page of nothing new is one that was there before: registry.k8s.io forgets the query on the way.
            let is_circle = has_some && tags.len() == known;
            if !follows || is_circle {
                return Ok(Some(tags.into()));
            }
        }
    }

    /// All that refers to `subject` here.
    async fn referrers(&self, subject: &Digest) -> Result<Referrers, Error> {
        match self.walk_referrers(subject).await? {
            Some(referrers) => Ok(referrers),
            None => self.fallback_referrers(subject).await,
        }
    }

    /// Walks over all pages. None where the registry knows no referrers.
    async fn walk_referrers(&self, subject: &Digest) -> Result<Option<Referrers>, Error> {
        let mut referrers = BTreeMap::new();
        let below = format!("referrers/{subject}");
        let mut pages = Pages::new(self, below, Some(INDEX_MEDIA_TYPE));
        loop {
            let answer = pages.ask().await?;
            if pages.asked == 1 && knows_no_referrers(&answer) {
                body::discard(answer.response).await;
                return Ok(None);
            }
            if answer.status() != StatusCode::OK {
                let verdict = self.verdict(answer).await;
                // It had a first page.
                let is_missing = matches!(verdict, Error::NotFound);
                return Err(if is_missing { page_missing() } else { verdict });
            }
            let (page, follows) = pages.read(answer).await?;
            let page = Referrers::parse_page(&page).map_err(|error| is_no_list(&error))?;
            let has_some = !page.is_empty();
            let known = referrers.len();
            referrers.extend(page.into_iter().map(|one| (one.digest(), one)));
            let is_circle = has_some && referrers.len() == known;
            if !follows || is_circle {
                return Ok(Some(referrers.into()));
            }
        }
    }

    /// What stands in the index under the tag that stands in for a list of referrers. A manifest of another type under
    /// this tag is somebody's own, and no index.
    async fn fallback_referrers(&self, subject: &Digest) -> Result<Referrers, Error> {
        let Some(tag) = Referrers::fallback_tag(subject) else {
            return Ok(Referrers::default());
        };
        let manifest = self.get_manifest(&Reference::Tag(tag)).await?;
        let media_type = manifest.content_type.parse::<MediaType>();
        let is_manifest =
            |media_type: &MediaType| check_manifest(&manifest.bytes, media_type).is_ok();
        // The page of a portal says nothing about what there is.
        let Some(media_type) = media_type.ok().filter(is_manifest) else {
            let reason = "something that is no manifest, under the tag of the referrers";
            return Err(Error::Protocol(reason.to_owned()));
        };
        if media_type.as_str() != INDEX_MEDIA_TYPE {
            return Ok(Referrers::default());
        }
        let page = Referrers::parse_page(&manifest.bytes).map_err(|error| is_no_list(&error))?;
        let referrers: BTreeMap<_, _> = page.into_iter().map(|one| (one.digest(), one)).collect();
        Ok(referrers.into())
    }
}

/// Whether `answer` is that of a registry without referrers. By the specification that is a 404. Others send 405, a
/// redirect to a web page (GitHub, which is not followed; Google, whose page comes with a 200), a refusal from where a
/// redirect led, or, for a subject that they do not have, a 400 (Quay).
fn knows_no_referrers(answer: &Answer) -> bool {
    match answer.status() {
        StatusCode::OK => !is_index(answer),
        StatusCode::NOT_FOUND
        | StatusCode::BAD_REQUEST
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::NOT_ACCEPTABLE
        | StatusCode::GONE
        | StatusCode::NOT_IMPLEMENTED
        | StatusCode::SEE_OTHER => true,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => answer.is_away,
        _ => false,
    }
}

fn is_index(answer: &Answer) -> bool {
    let content_type = answer::text(answer.response.headers(), &CONTENT_TYPE).unwrap_or_default();
    let media_type = content_type.parse::<MediaType>();
    media_type.is_ok_and(|media_type| media_type.as_str() == INDEX_MEDIA_TYPE)
}

fn page_missing() -> Error {
    Error::Protocol("a list whose next page is not there".to_owned())
}

fn is_no_list(error: &ListError) -> Error {
    Error::Protocol(error.to_string())
}
