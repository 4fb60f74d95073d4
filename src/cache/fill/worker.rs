//! One connection's work: claim a run, ask a source for it, put what comes where it belongs, and go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::gather::{Gatherer, cut};
use super::giver::{Giver, Stream};
use super::run::{RUN_BYTES_MIN, Run};
use super::sink::Sink;
use super::{Fill, FillError};
use crate::metrics::Metrics;
use crate::upstream::{self, Extent};

/// Shortest run towards the end of a blob, in bytes, where short ones let all connections end together.
const LAST_RUN_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// Longest run of one connection among several, in bytes: how far the bytes a reader at the front needs next may be
/// in the hands of one slow connection.
const RUN_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A run that took less than this is followed by one of twice the size. No longer, since the reader at the front waits
/// for the slowest of the runs before it.
const RUN_TIME_MIN: Duration = Duration::from_millis(250);

/// And so is one that took less than this many times as long as its request was waited for: asking takes a twentieth of
/// a connection's time at most, however far away the source is.
const RUN_WAITS_MIN: u32 = 20;

/// How often a source that dropped in the middle of a run is asked again without a single byte of progress.
const RESUMES_IN_VAIN_MAX: u32 = 3;

/// How often a source is asked again within one run at all: one that gives a few bytes at a time is broken, too.
const RESUMES_MAX: u32 = 100;

/// The first pause before a source is asked again; doubled for each attempt in vain, and jittered, so that the fills
/// that one outage cut do not all come back at the same instant.
const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// How long a run waits in all for an upstream that is left alone, because it fails or limits the rate: as long as for
/// one that is silent.
const LEFT_ALONE_MAX: Duration = Duration::from_secs(30);

/// What a fill's workers share.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    fill: &'a Arc<Fill>,
    sink: Arc<Sink>,
    metrics: &'a Metrics,
    /// Whether the source is asked run by run, also by who works alone.
    in_parts: bool,
    /// Bytes received so far, by all.
    received: AtomicU64,
    /// For how long they had nothing to do but wait for upstream, in microseconds, added up.
    starved: AtomicU64,
    /// Workers at work.
    working: AtomicUsize,
}

/// What a worker begins with.
#[derive(Debug)]
pub(super) enum Start {
    /// With a connection that gives the whole blob.
    Stream(Stream),
    /// With the next run.
    Next,
    /// Where a reader waits. When no reader is stranded any more, the work is done.
    Reader(u64),
}

