//! Who may read what is stored: bytes are kept once, and read by right.
//!
//! What upstream gave to somebody who showed nothing is everybody's ([`Audience::Everybody`](crate::storage::Audience::Everybody)), and never comes here.
//! For everything else two facts have to hold, and upstream confirms both:
//!
//! * a **link**: this repository has this digest. Made when upstream sent the digest through the repository, or said so
//!   to a HEAD; dropped when it says 404. It is the same for everybody, and stays until upstream takes it back.
//! * a **right**: this [`Holder`] – the mirror by its credential, anybody, or one caller by their token – may read the
//!   repository. Believed for `authz_ttl`; dropped when upstream says 401 or 403.
//!
//! Where one of them is missing, one HEAD with the holder's own credential decides ([`Links::prove`]): 200 makes both,
//! a refusal is the answer a miss would get, and trouble is trouble: stored bytes alone prove nothing. So what is
//! answered never depends on what is cached, only how often upstream is asked.
//!
//! While upstream is in trouble the mirror's own right goes on for seven days, a caller's for `authz_grace`;
//! only if the link is there. What a registry says that anybody could have set up makes no link for bytes that somebody
//! else sent (`Repository::is_believed`): it could claim to have anything.
//!
//! Links and the mirror's own rights are small records on disk; a damaged one is a missing one. Callers' rights are in
//! memory alone, by a keyed hash of the token. Refusals are not remembered at all.

mod kept;

mod record;
use record::Place;
pub(super) use record::user_of;

mod right;
use right::Right;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::Error;
use super::behind::Behind;
use super::pending::Pending;
use super::tier::Tier;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oci::{Digest, Reference};
use crate::single_flight::SingleFlight;
use crate::storage::Local;
use crate::upstream::{self, Holder, Repository, TokenChallenge};

/// How long a HEAD may be silent before a right that is only overdue is believed, and the HEAD goes on behind: as for
/// tags, somebody is waiting in front of a terminal.
const PATIENCE: Duration = Duration::from_millis(800);

/// How many links stay in memory, at some two hundred bytes each.
const HOT_LINKS_MAX: u64 = 50_000;

/// How many rights are remembered, at some two hundred bytes each: holders times repositories.
const RIGHTS_MAX: u64 = 50_000;

/// How many repositories are remembered to want a token, at some five hundred bytes each.
const CHALLENGES_MAX: u64 = 5_000;

type LinkKey = (Place, Digest);
type RightKey = (Holder, Place);

/// What upstream is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// A blob.
    Blob(Digest),
    /// A manifest, by tag or by digest.
    Manifest(Reference),
}

/// That a caller may read something that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// It was known, or is believed while upstream is in trouble.
    Held,
    /// Upstream said so just now.
    Confirmed {
        /// How large it says the content is; `None` for manifests.
        size: Option<u64>,
    },
    /// Upstream said so, but its word is not enough: it has to send the bytes.
    Unbelieved,
}

/// Links and rights. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Links {
    storage: Local,
    tier: Tier,
    metrics: Metrics,
    clock: Clock,
    hot: moka::sync::Cache<LinkKey, ()>,
    rights: moka::sync::Cache<RightKey, Right>,
    /// How callers are let in where anybody is not.
    challenges: moka::sync::Cache<Place, TokenChallenge>,
    /// Until when some caller's right may be believed, with its grace.
    believed: moka::sync::Cache<Place, SystemTime>,
    checks: SingleFlight<(RightKey, Subject), Result<Proof, upstream::Error>>,
    /// On their way to disk; `false` and `None` are on their way to being removed.
    linking: Pending<LinkKey, bool>,
    granting: Pending<RightKey, Option<Right>>,
}

impl Links {
    pub(super) fn new(
        storage: Local,
        tier: Tier,
        behind: Behind,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self {
            storage,
            tier,
            metrics,
            clock,
            hot: moka::sync::Cache::new(HOT_LINKS_MAX),
            rights: moka::sync::Cache::new(RIGHTS_MAX),
            challenges: moka::sync::Cache::new(CHALLENGES_MAX),
            believed: moka::sync::Cache::new(CHALLENGES_MAX),
            checks: SingleFlight::default(),
            linking: Pending::new(behind.clone()),
            granting: Pending::new(behind),
        }
    }

    /// Whether the holder of `source` may read what is stored of `subject`: as known, or as upstream says now. For a
    /// manifest, that it is stored for this repository is the link.
    ///
    /// Cancel-safe: a question that was asked is answered for whoever asks next.
    ///
    /// # Errors
    /// What upstream says, when that is no, or what keeps it from saying anything.
    pub(super) async fn prove(
        &self,
        source: &Repository,
        subject: Subject,
    ) -> Result<Proof, Error> {
        let is_linked = match &subject {
            Subject::Blob(digest) => self.is_linked(source, digest).await,
            Subject::Manifest(_) => true,
        };
        let right = self.right(source).await;
        let now = self.clock.now();
        if is_linked && right.is_some_and(|right| right.is_fresh(now)) {
            return Ok(Proof::Held);
        }
        let may_do_without =
            is_linked && right.is_some_and(|right| right.outlasts_trouble(source, now));
        let check = self.check(source, subject, is_linked);
        if !may_do_without {
            return Ok(check.await?);
        }
        // A check that nobody waits for is begun all the same: a time-out asks first and looks at the time then.
        match timeout(source.patience(PATIENCE), check).await {
            Ok(Err(error)) if error.is_trouble() => Ok(Proof::Held),
            Err(_elapsed) => Ok(Proof::Held),
            Ok(checked) => Ok(checked?),
        }
    }

