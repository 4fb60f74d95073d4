//! Reads all that is stored once more, now and then, and takes away what has other bytes than it had.
//!
//! A disk changes what lies on it without a word; a client would notice, and so would everybody who pulls the same
//! layer after it. A **pass** is 256 parts, one for each first byte of a digest, and each has its share of the period. How
//! far it came is on disk, so that those who restart often come to the end, too. It goes slowly, and it counts as no use
//! of what it reads.

mod pace;
use pace::Pace;

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::evict::Evictor;
use super::shelf::told;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oci::{Algorithm, Digest};
use crate::storage::{self, Audience, Local, Operation, Reread, Rereading, SHARDS, ScrubPosition};

/// How many parts a pass has.
const PARTS: u32 = *SHARDS.end() as u32 + 1;

/// When what is stored is read once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubPlan {
    /// How long one pass takes; `None` for no passes at all.
    pub every: Option<Duration>,
    /// How much of it is read at most, in bytes in a second. A pass for which that is too little takes longer.
    pub bytes_per_second: u64,
}

/// What came of reading some of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Blobs that are what they are called.
    pub right: u64,
    /// Blobs that are not, or cannot be read. They were taken away.
    pub wrong: u64,
    /// Blobs that could not be opened, or are wrong and could not be taken away.
    pub failed: u64,
    /// All bytes that were read.
    pub bytes: u64,
}

/// What was found out, as it happens.
#[derive(Debug, Clone, Copy)]
enum Found<'a> {
    /// So many bytes were read.
    Bytes(u64),
    /// A blob is right.
    Right,
    /// A blob was wrong.
    Wrong(&'a Digest),
    /// A blob could not be judged.
    Failed(&'a storage::Error),
}

/// Looks after the directory for as long as this is there. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Scrubber {
    /// The task that does it holds this weakly.
    _inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    storage: Local,
    evictor: Evictor,
    slot: Duration,
    bytes_per_second: u64,
    clock: Clock,
    metrics: Metrics,
}

impl Scrubber {
    /// Must be called inside a tokio runtime.
    pub(super) fn start(
        storage: Local,
        plan: ScrubPlan,
        evictor: Evictor,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let Some(every) = plan.every else {
            return Self { _inner: None };
        };
        let inner = Arc::new(Inner {
            storage,
            evictor,
            slot: (every / PARTS).max(Duration::from_millis(1)),
            bytes_per_second: plan.bytes_per_second,
            clock,
            metrics,
        });
        let weak = Arc::downgrade(&inner);
        #[expect(
            clippy::disallowed_methods,
            reason = "no request looks after the directory; it ends with the cache"
        )]
        tokio::spawn(keep_on(weak));
        Self {
            _inner: Some(inner),
        }
    }
}

/// Reads one part after the other, for as long as the cache is there.
async fn keep_on(weak: Weak<Inner>) {
    let mut pass = Scrubbed::default();
    loop {
        let Some(inner) = weak.upgrade() else {
            return;
        };
        let position = inner.position().await;
        let wait = inner.time_left(position);
        drop(inner);
        sleep(wait).await;
        let Some(inner) = weak.upgrade() else {
            return;
        };
        let part = position.map_or(0, |position| position.part.wrapping_add(1));
        inner.keep(part).await;
        // The cache may end while a part is read, which may take long.
        let storage = inner.storage.clone();
        let (slot, bytes_per_second) = (inner.slot, inner.bytes_per_second);
        drop(inner);
        let pace = |bytes| Pace::spread(bytes, slot / 2, bytes_per_second);
        let found = |found: Found<'_>| {
            let inner = weak.upgrade();
            if let Some(inner) = &inner {
                inner.found(found);
            }
            inner.is_some()
        };
        pass.add(read_part(&storage, part, pace, found).await);
        if part == *SHARDS.end() {
            let Scrubbed {
                right,
                wrong,
                failed,
                bytes,
            } = std::mem::take(&mut pass);
            tracing::info!(
                right,
                wrong,
                failed,
                bytes,
                "read the whole cache once more"
            );
        }
    }
}

impl Inner {
    async fn position(&self) -> Option<ScrubPosition> {
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        let read = spawn_blocking(move || told(storage.scrub_position(), &metrics));
        read.await.ok().flatten().flatten()
    }

    /// Until the next part is due.
    fn time_left(&self, position: Option<ScrubPosition>) -> Duration {
        let since = position.map_or(Duration::ZERO, |position| {
            self.now()
                .saturating_sub(Duration::from_secs(position.begun))
        });
        self.slot.saturating_sub(since)
    }

    /// Remembers that `part` is being read. One that is broken off is left to the next pass: or what cannot be read to
    /// its end would be read for ever.
    async fn keep(&self, part: u8) {
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        let position = ScrubPosition {
            part,
            begun: self.now().as_secs(),
        };
        let kept = spawn_blocking(move || told(storage.keep_scrub_position(position), &metrics));
        // A panic there is told by the runtime.
        drop(kept.await);
    }

