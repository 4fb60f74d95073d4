//! Manifests by tag, for as long as the tag holds.
//!
//! A tag that is not fresh is **checked** by a HEAD, which is free of Docker Hub's pull quota. Where that says that the
//! tag moved, what it points to now is **fetched** by a GET. Checks and fetches are tasks of their own, one of each for
//! a tag, shared by everybody who wants to know; whoever leaves, or is served something stale, stops neither.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::behind::Behind;
use super::freshness::{self, Freshness, Lifetime, OnRefusal, Spread, TagPolicy, TagTerms};
use super::manifest::Manifest;
use super::manifest_record::ManifestKey;
use super::manifests::Manifests;
use super::shelf::Shelf;
use super::tag_record::{TagKey, TagRecord};
use super::{Error, Outcome, WhyStale};
use crate::clock::Clock;
use crate::oci::{Reference, Tag};
use crate::single_flight::{Flight, Role, SingleFlight};
use crate::upstream::{self, Holder, Repository, Silence};

/// How long a check of a tag may be silent before a stale copy is served and the check goes on behind. Somebody is
/// waiting in front of a terminal.
const REVALIDATION_PATIENCE: Duration = Duration::from_millis(800);

/// How many times longer a tag is served without a check while upstream is about to give no more: what is left is kept
/// for what is not here at all.
const SLOWED_DOWN: u32 = 4;

/// A manifest, and for how long it has been known that its tag points to it.
#[derive(Debug, Clone)]
pub struct TaggedManifest {
    /// The manifest.
    pub manifest: Arc<Manifest>,
    /// Time since upstream said so last.
    pub age: Duration,
}

/// Manifests by tag. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Tags {
    manifests: Manifests,
    shelf: Shelf,
    policy: Arc<TagPolicy>,
    spread: Spread,
    clock: Clock,
    behind: Behind,
    /// Checks under way.
    checks: SingleFlight<FlightKey, Result<Checked, Error>>,
    /// Fetches under way: of tags of which nothing is known here, and of those that have moved.
    fetches: SingleFlight<FlightKey, Result<Refreshed, Error>>,
}

/// Which tag is asked for, and by whose right: nobody lands with what another was let in for.
type FlightKey = (Holder, TagKey);

/// Which tag is meant, where it is asked for, and what holds for it.
#[derive(Debug, Clone)]
struct Question {
    source: Repository,
    key: TagKey,
    terms: TagTerms,
}

/// A tag of which all is here.
#[derive(Debug, Clone)]
struct Known {
    record: TagRecord,
    manifest: Arc<Manifest>,
}

/// What came of a check.
#[derive(Debug, Clone)]
enum Checked {
    /// What the tag points to.
    Settled(Refreshed),
    /// The tag has moved to something that is not here, and that is on its way.
    Moved(Flight<Result<Refreshed, Error>>),
}

/// What upstream says that a tag points to.
#[derive(Debug, Clone)]
struct Refreshed {
    manifest: Arc<Manifest>,
    how: How,
}

/// How it came about.
#[derive(Debug, Clone, Copy)]
enum How {
    /// Upstream sent it.
    Fetched,
    /// Upstream said that it is what was here already.
    Confirmed,
    /// Somebody else had asked since this caller looked.
    ByOthers,
}

/// Why a check told nothing.
#[derive(Debug)]
enum Unanswered {
    /// There was no answer within the patience of the caller. The check goes on.
    Silent,
    /// There was none.
    Failed(Error),
}

impl From<Error> for Unanswered {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Silent => upstream::Error::TimedOut(Silence::Headers).into(),
            Unanswered::Failed(error) => error,
        }
    }
}

impl Tags {
    pub(super) fn new(
        manifests: Manifests,
        shelf: Shelf,
        policy: TagPolicy,
        clock: Clock,
        behind: Behind,
    ) -> Self {
        Self {
            manifests,
            shelf,
            policy: Arc::new(policy),
            spread: Spread::default(),
            clock,
            behind,
            checks: SingleFlight::default(),
            fetches: SingleFlight::default(),
        }
    }

    /// The same tags, judged by another policy.
    pub(super) fn with_policy(&self, policy: TagPolicy) -> Self {
        Self {
            policy: Arc::new(policy),
            ..self.clone()
        }
    }