    /// Whether the holder of `source` may read what is stored of its repository while upstream cannot say.
    pub(super) async fn outlasts_trouble(&self, source: &Repository) -> bool {
        let right = self.right(source).await;
        let now = self.clock.now();
        right.is_some_and(|right| right.is_fresh(now) || right.outlasts_trouble(source, now))
    }

    /// Asks upstream by HEAD, once for all who ask the same by the same right.
    async fn check(
        &self,
        source: &Repository,
        subject: Subject,
        is_linked: bool,
    ) -> Result<Proof, upstream::Error> {
        let key = (Self::right_key(source), subject.clone());
        let task = || {
            let (this, source) = (self.clone(), source.clone());
            async move {
                let asked = match &subject {
                    Subject::Blob(digest) => source.head_blob(digest).await.map(Some),
                    Subject::Manifest(reference) => {
                        source.head_manifest(reference).await.map(|_| None)
                    }
                };
                match asked {
                    Ok(size) => {
                        let is_enough = is_linked || source.is_believed();
                        this.allowed(&source);
                        if let Subject::Blob(digest) = &subject
                            && is_enough
                        {
                            this.link(&source, digest);
                        }
                        Ok(if is_enough {
                            Proof::Confirmed { size }
                        } else {
                            Proof::Unbelieved
                        })
                    }
                    Err(error) => {
                        let blob = match &subject {
                            Subject::Blob(digest) => Some(digest),
                            Subject::Manifest(_) => None,
                        };
                        this.refused(&source, blob, &error);
                        Err(error)
                    }
                }
            }
        };
        let (_, checked) = self.checks.run(key, task).await;
        checked.unwrap_or_else(|panicked| {
            tracing::error!(%panicked, "a check panicked");
            Err(upstream::Error::Unavailable(Arc::new(panicked)))
        })
    }

    /// Learns from an answer about the repository itself, such as its list of tags.
    pub(super) fn learn<T>(&self, source: &Repository, answer: &Result<T, upstream::Error>) {
        match answer {
            Ok(_) if source.gives_to_anybody() => self.opened(source),
            Ok(_) => self.allowed(source),
            Err(error) => self.refused(source, None, error),
        }
    }

    /// `source` sent the blob `digest`, whole and right.
    pub(super) fn gave(&self, source: &Repository, digest: &Digest) {
        if source.gives_to_anybody() {
            // Then the bytes are everybody's, or others gave them too and need this link no more than a HEAD later.
            return;
        }
        self.allowed(source);
        self.link(source, digest);
    }

    /// Upstream answered the holder of `source` as one who may read the repository.
    pub(super) fn allowed(&self, source: &Repository) {
        if *source.holder() == Holder::Anybody {
            self.opened(source);
        }
        let right = Right::new(source, self.clock.now());
        self.keep_right(source, right);
    }

    /// Whether anybody was refused, so that a token is worth showing.
    pub(super) fn want_token(&self, source: &Repository) -> bool {
        self.challenges.contains_key(&Place::of(source))
    }

    /// Anybody was let in.
    pub(super) fn opened(&self, source: &Repository) {
        self.challenges.invalidate(&Place::of(source));
    }

    /// What upstream's refusal ends, of the `blob` where one was asked for. Trouble ends nothing.
    pub(super) fn refused(
        &self,
        source: &Repository,
        blob: Option<&Digest>,
        error: &upstream::Error,
    ) {
        match error {
            upstream::Error::Denied(denial) => {
                self.drop_right(source);
                if let Some(challenge) = denial.challenge() {
                    self.challenges.insert(Place::of(source), challenge.clone());
                }
            }
            upstream::Error::NotFound => {
                if let Some(digest) = blob
                    && !matches!(source.holder(), Holder::Caller(_))
                {
                    self.unlink(source, digest);
                }
            }
            upstream::Error::RateLimited { .. }
            | upstream::Error::Busy { .. }
            | upstream::Error::Unavailable(_)
            | upstream::Error::TimedOut(_)
            | upstream::Error::TooLarge { .. }
            | upstream::Error::Protocol(_)
            | upstream::Error::Refused(_)
            | upstream::Error::Loop => {}
        }
    }

    /// What a caller is told when upstream is in trouble: where anybody was refused before and some caller's right is
    /// still believed, how to show a right, since that may be all it takes.
    pub(super) fn told(&self, source: &Repository, error: Error) -> Error {
        if !error.is_trouble() || *source.holder() != Holder::Anybody {
            return error;
        }
        let place = Place::of(source);
        let now = self.clock.now();
        let is_believed = self.believed.get(&place).is_some_and(|until| now < until);
        let Some(challenge) = self.challenges.get(&place).filter(|_| is_believed) else {
            return error;
        };
        let reason = format!("it wants to know who asks, and cannot be asked itself: {error}");
        let denial = upstream::Denial::from(reason).with_challenge(Some(challenge));
        upstream::Error::Denied(denial).into()
    }
}
