//! Room for what is on its way in, and whether it is kept.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use super::{Evictor, Key, State};
use crate::oci::Digest;
use crate::storage::{self, Operation};

/// File systems give room away in blocks of so many bytes.
const BLOCK_BYTES: u64 = 4096;

/// Room for a blob on its way in, until this is dropped.
#[derive(Debug)]
pub(in crate::cache) struct Reservation {
    evictor: Evictor,
    bytes: u64,
    is_admitted: bool,
}

impl Evictor {
    /// Room for a blob of `size` bytes; others go where they must. Blocks.
    ///
    /// # Errors
    /// `Reserve`, when there will be none: the blob is larger than everything the cache may take, or that much is on
    /// its way already.
    pub(in crate::cache) fn reserve(&self, size: u64) -> Result<Reservation, storage::Error> {
        let no_room = || Operation::Reserve.failed(ErrorKind::StorageFull);
        let bytes = on_disk(size);
        let limit = self.limit();
        let mut state = self.state();
        if state.in_flight + bytes > limit.bytes {
            return Err(no_room());
        }
        let reservation = self.room_of(bytes, &mut state);
        drop(state);
        self.make_room(limit);
        Ok(reservation)
    }

    fn room_of(&self, bytes: u64, state: &mut State) -> Reservation {
        state.in_flight += bytes;
        Reservation {
            evictor: self.clone(),
            bytes,
            is_admitted: false,
        }
    }

    /// Whether a blob of `size` bytes is larger than everything the cache may take, as far as is known without asking
    /// the file system.
    pub(in crate::cache) fn is_too_large(&self, size: u64) -> bool {
        on_disk(size) > self.0.limit_bytes.load(Ordering::Relaxed)
    }

    /// Whether there is room to keep a blob of `size` bytes that is about to be stored; others go where they must. What
    /// was `reserved` for it stays reserved. Blocks.
    ///
    /// The blob itself is not on the list before it is [`stored`](Self::stored): until then it must neither go nor be
    /// missed by a reader who comes early.
    pub(in crate::cache) fn admit(
        &self,
        size: u64,
        reserved: Option<Reservation>,
    ) -> (bool, Reservation) {
        let limit = self.limit();
        let mut state = self.state();
        let mut room = reserved.unwrap_or_else(|| self.room_of(on_disk(size), &mut state));
        drop(state);
        self.make_room(limit);
        let mut state = self.state();
        let fits = state.policy.bytes() + state.admitted + room.bytes <= limit.bytes;
        if fits {
            state.admitted += room.bytes;
            room.is_admitted = true;
        }
        (fits, room)
    }

    /// A blob that was admitted is where it belongs now, in the `room` that it had.
    pub(in crate::cache) fn stored(&self, digest: &Digest, room: Reservation) {
        let now = self.now();
        let mut state = self.state();
        state.policy.insert(Key::from(digest), room.bytes, now);
        self.show(&state);
        drop(state);
        drop(room);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.evictor.state();
        state.in_flight -= self.bytes;
        if self.is_admitted {
            state.admitted -= self.bytes;
        }
    }
}

/// What `size` bytes take on disk.
pub(super) fn on_disk(size: u64) -> u64 {
    size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::behind::Behind;
    use crate::cache::evict::{Amount, Budget, Reason};
    use crate::clock::Clock;
    use crate::metrics::Metrics;
    use crate::oci::Algorithm;
    use crate::storage::Local;

    const BLOB_BYTES: u64 = 100 * BLOCK_BYTES;

    /// An evictor with room for two blobs and a half. Nothing is awaited in these tests, so no survey comes between.
    fn evictor(directory: &tempfile::TempDir, clock: &Clock) -> Evictor {
        let storage = Local::open(directory.path()).expect("writable");
        let budget = Budget {
            max_size: Amount::Bytes(BLOB_BYTES * 5 / 2),
            min_free: Amount::Percent(0),
        };
        Evictor::start(
            storage,
            budget,
            clock.clone(),
            Metrics::new(),
            Behind::default(),
        )
    }

    fn digest(n: u8) -> Digest {
        Digest::of(Algorithm::Sha256, &[n])
    }

    fn known(evictor: &Evictor) -> (u64, u64) {
        let state = evictor.state();
        (state.policy.bytes(), state.in_flight)
    }

    #[tokio::test]
    async fn a_reader_who_comes_before_the_blob_is_in_its_place_does_not_make_it_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let evictor = evictor(&directory, &Clock::system());
        let room = evictor.reserve(BLOB_BYTES).expect("room");
        let (fits, room) = evictor.admit(BLOB_BYTES, Some(room));
        assert!(fits);
        evictor.missing(&digest(1));
        evictor.stored(&digest(1), room);
        assert_eq!(known(&evictor), (BLOB_BYTES, 0));
        evictor.missing(&digest(1));
        assert_eq!(known(&evictor), (0, 0));
    }

    #[tokio::test]
    async fn what_is_on_its_way_to_its_place_counts_and_does_not_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let evictor = evictor(&directory, &Clock::system());
        let on_its_way: Vec<_> = (0..2).map(|_| evictor.admit(BLOB_BYTES, None)).collect();
        assert!(on_its_way.iter().all(|(fits, _)| *fits));
        let (fits, third) = evictor.admit(BLOB_BYTES, None);
        assert!(!fits, "both others are to be kept");
        drop(third);
        drop(on_its_way);
        assert_eq!(known(&evictor), (0, 0), "nothing of it was stored");
        let (fits, _room) = evictor.admit(BLOB_BYTES, None);
        assert!(fits);
    }

    #[tokio::test]
    async fn what_waits_for_its_upload_stays_unless_others_need_the_disk() {
        let directory = tempfile::tempdir().expect("a directory");
        let evictor = evictor(&directory, &Clock::system());
        let (_, room) = evictor.admit(BLOB_BYTES, None);
        evictor.stored(&digest(1), room);
        evictor.await_upload(&digest(1));
        let victim = |reason| evictor.next_victim(reason, 0, &(0..0));
        assert_eq!(victim(Reason::MaxSize), None);
        assert_eq!(victim(Reason::MinFree), Some((digest(1), BLOB_BYTES)));
    }
}