    /// The manifest `tag` points to, where it is fresh, in memory and anybody's; and for how long it stays fresh.
    pub(super) fn get_at_hand(
        &self,
        source: &Repository,
        tag: &Tag,
    ) -> Option<(TaggedManifest, Duration)> {
        let key = TagKey::new(source, tag.clone());
        let record = self.shelf.hot_tag(&key)?;
        let digest = record.manifest.digest;
        let manifest = self.manifests.get_at_hand(source, digest)?;
        let terms = self.policy.terms(&key.namespace, &key.repository, &key.tag);
        let (early, now) = (self.spread.of(&key), self.clock.now());
        let fresh_for = freshness::fresh_for(record.confirmed, &terms, early, now)?;
        let known = Known { record, manifest };
        Some((known.served(now), fresh_for))
    }

    /// The manifest `tag` points to, fresh, or stale as far as its terms allow.
    ///
    /// Cancel-safe: what was started goes on.
    pub(super) async fn get(
        &self,
        source: Repository,
        tag: Tag,
    ) -> Result<(Outcome, TaggedManifest), Error> {
        let key = TagKey::new(&source, tag);
        let terms = self.policy.terms(&key.namespace, &key.repository, &key.tag);
        let question = Question { source, key, terms };
        let record = self.shelf.tag(&question.key).await;
        let Some(known) = self.known(&question, record.as_ref()).await else {
            let fetch = self.fetch(&question, record);
            let role = fetch.role();
            return landed(fetch).await.map(|fetched| fetched.answer(role));
        };
        let now = self.clock.now();
        let early = self.spread.of(&question.key);
        let stale = |by, why| Ok((Outcome::Stale { by, why }, known.served(now)));
        // Who may not read it without a word of upstream waits for that.
        let is_theirs = self
            .manifests
            .outlasts_trouble(&question.source, &known.manifest);
        let is_theirs = is_theirs.await;
        match freshness::decide(known.record.confirmed, &question.terms, early, now) {
            Freshness::Fresh => {
                let (source, reference) = (&question.source, question.reference());
                let may_read = self.manifests.may_read(source, &known.manifest, &reference);
                Ok((may_read.await?, known.served(now)))
            }
            Freshness::StaleWhileRevalidate { by } if is_theirs => {
                self.check_behind(&question, &known);
                stale(by, WhyStale::WhileRevalidating)
            }
            Freshness::Revalidate { by } if is_theirs && question.spares_quota(by) => {
                stale(by, WhyStale::SparingQuota)
            }
            Freshness::Revalidate { by } if is_theirs => {
                let patience = Some(question.source.patience(REVALIDATION_PATIENCE));
                match self.revalidate(&question, &known, patience).await {
                    Ok((role, refreshed)) => Ok(refreshed.answer(role)),
                    Err(Unanswered::Silent) => stale(by, WhyStale::WhileRevalidating),
                    Err(Unanswered::Failed(error)) if question.bears(&error) => {
                        stale(by, WhyStale::OnError)
                    }
                    Err(Unanswered::Failed(error)) => Err(error),
                }
            }
            Freshness::StaleWhileRevalidate { .. }
            | Freshness::Revalidate { .. }
            | Freshness::Expired => {
                let (role, refreshed) = self.revalidate(&question, &known, None).await?;
                Ok(refreshed.answer(role))
            }
        }
    }

    /// What `record` says of the tag, where the manifest is here, too.
    async fn known(&self, question: &Question, record: Option<&TagRecord>) -> Option<Known> {
        let record = record?.clone();
        let key = ManifestKey::new(&question.source, record.manifest.digest);
        let manifest = self.shelf.manifest(&key).await?;
        Some(Known { record, manifest })
    }

    /// Asks whether the tag still points where it did, and for what it points to now.
    ///
    /// Patience ends where upstream has said that the tag moved: the old manifest is then known to be wrong, and the
    /// right one is on its way. That takes as long as the time-outs of a GET allow.
    async fn revalidate(
        &self,
        question: &Question,
        known: &Known,
        patience: Option<Duration>,
    ) -> Result<(Role, Refreshed), Unanswered> {
        if let Some(fetch) = self.fetches.find(&question.flight()) {
            // Somebody else's check has found out already.
            return Ok((fetch.role(), landed(fetch).await?));
        }
        let check = self.check(question, known.record.clone());
        let role = check.role();
        let checked = match patience {
            Some(patience) => timeout(patience, landed(check))
                .await
                .map_err(|_elapsed| Unanswered::Silent)??,
            None => landed(check).await?,
        };
        let refreshed = match checked {
            Checked::Settled(refreshed) => refreshed,
            Checked::Moved(fetch) => landed(fetch).await?,
        };
        Ok((role, refreshed))
    }

