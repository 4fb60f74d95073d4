//! Lists: the tags of a repository and what refers to a manifest, whole, for a short while; for longer while upstream
//! is in trouble.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::freshness::{Early, Freshness, Lifetime, TagPolicy, TagTerms, decide};
use super::links::Links;
use super::list_store::{ListKey, ListStore};
use super::{Error, Outcome, WhyStale};
use crate::clock::Clock;
use crate::oci::{Digest, Referrers, TagList};
use crate::single_flight::{Role, SingleFlight};
use crate::upstream::{self, Repository};

/// For how long a list is fresh. A list is asked for by people and by jobs that look for something new, in bursts: long
/// enough that a burst costs one list, short enough that a signature is seen soon after it was made.
const LIST_TTL: Duration = Duration::from_mins(1);

/// How many bytes of lists of one kind stay in memory: some hundred long ones. The longest, that of a repository with
/// a tag for every build, takes some 10 MiB.
const HOT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What an entry weighs beside its list: its key, its times, its place in the map.
const ENTRY_BYTES: usize = 512;

/// How many lists are fetched at once: each may hold some 20 MiB in memory while it grows. Further ones wait in line.
const FETCHES_MAX: usize = 16;

/// How long upstream may be silent before a stale list is served and the check goes on behind: as long as for a tag.
const PATIENCE: Duration = Duration::from_millis(800);

/// The same for a list that is known to take long, because it comes in many pages. The time-outs of clients are some
/// ten seconds.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// For how long it is remembered that a repository is not there, so that a loop in some script does not ask upstream
/// again each time.
const MISSING_TTL: Duration = Duration::from_secs(2);

/// A list that upstream confirmed again within this time is not written again: after a restart it is merely that much
/// older.
const WRITTEN_AGAIN: Duration = Duration::from_mins(10);

/// How many repositories that are not there are remembered, at some hundred bytes each.
const MISSING_MAX: u64 = 10_000;

/// A list, and for how long it has been known that it is like that.
#[derive(Debug, Clone)]
pub struct Listed<L> {
    /// The list.
    pub list: Arc<L>,
    /// Time since upstream said so last.
    pub age: Duration,
}

/// A question to upstream under way. Boxed, because it is large, and most callers ask none.
type Asking<L> = BoxFuture<'static, Result<L, upstream::Error>>;

/// Lists of both kinds. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Listings {
    tags: Lists<TagList>,
    referrers: Lists<Referrers>,
    links: Links,
}

/// Lists of one kind. Cheap to clone.
struct Lists<L> {
    store: ListStore,
    terms: TagTerms,
    clock: Clock,
    /// What a list takes of memory, in bytes.
    weight: fn(&L) -> usize,
    hot: moka::sync::Cache<ListKey, Known<L>>,
    /// When upstream said that there is no such thing.
    missing: moka::sync::Cache<ListKey, SystemTime>,
    /// How many may be fetched at once.
    permits: Arc<Semaphore>,
    /// Fetches under way.
    fetches: SingleFlight<ListKey, Result<Fetched<L>, Error>>,
}

/// What is known of a list.
#[derive(Debug)]
struct Known<L> {
    list: Arc<L>,
    /// When upstream was asked for it.
    checked: SystemTime,
    /// How long upstream took.
    took: Duration,
    /// When it had been asked for according to the disk.
    on_disk: SystemTime,
}

/// What came of asking upstream.
#[derive(Debug)]
struct Fetched<L> {
    list: Arc<L>,
    /// Whether somebody else had asked since this caller looked.
    is_by_others: bool,
}

impl Listings {
    /// Lists that are believed for a short while, and never for longer than `tags` says of a tag.
    pub(super) fn new(store: ListStore, links: Links, tags: &TagPolicy, clock: Clock) -> Self {
        let permits = Arc::new(Semaphore::new(FETCHES_MAX));
        let common = (store, terms_of_lists(tags), clock, permits);
        Self {
            tags: Lists::new(TagList::weight, common.clone()),
            referrers: Lists::new(Referrers::weight, common),
            links,
        }
    }

    /// The same lists, believed for as long as `tags` says.
    pub(super) fn with_tags(&self, tags: &TagPolicy) -> Self {
        let terms = terms_of_lists(tags);
        Self {
            tags: Lists {
                terms,
                ..self.tags.clone()
            },
            referrers: Lists {
                terms,
                ..self.referrers.clone()
            },
            links: self.links.clone(),
        }
    }

    pub(super) async fn tags(
        &self,
        source: Repository,
    ) -> Result<(Outcome, Listed<TagList>), Error> {
        let key = ListKey::new(&source, None);
        let may_do_without = self.may_do_without_upstream(&source).await;
        let patience = source.patience(PATIENCE);
        let links = self.links.clone();
        let ask = move || {
            let ask = async move {
                let answer = source.tags().await;
                links.learn(&source, &answer);
                answer
            };
            ask.boxed()
        };
        self.tags
            .get(key, may_do_without.then_some(patience), ask)
            .await
    }

