//! Looks through the directory: at the start, and now and then.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::policy::Note;
use super::room::on_disk;
use super::{Evictor, Inner, Key, SPARED_SECONDS};
use crate::cache::shelf::told;
use crate::oci::Algorithm;
use crate::storage::{Audience, RecordKind, RecordsMost, SHARDS};

/// How often it is checked whether others have taken the room that is to stay free.
const CHECK_EVERY: Duration = Duration::from_mins(1);

/// How often the whole directory is looked through where nothing seems to be wrong, in checks: every six hours.
const CHECKS_PER_SURVEY: u32 = 360;

/// Most records of one kind. A large registry has some ten thousand tags in use.
const RECORDS_MAX: usize = 256 * 1024;

/// What the records of one kind may take on disk, in bytes: as much as so many of them take at a block of 4 KiB each, which
/// is what all of them are but lists. A list may be as large as a record may be (`storage::RECORD_BYTES_MAX`), and then
/// there is room for a sixteenth of them.
const RECORDS_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// So many new records make the directory worth a look. Until then there are that many more than there may be, at most.
const RECORDS_NEW_MAX: u64 = 32 * 1024;

/// Looks after the directory for as long as somebody has the evictor.
pub(super) fn start(evictor: &Evictor) {
    let inner = Arc::downgrade(&evictor.0);
    #[expect(
        clippy::disallowed_methods,
        reason = "no request looks after the directory; it ends with the cache"
    )]
    tokio::spawn(async move {
        let mut ticks = interval(CHECK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_first = true;
        let (mut n_checks, mut records_seen) = (0, 0);
        let mut change_seen = None;
        loop {
            ticks.tick().await;
            let Some(evictor) = inner.upgrade().map(Evictor) else {
                return;
            };
            let written = evictor.0.storage.records_written();
            let is_doubtful = evictor.0.is_doubtful.swap(false, Ordering::Relaxed);
            // A command that worked on the directory beside us says so.
            let changed = evictor.0.storage.changed();
            let is_doubtful = is_doubtful || changed != change_seen;
            n_checks += 1;
            if is_doubtful
                || n_checks >= CHECKS_PER_SURVEY
                || written - records_seen > RECORDS_NEW_MAX
            {
                (n_checks, records_seen, change_seen) = (0, written, changed);
                drop(evictor);
                let looked_at = inner.clone();
                // A panic there is told by the runtime, and the next survey is another try.
                let _ = spawn_blocking(move || survey(&looked_at, is_first)).await;
                is_first = false;
            }
            let looked_at = inner.clone();
            let _ = spawn_blocking(move || check(&looked_at)).await;
        }
    });
}

/// Lets blobs go where others have taken the room, and shows how old the oldest is.
fn check(inner: &Weak<Inner>) {
    let Some(evictor) = inner.upgrade().map(Evictor) else {
        return;
    };
    evictor.0.storage.close_deleted();
    let limit = evictor.limit();
    evictor.make_room(limit);
    let state = evictor.state();
    let oldest = state.policy.oldest();
    let age = oldest.map_or(0, |oldest| evictor.now().saturating_sub(oldest));
    evictor.0.metrics.cache_oldest_seconds(u64::from(age));
    evictor.show(&state);
}

/// Takes in everything that is in the directory, and forgets what is not. Ends early when the cache is gone.
fn survey(inner: &Weak<Inner>, is_first: bool) {
    let started = Instant::now();
    let Some(evictor) = inner.upgrade().map(Evictor) else {
        return;
    };
    evictor.state().policy.begin_pass();
    // What was taken in before now may get its name only after its directory was looked at.
    let since = evictor.now().saturating_sub(SPARED_SECONDS);
    drop(evictor);
    let mut is_complete = true;
    let kinds = Audience::ALL
        .into_iter()
        .flat_map(|audience| Algorithm::ALL.map(|algorithm| (audience, algorithm)));
    for (audience, algorithm) in kinds {
        for shard in SHARDS {
            let Some(evictor) = inner.upgrade().map(Evictor) else {
                return;
            };
            let listed = evictor.0.storage.blobs_in(audience, algorithm, shard);
            let Some(listed) = told(listed, &evictor.0.metrics) else {
                is_complete = false;
                continue;
            };
            let mut state = evictor.state();
            for blob in listed {
                let note = Note::from_number(blob.last_use.note);
                let used = u32::try_from(blob.last_use.at).unwrap_or(u32::MAX);
                let key = Key::from(&blob.digest);
                state.policy.restore(key, on_disk(blob.size), used, note);
            }
        }
    }
    let Some(evictor) = inner.upgrade().map(Evictor) else {
        return;
    };
    let mut state = evictor.state();
    // What could not be listed may well be there.
    let gone = if is_complete {
        state.policy.end_pass(since)
    } else {
        0
    };
    if is_first {
        state.policy.sort();
    }
    evictor.show(&state);
    let (blobs, bytes) = (state.policy.len(), state.policy.bytes());
    drop(state);
    tracing::info!(blobs, bytes, gone, elapsed = ?started.elapsed(), "looked through the cache");
    drop(evictor);
    trim_records(inner);
}

/// Lets the oldest records go where there are too many. They are spread evenly over their shards, by a hash.
fn trim_records(inner: &Weak<Inner>) {
    for kind in RecordKind::ALL {
        let (mut left, mut gone) = (0, 0);
        for shard in SHARDS {
            let Some(evictor) = inner.upgrade().map(Evictor) else {
                return;
            };
            let n_shards = u16::from(*SHARDS.end()) + 1;
            let most = RecordsMost {
                records: RECORDS_MAX / usize::from(n_shards),
                bytes: RECORDS_BYTES_MAX / u64::from(n_shards),
            };
            let trimmed = evictor.0.storage.trim_records(kind, shard, most);
            if let Some(trimmed) = told(trimmed, &evictor.0.metrics) {
                left += trimmed.left;
                gone += trimmed.gone;
            }
        }
        if let Some(evictor) = inner.upgrade().map(Evictor) {
            evictor.0.metrics.cache_objects(kind.as_str(), left);
        }
        if gone > 0 {
            tracing::info!(
                kind = kind.as_str(),
                left,
                gone,
                "removed the oldest records"
            );
        }
    }
}