/// Why a worker stopped, when the fill can go on.
#[derive(Debug)]
pub(super) enum Stopped {
    /// There was nothing more to do for it.
    Idle,
    /// The source gives the whole blob and no part of it.
    NoRanges,
    /// It would only have helped, and there is no connection to spare.
    Busy,
    /// The source failed, again and again.
    Failed(Giver, upstream::Error),
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        fill: &'a Arc<Fill>,
        sink: Arc<Sink>,
        metrics: &'a Metrics,
        in_parts: bool,
    ) -> Self {
        Self {
            fill,
            sink,
            metrics,
            in_parts,
            received: AtomicU64::new(0),
            starved: AtomicU64::new(0),
            working: AtomicUsize::new(0),
        }
    }

    /// How many bytes came so far, through all connections.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// For how long workers had nothing to do but wait for upstream so far, added up.
    pub(super) fn starved(&self) -> Duration {
        Duration::from_micros(self.starved.load(Ordering::Relaxed))
    }

    /// Waits for upstream with nothing else to do.
    async fn starving<T>(&self, wait: impl Future<Output = T>) -> T {
        let since = Instant::now();
        let came = wait.await;
        self.add_starved(since.elapsed());
        came
    }

    fn add_starved(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.starved.fetch_add(micros, Ordering::Relaxed);
    }

    /// Works with one source until there is nothing more to do or the source fails.
    ///
    /// # Errors
    /// What ends the whole fill: storage that fails, a bug.
    pub(super) async fn work(&self, source: Giver, start: Start) -> Result<Stopped, FillError> {
        let _working = Working::new(&self.working);
        let for_reader = matches!(start, Start::Reader(_));
        let mut bytes = RUN_BYTES_MIN;
        let mut next = Some(start);
        loop {
            let (run, stream) = match next.take() {
                Some(Start::Stream(stream)) => (self.claim(bytes), Some(stream)),
                Some(Start::Reader(offset)) => (self.seize(offset), None),
                None if for_reader => {
                    let stranded = self.fill.plan(|plan| plan.stranded(RUN_BYTES_MIN));
                    (stranded.and_then(|offset| self.seize(offset)), None)
                }
                Some(Start::Next) | None => (self.claim(bytes), None),
            };
            let Some(run) = run else {
                return Ok(Stopped::Idle);
            };
            let started = Instant::now();
            let waited = match self.fetch(&source, &run, stream).await {
                Ok(Some(waited)) => waited,
                Ok(None) => return Ok(Stopped::NoRanges),
                Err(FillError::Upstream(upstream::Error::Busy { .. })) if !self.is_alone() => {
                    return Ok(Stopped::Busy);
                }
                Err(FillError::Upstream(error)) => return Ok(Stopped::Failed(source, error)),
                Err(error) => return Err(error),
            };
            if started.elapsed() < RUN_TIME_MIN.max(waited * RUN_WAITS_MIN) {
                bytes = (bytes * 2).min(RUN_BYTES_MAX);
            }
        }
    }

    /// The next run. Who works alone stays at the front: whether the source does ranges is not known yet, and a reader
    /// further on gets a connection of its own.
    fn claim(&self, bytes: u64) -> Option<Run<'a>> {
        let claimed = self.fill.plan(|plan| {
            if self.is_alone() {
                plan.claim_front(bytes)
            } else {
                plan.claim(bytes, LAST_RUN_BYTES_MIN)
            }
        });
        claimed.map(|(id, _)| Run::new(self.fill, id))
    }

    fn is_alone(&self) -> bool {
        self.working.load(Ordering::Relaxed) == 1
    }

    fn seize(&self, offset: u64) -> Option<Run<'a>> {
        let seized = self.fill.plan(|plan| plan.seize(offset, RUN_BYTES_MIN));
        seized.map(|(id, _)| Run::new(self.fill, id))
    }

    /// Fetches a run, asking again where the source drops. Gives how long its last request was waited for; `None` when
    /// the source would start from the beginning although others are at work on that.
    async fn fetch(
        &self,
        source: &Giver,
        run: &Run<'_>,
        mut stream: Option<Stream>,
    ) -> Result<Option<Duration>, FillError> {
        let mut in_vain = 0;
        let mut waited = Duration::ZERO;
        for _ in 0..RESUMES_MAX {
            let before = run.left().start;
            let error = match self.fetch_once(source, run, stream.take()).await {
                Err(FillError::Upstream(error @ upstream::Error::Busy { .. })) => {
                    return Err(error.into());
                }
                Err(FillError::Upstream(error)) if error.is_trouble() => error,
                ended => return ended,
            };
            if run.is_through() {
                // It dropped after the last byte.
                return Ok(Some(Duration::ZERO));
            }
            let left = run.left();
            in_vain = if left.start > before { 0 } else { in_vain + 1 };
            // Who only helps must not keep a run from those who get on.
            let in_vain_max = if self.is_alone() && source.is_asked_again() {
                RESUMES_IN_VAIN_MAX
            } else {
                1
            };
            let left_alone = source.left_alone_for();
            if let Some(wait) = left_alone.filter(|_| self.is_alone())
                && waited + wait <= LEFT_ALONE_MAX
            {
                // That nobody was asked says nothing of what would have come.
                in_vain = 0;
                waited += wait;
                debug!(?source, %error, ?wait, "waiting to ask again");
                sleep(wait).await;
            } else if in_vain >= in_vain_max {
                return Err(error.into());
            }
            debug!(?source, %error, ?left, "asking again");
            self.metrics.upstream_retry(error.as_str());
            sleep(RESUME_PAUSE.mul_f64(f64::from(1 << in_vain) * (0.5 + fastrand::f64()))).await;
        }
        Err(upstream::Error::Protocol("the body never ends".to_owned()).into())
    }

    /// What one stream brings of a run: the one that is there, or that of one request. As [`Worker::fetch`].
    async fn fetch_once(
        &self,
        source: &Giver,
        run: &Run<'_>,
        stream: Option<Stream>,
    ) -> Result<Option<Duration>, FillError> {
        let asked = Instant::now();
        let stream = match stream {
            Some(stream) => stream,
            None => match self.ask(source, run).await? {
                Some(stream) => stream,
                None => return Ok(None),
            },
        };
        let waited = asked.elapsed();
        self.receive(run, stream).await?;
        Ok(Some(waited))
    }

    /// Asks for what is left of a run. `None` as [`Worker::fetch`].
    async fn ask(&self, source: &Giver, run: &Run<'_>) -> Result<Option<Stream>, FillError> {
        let left = run.left();
        let total = self.fill.plan(|plan| plan.size());
        let alone = self.is_alone();
        let extent = match total {
            // Among others, exactly the run, and alone, no further than to what is there: more would come twice.
            Some(total) => {
                let end = if alone && !self.in_parts {
                    self.fill.plan(|plan| plan.open_end(run.id()))
                } else {
                    left.end
                };
                if end == total {
                    Extent::Rest {
                        from: left.start,
                        total: Some(total),
                    }
                } else {
                    Extent::Part {
                        range: left.start..end,
                        total,
                    }
                }
            }
            None => Extent::Rest {
                from: left.start,
                total: None,
            },
        };
        let stream = if alone {
            source.get(extent).await?
        } else {
            // It only helps: whoever has no connection at all comes first.
            self.starving(source.get_if_free(extent)).await?
        };
        if total.is_some() && stream.total() != total {
            let reason = "the size of the blob changed".to_owned();
            return Err(upstream::Error::Protocol(reason).into());
        }
        if stream.offset() < left.start && !alone {
            return Ok(None);
        }
        self.fill.sources.gave(source);
        Ok(Some(stream))
    }

    /// Puts the bytes of a stream where they belong, until the run is through. The run grows with the stream as long as
    /// nobody else has what follows.
    async fn receive(&self, run: &Run<'_>, stream: Stream) -> Result<(), FillError> {
        let mut at = stream.offset();
        let mut stream = Gatherer::new(stream);
        let mut gathered = self.starving(stream.next()).await;
        loop {
            let came = at..at + gathered.bytes;
            at = came.end;
            let wanted = run.take(came.end, stream.end());
            let chunks = cut(std::mem::take(&mut gathered.chunks), came.start, &wanted);
            let through = wanted.is_empty() || came.end >= wanted.end;
            let writing = self.write(run, chunks, wanted.start);
            match gathered.end.take() {
                Some(end) => {
                    writing.await?;
                    return self.ended(run, end);
                }
                // What follows is there or on its way: the rest of this stream is of no use.
                None if through => return writing.await,
                None => {
                    // The next batch comes in while this one is written.
                    let (written, next) = tokio::join!(timed(writing), timed(stream.next()));
                    self.add_starved(next.1.saturating_duration_since(written.1));
                    written.0?;
                    gathered = next.0;
                }
            }
        }
    }

    /// The stream is over.
    fn ended(&self, run: &Run<'_>, end: Result<(), upstream::Error>) -> Result<(), FillError> {
        end?;
        if self.fill.plan(|plan| plan.size()).is_none() {
            // Only now it is known that there is no more.
            let size = run.left().start;
            self.fill.plan(|plan| plan.set_size(size));
            return Ok(());
        }
        // It gave what it said it would. Should that be less than the run, the rest is asked for next.
        Ok(())
    }

    /// Hashes the next bytes of a run, writes them and tells the readers.
    ///
    /// Bytes that are the next for the hash go through it here, while the processor that decrypted them still has them
    /// at hand: 256 KiB take 0.15 ms with hardware instructions. Those of other places are read back where that may
    /// block.
    async fn write(&self, run: &Run<'_>, chunks: Vec<Bytes>, offset: u64) -> Result<(), FillError> {
        let bytes: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if bytes == 0 {
            return Ok(());
        }
        self.sink.hash(&chunks, offset);
        let (fill, sink, id) = (Arc::clone(self.fill), Arc::clone(&self.sink), run.id());
        let written = spawn_blocking(move || {
            sink.write(&chunks, offset)?;
            fill.state
                .send_modify(|state| state.plan.received(id, offset + bytes));
            sink.catch_up(|at| fill.state.borrow().plan.present_from(at))
        });
        let written = written.await.map_err(|_| FillError::Broken)?;
        written.inspect_err(|error| self.metrics.storage_error(error.operation.as_str()))?;
        self.received.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// Counts a worker for as long as it works.
struct Working<'a>(&'a AtomicUsize);

impl<'a> Working<'a> {
    fn new(working: &'a AtomicUsize) -> Self {
        working.fetch_add(1, Ordering::Relaxed);
        Self(working)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came of it, and when.
async fn timed<T>(work: impl Future<Output = T>) -> (T, Instant) {
    (work.await, Instant::now())
}