    /// The same, for the next caller: nobody waits.
    fn check_behind(&self, question: &Question, known: &Known) {
        if self.fetches.find(&question.flight()).is_none() {
            // The task runs on without a handle.
            drop(self.check(question, known.record.clone()));
        }
    }

    /// The check of a tag of which `record` is known.
    fn check(&self, question: &Question, record: TagRecord) -> Flight<Result<Checked, Error>> {
        self.checks.start(question.flight(), || {
            let (this, question) = (self.clone(), question.clone());
            async move {
                let _under_way = this.behind.under_way();
                let checked = this.ask_head(&question, &record).await;
                if let Err(error) = &checked {
                    this.failed(&question, Some(&record), error);
                }
                checked
            }
        })
    }

    async fn ask_head(&self, question: &Question, record: &TagRecord) -> Result<Checked, Error> {
        let Question { source, key, .. } = question;
        // The age counts from when the question was asked (RFC 9111 section 4.2.3).
        let asked = self.clock.now();
        if let Some(refreshed) = self.asked_by_others(question, Some(record)).await {
            return Ok(Checked::Settled(refreshed));
        }
        if let Some(refreshed) = self.told_to_replicas(question, record).await {
            return Ok(Checked::Settled(refreshed));
        }
        let head = self.manifests.head(source, &question.reference()).await?;
        let Some(digest) = head.digest else {
            // Whether it moved is known only when it has been fetched, so that is part of the check.
            let fetched = self.ask_get(question).await?;
            return Ok(Checked::Settled(fetched));
        };
        let Some(manifest) = self.shelf.manifest(&ManifestKey::new(source, digest)).await else {
            return Ok(Checked::Moved(self.fetch(question, Some(record.clone()))));
        };
        self.keep(key, &manifest, asked);
        let how = How::Confirmed;
        Ok(Checked::Settled(Refreshed { manifest, how }))
    }

    /// The fetch of a tag of which no more than `known` is known.
    fn fetch(
        &self,
        question: &Question,
        known: Option<TagRecord>,
    ) -> Flight<Result<Refreshed, Error>> {
        self.fetches.start(question.flight(), || {
            let (this, question) = (self.clone(), question.clone());
            async move {
                let _under_way = this.behind.under_way();
                if let Some(refreshed) = this.asked_by_others(&question, known.as_ref()).await {
                    return Ok(refreshed);
                }
                let fetched = this.ask_get(&question).await;
                if let Err(error) = &fetched {
                    this.failed(&question, known.as_ref(), error);
                }
                fetched
            }
        })
    }

    async fn ask_get(&self, question: &Question) -> Result<Refreshed, Error> {
        let asked = self.clock.now();
        let reference = question.reference();
        let manifest = self.manifests.fetch(&question.source, &reference).await?;
        self.keep(&question.key, &manifest, asked);
        let how = How::Fetched;
        Ok(Refreshed { manifest, how })
    }

    /// What somebody else was told, whose question ended since this caller looked and found `known`, and was not there
    /// to be joined any more.
    async fn asked_by_others(
        &self,
        question: &Question,
        known: Option<&TagRecord>,
    ) -> Option<Refreshed> {
        let record = self.shelf.hot_tag(&question.key)?;
        if Some(&record) == known {
            return None;
        }
        let key = ManifestKey::new(&question.source, record.manifest.digest);
        let manifest = self.shelf.manifest(&key).await?;
        let (source, reference) = (&question.source, question.reference());
        let may_read = self.manifests.may_read(source, &manifest, &reference);
        may_read.await.ok()?;
        let how = How::ByOthers;
        Some(Refreshed { manifest, how })
    }