    pub(super) async fn referrers(
        &self,
        source: Repository,
        subject: Digest,
    ) -> Result<(Outcome, Listed<Referrers>), Error> {
        let key = ListKey::new(&source, Some(subject));
        let may_do_without = self.may_do_without_upstream(&source).await;
        let patience = source.patience(PATIENCE);
        let links = self.links.clone();
        let ask = move || {
            let ask = async move {
                let answer = source.referrers(&subject).await;
                links.learn(&source, &answer);
                answer
            };
            ask.boxed()
        };
        self.referrers
            .get(key, may_do_without.then_some(patience), ask)
            .await
    }

    /// Whether a list that the holder of `source` was shown before may be shown again without a word of upstream.
    async fn may_do_without_upstream(&self, source: &Repository) -> bool {
        source.gives_to_anybody() || self.links.outlasts_trouble(source).await
    }
}

impl<L> Lists<L>
where
    L: PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    fn new(
        weight: fn(&L) -> usize,
        (store, terms, clock, permits): (ListStore, TagTerms, Clock, Arc<Semaphore>),
    ) -> Self {
        let weigh = move |_: &ListKey, known: &Known<L>| {
            u32::try_from(weight(&known.list) + ENTRY_BYTES).unwrap_or(u32::MAX)
        };
        let hot = moka::sync::Cache::builder()
            .max_capacity(HOT_BYTES_MAX)
            .weigher(weigh)
            .build();
        Self {
            store,
            terms,
            clock,
            weight,
            hot,
            missing: moka::sync::Cache::new(MISSING_MAX),
            permits,
            fetches: SingleFlight::default(),
        }
    }

    /// The list `key`. `ask` asks upstream for it, where that is needed. Where a list may be shown again without a word
    /// of upstream, `patience` is for how long that is waited for; a long list takes longer, but nothing at all is
    /// waited for where it is zero.
    async fn get(
        &self,
        key: ListKey,
        patience: Option<Duration>,
        ask: impl FnOnce() -> Asking<L> + Send + 'static,
    ) -> Result<(Outcome, Listed<L>), Error> {
        if self.is_missing(&key) {
            return Err(upstream::Error::NotFound.into());
        }
        let Some(known) = self.known(&key).await else {
            return self.fetch(&key, None, ask).await;
        };
        // Not before: what somebody else fetched meanwhile would come from the future.
        let now = self.clock.now();
        let age = now.duration_since(known.checked).unwrap_or_default();
        let listed = |age| Listed {
            list: Arc::clone(&known.list),
            age,
        };
        let Some(patience) = patience else {
            return self.fetch(&key, Some(known.checked), ask).await;
        };
        // Lists live too shortly to be spread.
        let by = match decide(known.checked, &self.terms, Early::NOT, now) {
            Freshness::Fresh => return Ok((Outcome::Hit, listed(age))),
            Freshness::StaleWhileRevalidate { by } | Freshness::Revalidate { by } => by,
            Freshness::Expired => return self.fetch(&key, Some(known.checked), ask).await,
        };
        // Whether upstream fails or takes too long, there is something to serve meanwhile.
        let stale = |why| Ok((Outcome::Stale { by, why }, listed(age)));
        let patience = if patience.is_zero() {
            patience
        } else {
            (known.took * 2).clamp(patience, PATIENCE_MAX)
        };
        match timeout(patience, self.fetch(&key, Some(known.checked), ask)).await {
            Ok(Err(error)) if error.is_trouble() => {
                let ListKey {
                    namespace,
                    repository,
                    ..
                } = &key;
                tracing::warn!(%namespace, %repository, %error, "serving a stale list");
                stale(WhyStale::OnError)
            }
            Ok(outcome) => outcome,
            Err(_elapsed) => stale(WhyStale::WhileRevalidating),
        }
    }

    /// What is known of the list `key`.
    async fn known(&self, key: &ListKey) -> Option<Known<L>> {
        if let Some(known) = self.hot.get(key) {
            return Some(known);
        }
        let (list, checked) = self.store.read(key).await?;
        // Somebody may know better meanwhile.
        let known = self.hot.entry_by_ref(key).or_insert_with(|| Known {
            list: Arc::new(list),
            checked,
            took: Duration::ZERO,
            on_disk: checked,
        });
        Some(known.into_value())
    }

    /// Asks upstream, once for everybody who wants to know. `known` is when what is known was asked for.
    async fn fetch(
        &self,
        key: &ListKey,
        known: Option<SystemTime>,
        ask: impl FnOnce() -> Asking<L> + Send + 'static,
    ) -> Result<(Outcome, Listed<L>), Error> {
        let task = || {
            let (this, key) = (self.clone(), key.clone());
            async move { this.ask(key, known, ask).await }
        };
        let (role, fetched) = self.fetches.run(key.clone(), task).await;
        let Fetched { list, is_by_others } = fetched.map_err(|_| Error::Broken)??;
        let outcome = Outcome::Miss {
            collapsed: is_by_others || role == Role::Follower,
            stored: true,
        };
        let age = Duration::ZERO;
        Ok((outcome, Listed { list, age }))
    }

    async fn ask(
        &self,
        key: ListKey,
        known: Option<SystemTime>,
        ask: impl FnOnce() -> Asking<L>,
    ) -> Result<Fetched<L>, Error> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await.map_err(|_| Error::Broken)?;
        // Somebody else's question may have ended since the look-up, and was not there to be joined any more.
        let newer = self.hot.get(&key);
        if let Some(newer) = newer.filter(|newer| Some(newer.checked) != known) {
            return Ok(Fetched {
                list: newer.list,
                is_by_others: true,
            });
        }
        // The age counts from when the question was asked (RFC 9111 section 4.2.3).
        let (checked, started) = (self.clock.now(), Instant::now());
        let list = match ask().await {
            Ok(list) => Arc::new(list),
            Err(error) => {
                self.learn_failure(&key, &error, checked);
                return Err(error.into());
            }
        };
        self.keep(&key, &list, checked, started.elapsed());
        Ok(Fetched {
            list,
            is_by_others: false,
        })
    }

    fn keep(&self, key: &ListKey, list: &Arc<L>, checked: SystemTime, took: Duration) {
        let before = self.hot.get(key);
        let is_same = before.as_ref().is_some_and(|before| before.list == *list);
        // A list that is asked for every minute need not go to disk every minute.
        let on_disk = before.map(|before| before.on_disk).filter(|on_disk| {
            let later = checked.duration_since(*on_disk);
            is_same && later.is_ok_and(|later| later < WRITTEN_AGAIN)
        });
        let known = Known {
            list: Arc::clone(list),
            checked,
            took,
            on_disk: on_disk.unwrap_or(checked),
        };
        self.hot.insert(key.clone(), known);
        if (self.weight)(list) > 0 {
            if on_disk.is_none() {
                self.store.keep(key, list, checked);
            }
        } else if !is_same {
            // Any number of digests can be made up to which nothing refers: no files for them.
            self.store.forget(key);
        }
    }

    /// Upstream took it back: an outage later must not bring it up again.
    fn learn_failure(&self, key: &ListKey, error: &upstream::Error, asked: SystemTime) {
        match error {
            upstream::Error::NotFound => {
                self.forget(key);
                self.missing.insert(key.clone(), asked);
            }
            upstream::Error::Denied(_) => self.forget(key),
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

    fn forget(&self, key: &ListKey) {
        self.store.forget(key);
        self.hot.invalidate(key);
    }

    /// Whether upstream said just now that there is no such thing.
    fn is_missing(&self, key: &ListKey) -> bool {
        let said = self.missing.get(key);
        let age = said.and_then(|said| self.clock.now().duration_since(said).ok());
        age.is_some_and(|age| age < MISSING_TTL)
    }
}

/// What the operator says of tags, as it holds for lists.
fn terms_of_lists(tags: &TagPolicy) -> TagTerms {
    let general = tags.in_general();
    let ttl = match general.lifetime {
        Lifetime::Limited(ttl) => ttl.min(LIST_TTL),
        Lifetime::Immutable => LIST_TTL,
    };
    TagTerms {
        lifetime: Lifetime::Limited(ttl),
        stale_while_revalidate: Duration::ZERO,
        ..general
    }
}

// Derived, these would ask the same of the list, too.

impl<L> Clone for Lists<L> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            terms: self.terms,
            clock: self.clock.clone(),
            weight: self.weight,
            hot: self.hot.clone(),
            missing: self.missing.clone(),
            permits: Arc::clone(&self.permits),
            fetches: self.fetches.clone(),
        }
    }
}

impl<L> Clone for Known<L> {
    fn clone(&self) -> Self {
        Self {
            list: Arc::clone(&self.list),
            checked: self.checked,
            took: self.took,
            on_disk: self.on_disk,
        }
    }
}

impl<L> Clone for Fetched<L> {
    fn clone(&self) -> Self {
        Self {
            list: Arc::clone(&self.list),
            is_by_others: self.is_by_others,
        }
    }
}

impl<L> fmt::Debug for Lists<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lists").finish_non_exhaustive()
    }
}
