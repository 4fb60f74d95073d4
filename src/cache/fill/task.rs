//! The task of a fill: finds a source, keeps workers at work, verifies, publishes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::giver::{Giver, Stream};
use super::growth::{Growth, MEASURE, Measured, PARALLEL_BYTES_MIN, UNBOUNDED_BYTES_MIN};
use super::places::{Place, full};
use super::progress::FRONT_BYTES;
use super::run::RUN_BYTES_MIN;
use super::sink::Sink;
use super::worker::{Start, Stopped, Worker};
use super::{End, Fill, FillError, Fills, Opened, Share};
use crate::cache::behind::Behind;
use crate::cache::evict::{Evictor, Reservation};
use crate::cache::links::Links;
use crate::cache::tier::{Found, Held, ROOM_PATIENCE, Tier};
use crate::metrics::Metrics;
use crate::storage::{Local, StoredBlob};
use crate::upstream::{self, Extent};

/// How long one fill may take at most: the largest layer that a registry takes (52 000 MiB, Amazon ECR quotas) over
/// 20 Mbit/s. Stalls end much earlier, by the upstream's idle time-out.
const FILL_DEADLINE: Duration = Duration::from_hours(6);

/// Largest blob taken from an upstream that does not say how large it is, in bytes. Its readers wait for all of it,
/// since nothing can be answered without a length.
const UNDECLARED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Largest blob that is taken, in bytes: the largest layer that a registry takes (52 000 MiB, Amazon ECR quotas).
/// Whoever declares more means no blob.
const BLOB_BYTES_MAX: u64 = 52_000 * 1024 * 1024;

/// The pause before a source that failed at once is asked once more, on average: one bad answer among many requests is
/// no reason to fail everybody who waits.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// How far ahead of what is being received a reader has to wait, in bytes, for a connection of its own to be opened at
/// once. Nearer readers wait until the rate is known.
const NEAR_BYTES: u64 = 16 * 1024 * 1024;

/// For how long, at the present rate, a reader waits for the front to come to it rather than for a connection of its
/// own.
const PATIENCE: Duration = Duration::from_millis(500);

/// Brings the blob of `fill` in. Gives it where it is not kept and the shared tier is to get it.
pub(super) async fn run(fill: &Arc<Fill>, fills: &Fills) -> Option<Held> {
    let task = Task {
        fill,
        fills,
        storage: &fills.storage,
        links: &fills.links,
        evictor: &fills.evictor,
        tier: &fills.tier,
        behind: &fills.behind,
        metrics: &fills.metrics,
    };
    let late = || FillError::Upstream(upstream::Error::TimedOut(upstream::Silence::Body));
    let result = timeout(FILL_DEADLINE, task.run()).await;
    match result.unwrap_or_else(|_| Err(late())) {
        Ok(held) => held,
        Err(error) => {
            info!(digest = %fill.digest, %error, "fill failed");
            fill.end(End::Failed(error));
            None
        }
    }
}

struct Task<'a> {
    fill: &'a Arc<Fill>,
    fills: &'a Fills,
    storage: &'a Local,
    links: &'a Links,
    evictor: &'a Evictor,
    tier: &'a Tier,
    behind: &'a Behind,
    metrics: &'a Metrics,
}