    fn found(&self, found: Found<'_>) {
        match found {
            Found::Bytes(bytes) => self.metrics.scrubbed_bytes(bytes),
            Found::Right => {}
            Found::Wrong(digest) => {
                self.metrics.scrub_mismatch();
                self.evictor.missing(digest);
            }
            Found::Failed(error) => {
                told::<()>(Err(error.clone()), &self.metrics);
            }
        }
    }

    fn now(&self) -> Duration {
        let since = self.clock.now().duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default()
    }
}

/// Reads all that is stored in `storage` once more, now, at no more than `bytes_per_second`. `progress` is called now and
/// then with what was found so far and how much of the whole that is, in hundredths.
///
/// Cancel-safe: what is not read by then is not read.
pub async fn scrub(
    storage: &Local,
    bytes_per_second: Option<u64>,
    mut progress: impl FnMut(Scrubbed, u32),
) -> Scrubbed {
    let mut pass = Scrubbed::default();
    for part in SHARDS {
        let pace = |_| Pace::at(bytes_per_second.unwrap_or(u64::MAX));
        pass.add(read_part(storage, part, pace, |_| true).await);
        progress(pass, (u32::from(part) + 1) * 100 / PARTS);
    }
    pass
}

/// Reads one part, whosever it is, for as long as `found` says to go on. `pace` is told how many bytes that will be.
async fn read_part(
    storage: &Local,
    part: u8,
    pace: impl FnOnce(u64) -> Pace,
    mut found: impl FnMut(Found<'_>) -> bool,
) -> Scrubbed {
    let mut scrubbed = Scrubbed::default();
    let listed = {
        let storage = storage.clone();
        spawn_blocking(move || list(&storage, part)).await
    };
    let (blobs, failures) = listed.unwrap_or_default();
    for error in &failures {
        scrubbed.count(Found::Failed(error));
        found(Found::Failed(error));
    }
    let pace = pace(blobs.iter().map(|(.., size)| size).sum());
    for (digest, audience, _) in blobs {
        let mut each = |it: Found<'_>| {
            scrubbed.count(it);
            found(it)
        };
        if !read_blob(storage, digest, audience, pace, &mut each).await {
            break;
        }
    }
    scrubbed
}

/// The blobs of one part, with their sizes. Blocks.
fn list(storage: &Local, part: u8) -> (Vec<(Digest, Audience, u64)>, Vec<storage::Error>) {
    let (mut blobs, mut failures) = (Vec::new(), Vec::new());
    for audience in Audience::ALL {
        for algorithm in Algorithm::ALL {
            match storage.blobs_in(audience, algorithm, part) {
                Ok(listed) => {
                    blobs.extend(listed.iter().map(|blob| (blob.digest, audience, blob.size)));
                }
                Err(error) => failures.push(error),
            }
        }
    }
    (blobs, failures)
}

/// Reads one blob. Gives whether to go on.
async fn read_blob(
    storage: &Local,
    digest: Digest,
    audience: Audience,
    pace: Pace,
    found: &mut impl FnMut(Found<'_>) -> bool,
) -> bool {
    let opened = {
        let storage = storage.clone();
        spawn_blocking(move || storage.reread(&digest, audience)).await
    };
    let mut rereading = match opened {
        Ok(Ok(Some(rereading))) => rereading,
        // It has gone meanwhile.
        Ok(Ok(None)) => return true,
        Ok(Err(error)) => return found(Found::Failed(&error)),
        Err(_panicked) => return found(Found::Failed(&broken())),
    };
    loop {
        let step = |mut rereading: Rereading| {
            let read = rereading.step();
            (rereading, read)
        };
        let (back, read) = match spawn_blocking(move || step(rereading)).await {
            Ok(stepped) => stepped,
            Err(_panicked) => return found(Found::Failed(&broken())),
        };
        rereading = back;
        match read {
            Ok(Reread::Piece(bytes)) => {
                if !found(Found::Bytes(bytes)) {
                    return false;
                }
                pace.wait_after(bytes).await;
            }
            Ok(Reread::Right) => return found(Found::Right),
            Ok(Reread::Wrong) => return found(Found::Wrong(&digest)),
            Err(error) => return found(Found::Failed(&error)),
        }
    }
}

/// What is said where the reading itself came to an unexpected end.
fn broken() -> storage::Error {
    Operation::Read.failed(std::io::Error::other("reading it panicked"))
}

impl Scrubbed {
    fn count(&mut self, found: Found<'_>) {
        match found {
            Found::Bytes(bytes) => self.bytes += bytes,
            Found::Right => self.right += 1,
            Found::Wrong(_) => self.wrong += 1,
            Found::Failed(_) => self.failed += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.failed += other.failed;
        self.bytes += other.bytes;
    }
}