    /// What another replica was told since upstream was asked here, where that is still fresh.
    async fn told_to_replicas(&self, question: &Question, known: &TagRecord) -> Option<Refreshed> {
        if question.terms.lifetime == Lifetime::Limited(Duration::ZERO) {
            return None;
        }
        let record = self.shelf.newer_tag(&question.key, known).await?;
        let early = self.spread.of(&question.key);
        let now = self.clock.now();
        let freshness = freshness::decide(record.confirmed, &question.terms, early, now);
        if freshness != Freshness::Fresh {
            return None;
        }
        let key = ManifestKey::new(&question.source, record.manifest.digest);
        let manifest = self.shelf.manifest(&key).await?;
        let (source, reference) = (&question.source, question.reference());
        let may_read = self.manifests.may_read(source, &manifest, &reference);
        may_read.await.ok()?;
        self.keep(&question.key, &manifest, record.confirmed);
        let how = How::ByOthers;
        Some(Refreshed { manifest, how })
    }

    fn keep(&self, key: &TagKey, manifest: &Manifest, asked: SystemTime) {
        let now = &manifest.descriptor;
        let Some(before) = self.shelf.keep_tag(key, now, asked) else {
            return;
        };
        if before.manifest.digest != now.digest {
            // What a rollback, or a tag that nobody should have pushed over, looks like from here.
            tracing::info!(
                namespace = %key.namespace, repository = %key.repository, tag = %key.tag,
                from = %before.manifest.digest, to = %now.digest, held_s = before.held_for(asked).as_secs(),
                "a tag moved"
            );
        }
    }

    /// What follows from an error, once for everybody who waits for it or does not.
    fn failed(&self, question: &Question, known: Option<&TagRecord>, error: &Error) {
        let Question { source, key, .. } = question;
        let is_callers = matches!(source.holder(), Holder::Caller(_));
        if question.on_refusal(error) == Some(OnRefusal::Deny) && !is_callers {
            // It is upstream's last word: an outage later must not bring the tag up again. What it says to one caller
            // is about that caller alone.
            self.shelf.forget_tag(key);
        }
        if let Some(record) = known {
            let now = self.clock.now();
            tracing::warn!(
                %source, tag = %key.tag, %error, age_s = record.age(now).as_secs(),
                held_s = record.held_for(now).as_secs(), "a known tag could not be confirmed"
            );
        }
    }
}

impl Question {
    fn flight(&self) -> FlightKey {
        (self.source.holder().clone(), self.key.clone())
    }

    fn reference(&self) -> Reference {
        Reference::Tag(self.key.tag.clone())
    }

    /// What the terms say of an error that is upstream's word on the tag; `None` for any other.
    fn on_refusal(&self, error: &Error) -> Option<OnRefusal> {
        match error {
            Error::Upstream(upstream::Error::NotFound) => Some(self.terms.on_not_found),
            Error::Upstream(upstream::Error::Denied(_)) => Some(self.terms.on_unauthorized),
            Error::Upstream(_)
            | Error::WrongDigest { .. }
            | Error::Manifest(_)
            | Error::Full { .. }
            | Error::Broken => None,
        }
    }

    /// Whether a tag that has not been fresh for `by` is served unchecked to spare what upstream still gives. Never so
    /// for tags that are to be checked every time, whose lifetime is zero.
    fn spares_quota(&self, by: Duration) -> bool {
        match self.terms.lifetime {
            Lifetime::Limited(ttl) => {
                by < ttl.saturating_mul(SLOWED_DOWN - 1) && self.source.is_short_of_quota()
            }
            Lifetime::Immutable => false,
        }
    }

    /// Whether a stale copy may stand in after `error`.
    fn bears(&self, error: &Error) -> bool {
        match self.on_refusal(error) {
            Some(on_refusal) => on_refusal == OnRefusal::Serve,
            None => error.is_trouble(),
        }
    }
}

impl Known {
    fn served(&self, now: SystemTime) -> TaggedManifest {
        TaggedManifest {
            manifest: Arc::clone(&self.manifest),
            age: self.record.age(now),
        }
    }
}

impl Refreshed {
    fn answer(self, role: Role) -> (Outcome, TaggedManifest) {
        let outcome = match self.how {
            How::Fetched => Outcome::fetched(role),
            How::Confirmed => Outcome::Revalidated,
            How::ByOthers => Outcome::fetched(Role::Follower),
        };
        let manifest = self.manifest;
        let age = Duration::ZERO;
        (outcome, TaggedManifest { manifest, age })
    }
}

/// Waits for a check or a fetch.
async fn landed<T: Clone>(flight: Flight<Result<T, Error>>) -> Result<T, Error> {
    flight.landed().await.unwrap_or(Err(Error::Broken))
}