impl Task<'_> {
    async fn run(&self) -> Result<Option<Held>, FillError> {
        if self.find_stored().await? {
            return Ok(None);
        }
        let mut opened = self.find_shared().await;
        let (mut place, mut asked_again) = (None, false);
        loop {
            let (source, stream) = match opened.take() {
                Some(opened) => opened,
                None => self.open().await?,
            };
            if place.is_none() {
                place = Some(self.find_place(stream.total()).await?);
            }
            // Dropped after the file: what is not kept takes room until that is gone.
            let mut room = self.reserve(stream.total()).await?;
            let sink = self.make_sink(stream.total()).await?;
            let label = source.label().to_owned();
            let asked = self.receive(source, stream, &sink).await?;
            match self.finish(&sink, &mut room, &label).await {
                Err(FillError::WrongDigest { .. }) if self.distrust().await => {
                    self.fill.sources.begin_anew();
                    self.fill.begin_anew();
                }
                Err(wrong @ FillError::WrongDigest { .. }) => {
                    // Some registries mix up answers now and then: who is the only one to ask is asked once more.
                    let once_more = !asked_again && !self.fill.sources.has_other_than(&asked);
                    if !once_more {
                        self.blame(&asked);
                        if !self.fill.sources.has_more() {
                            return Err(wrong);
                        }
                    }
                    asked_again |= once_more;
                    self.fill.sources.begin_anew();
                    self.fill.begin_anew();
                }
                ended => return ended,
            }
        }
    }

    /// One registry's wrong bytes are not the trouble of those who brought another.
    fn blame(&self, asked: &[Giver]) {
        for source in asked {
            let error = upstream::Error::Protocol("it sends wrong bytes".to_owned());
            self.fill.sources.failed(source, error);
        }
    }

    /// Looks once more: between a caller's look-up and this fill, another fill of the same blob may have ended.
    async fn find_stored(&self) -> Result<bool, FillError> {
        let (storage, digest) = (self.storage.clone(), self.fill.digest);
        let stored = blocking(move || storage.verified_blob(&digest)).await?;
        // Storage that cannot say is dealt with where it has to take the bytes.
        let Ok(Some(StoredBlob {
            file,
            size,
            audience,
            ..
        })) = stored
        else {
            return Ok(false);
        };
        self.fill.state.send_modify(|state| {
            state.file = Some(file);
            state.plan.set_present(size);
            state.found = Some(audience);
        });
        self.fill.end(End::Verified);
        Ok(true)
    }

    /// Asks the shared tier, which comes before all others.
    async fn find_shared(&self) -> Option<(Giver, Stream)> {
        let (share, opened) = match self.tier.find(&self.fill.digest).await {
            Found::Nothing => return None,
            Found::Trouble => (Share::Trouble, None),
            Found::Blob(blob, stream) => {
                self.fill.sources.found(blob.clone());
                let giver = Giver::Shared(blob);
                self.fill.sources.gave(&giver);
                (Share::Gave, Some((giver, Stream::Shared(Box::new(stream)))))
            }
        };
        // Nobody waits for this alone.
        self.fill.state.send_modify(|state| state.share = share);
        opened
    }

    /// The bytes so far were wrong. Some may be of the shared tier: then nobody else is blamed, and it is asked no more.
    /// Gives whether that is so.
    async fn distrust(&self) -> bool {
        let Some(blob) = self.fill.sources.shared() else {
            return false;
        };
        self.tier.distrust(&self.fill.digest, &blob).await;
        let error = upstream::Error::Protocol("it has wrong bytes".to_owned());
        self.fill.sources.failed(&Giver::Shared(blob), error);
        self.fill.sources.has_more()
    }

    /// Asks one source after the other for the blob.
    async fn open(&self) -> Result<(Giver, Stream), FillError> {
        let mut last = FillError::Broken;
        while let Some(source) = self.fill.sources.next() {
            match self.ask_twice(&source).await {
                Ok(stream) => {
                    self.fill.sources.gave(&source);
                    return Ok((source, stream));
                }
                Err(error) => {
                    debug!(?source, %error, "source failed");
                    self.fill.sources.failed(&source, error.clone());
                    last = error.into();
                }
            }
        }
        Err(last)
    }

    async fn ask_twice(&self, source: &Giver) -> Result<Stream, upstream::Error> {
        match source.get(self.first_extent()).await {
            // Nobody is asked who is left alone.
            Err(error @ upstream::Error::Unavailable(_))
                if source.is_asked_again() && source.left_alone_for().is_none() =>
            {
                self.metrics.upstream_retry(error.as_str());
                sleep(REOPEN_PAUSE.mul_f64(0.5 + fastrand::f64())).await;
                source.get(self.first_extent()).await
            }
            // The hint may be wrong, and not every server does ranges.
            Err(upstream::Error::Protocol(_)) if self.first_extent() != Extent::Whole => {
                source.get(Extent::Whole).await
            }
            answered => answered,
        }
    }

    /// What is asked for first. A blob that is known to be large is asked for in parts from the start, so that further
    /// connections may join without anything coming twice.
    fn first_extent(&self) -> Extent {
        match self.fill.hint {
            Some(total) if (PARALLEL_BYTES_MIN..=BLOB_BYTES_MAX).contains(&total) => Extent::Part {
                range: 0..RUN_BYTES_MIN,
                total,
            },
            Some(_) | None => Extent::Whole,
        }
    }

    /// Waits in line to bring in a blob of `size` bytes, for as long as anybody wants it.
    async fn find_place(&self, size: Option<u64>) -> Result<Place, FillError> {
        let mut place = pin!(self.fills.places.wait(size));
        loop {
            tokio::select! {
                biased;
                place = &mut place => return place,
                () = self.fill.state.closed() => {
                    if self.fills.give_up(self.fill) {
                        return Err(full());
                    }
                }
            }
        }
    }

    /// Room for the blob, where it is known how much it needs.
    async fn reserve(&self, size: Option<u64>) -> Result<Option<Reservation>, FillError> {
        let Some(size) = size.filter(|size| *size <= BLOB_BYTES_MAX) else {
            return Ok(None);
        };
        let reserve = || {
            let evictor = self.evictor.clone();
            blocking(move || evictor.reserve(size))
        };
        let reserve_in_time = async {
            loop {
                let release = self.tier.next_release();
                match (reserve().await?, release) {
                    // What is held for an upload is free in a moment.
                    (Err(_), Some(release)) if !self.evictor.is_too_large(size) => release.await,
                    (reserved, _) => return Ok::<_, FillError>(reserved?),
                }
            }
        };
        match timeout(ROOM_PATIENCE, reserve_in_time).await {
            Ok(reserved) => reserved.map(Some),
            Err(_elapsed) => {
                self.tier.too_slow();
                Ok(Some(reserve().await??))
            }
        }
    }

    /// Makes the file, and says that it is there.
    async fn make_sink(&self, size: Option<u64>) -> Result<Arc<Sink>, FillError> {
        let (storage, digest) = (self.storage.clone(), self.fill.digest);
        if size.is_some_and(|size| size > BLOB_BYTES_MAX) {
            let bytes_max = BLOB_BYTES_MAX;
            return Err(upstream::Error::TooLarge { bytes_max }.into());
        }
        let ingest = blocking(move || storage.ingest(&digest, size)).await?;
        let ingest =
            ingest.inspect_err(|error| self.metrics.storage_error(error.operation.as_str()))?;
        let sink = Arc::new(Sink::new(ingest, digest.algorithm()));
        let file = Arc::clone(sink.file());
        self.fill.state.send_modify(|state| {
            state.file = Some(file);
            if let Some(size) = size {
                state.plan.set_size(size);
            }
        });
        Ok(sink)
    }

    /// Keeps workers at work until every byte is there. Gives the sources that were asked.
    async fn receive(
        &self,
        source: Giver,
        stream: Stream,
        sink: &Arc<Sink>,
    ) -> Result<Vec<Giver>, FillError> {
        let in_parts = stream.end() < stream.total();
        let connections_max = source.connections_max();
        let worker = Worker::new(self.fill, Arc::clone(sink), self.metrics, in_parts);
        let mut asked = vec![source.clone()];
        let mut workers = FuturesUnordered::new();
        workers.push(worker.work(source, Start::Stream(stream)));
        let mut growth = Growth::up_to(connections_max);
        // Whether further connections may be opened: not where the source does no ranges, or refuses them.
        let mut helps = true;
        let mut last = FillError::Broken;
        let (mut since, mut received, mut starved) = (Instant::now(), 0, Duration::ZERO);
        while !self.fill.plan(|plan| plan.is_complete()) {
            if workers.is_empty() {
                let Some(source) = self.fill.sources.next() else {
                    return Err(last);
                };
                asked.push(source.clone());
                workers.push(worker.work(source, Start::Next));
            }
            let mut near = None;
            tokio::select! {
                Some(stopped) = workers.next() => match stopped? {
                    Stopped::Idle => {}
                    Stopped::NoRanges => helps = false,
                    Stopped::Busy => growth.stop(),
                    // The others do without it.
                    Stopped::Failed(..) if !workers.is_empty() => helps = false,
                    Stopped::Failed(source, error) => {
                        debug!(?source, %error, "source failed");
                        self.fill.sources.failed(&source, error.clone());
                        last = error.into();
                    }
                },
                () = self.fill.stranded.notified(), if helps => near = Some(NEAR_BYTES),
                () = sleep_until(since + MEASURE) => {
                    let measured = Measured {
                        connections: workers.len(),
                        received: worker.received() - received,
                        starved: worker.starved().saturating_sub(starved),
                        elapsed: since.elapsed(),
                    };
                    since = Instant::now();
                    (received, starved) = (worker.received(), worker.starved());
                    if self.fill.plan(|plan| plan.size()).is_none() && received > UNDECLARED_BYTES_MAX {
                        let bytes_max = UNDECLARED_BYTES_MAX;
                        return Err(upstream::Error::TooLarge { bytes_max }.into());
                    }
                    if helps {
                        let more = self.wants_more(&mut growth, in_parts, measured);
                        let sources = (0..more).map_while(|_| self.fill.sources.next());
                        workers.extend(sources.map(|source| worker.work(source, Start::Next)));
                    }
                    near = helps.then(|| in_patience(measured).max(FRONT_BYTES));
                }
            }
            let stranded = near.and_then(|near| self.fill.plan(|plan| plan.stranded(near)));
            if let Some(offset) = stranded
                && workers.len() < connections_max
                && let Some(source) = self.fill.sources.next()
            {
                workers.push(worker.work(source, Start::Reader(offset)));
            }
        }
        Ok(asked)
    }

    /// How many more connections to open.
    fn wants_more(&self, growth: &mut Growth, in_parts: bool, measured: Measured) -> usize {
        let (size, left) = self.fill.plan(|plan| (plan.size(), plan.unclaimed()));
        let size_min = if in_parts {
            PARALLEL_BYTES_MIN
        } else {
            UNBOUNDED_BYTES_MIN
        };
        match size {
            Some(size) if size >= size_min => growth.wants_more(measured, size, left),
            Some(_) | None => 0,
        }
    }

    /// Every byte is there: holds them against the digest, lets the readers have the end, and publishes.
    async fn finish(
        &self,
        sink: &Arc<Sink>,
        room: &mut Option<Reservation>,
        label: &str,
    ) -> Result<Option<Held>, FillError> {
        let digest = self.fill.digest;
        let Some(Opened { size, .. }) = self.fill.opened_already() else {
            return Err(FillError::Broken);
        };
        let hashed = Arc::clone(sink);
        let found = blocking(move || hashed.digest(size)).await?;
        let found =
            found.inspect_err(|error| self.metrics.storage_error(error.operation.as_str()))?;
        if found != digest {
            warn!(%digest, %found, bytes = size, upstream = label, "wrong bytes");
            self.metrics.digest_mismatch(label);
            return Err(FillError::WrongDigest { found });
        }
        let publishing = self.behind.under_way();
        self.fill.end(End::Verified);
        // The readers have what they need; whether the blob is also kept is our own affair.
        for giver in self.fill.sources.givers() {
            self.links.gave(&giver, &digest);
        }
        let (sink, evictor) = (Arc::clone(sink), self.evictor.clone());
        let file = Arc::clone(sink.file());
        let audience = self.fill.audience();
        let (reserved, is_news) = (room.take(), self.is_news());
        let tier = self.tier.clone();
        let publish = move || {
            let (fits, room) = evictor.admit(size, reserved);
            if !fits {
                debug!(%digest, bytes = size, "no room to keep the blob");
                return (Ok(false), Some(room));
            }
            let published = sink.publish(audience);
            if let Err(error) = published {
                return (Err(error), Some(room));
            }
            if is_news {
                tier.note_blob(&digest);
            }
            evictor.stored(&digest, room);
            (Ok(true), None)
        };
        let (published, left) = blocking(publish).await?;
        *room = left;
        drop(publishing);
        match published {
            Ok(is_kept) if is_news && !is_kept => Ok(room.take().map(|room| Held {
                digest,
                blob: StoredBlob::of_file(file, size, audience),
                _room: room,
            })),
            Ok(_) => Ok(None),
            Err(error) => {
                warn!(%digest, cause = %error.cause, "the blob was not stored");
                self.metrics.storage_error(error.operation.as_str());
                Ok(None)
            }
        }
    }

    /// Whether there is a shared tier that may not have the blob: all of it came from there otherwise.
    fn is_news(&self) -> bool {
        self.tier.is_there() && self.fill.sources.shared().is_none()
    }
}

/// How many bytes come within [`PATIENCE`] at the rate that was measured.
fn in_patience(measured: Measured) -> u64 {
    let parts = u64::try_from(measured.elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let patience = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
    measured.received.saturating_mul(patience) / parts
}

/// Runs what blocks where that is allowed. A panic there is the end of the fill, not of the process.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FillError> {
    spawn_blocking(work).await.map_err(|_| FillError::Broken)
}
