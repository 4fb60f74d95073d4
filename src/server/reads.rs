//! Files that are not sent from where they are: whether their bytes are in memory, and reading them, where that may
//! block and in bounds that all connections share.

use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use crate::http::Segment;

/// Reads at once. A disk that is asked for more than this is not faster, and threads are left for everything else.
const READS: usize = 16;

/// Bytes read at once while there is room: larger reads were no cheaper.
const READ_BYTES: u64 = 256 * 1024;

/// Bytes read at once when there is none, so that a thousand slow clients neither exhaust memory nor wait for each other.
const READ_BYTES_MIN: u64 = 16 * 1024;

/// How many of the larger reads may be in memory, on their way to clients.
const ROOMS: usize = 64;

/// Distance of the bytes that are looked at to find out whether a stretch is in memory: twice what the kernel by default
/// reads ahead, so that not much more than one read can be missing. The first byte is one of them, as what was read first
/// is forgotten first.
const PROBE_BYTES: usize = 256 * 1024;

/// Bytes of a file that are brought to memory at once.
const FETCH_BYTES: usize = 128 * 1024;

/// Whether the bytes of a stretch of a file are in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Residency {
    /// As far as can be seen.
    Resident,
    /// Some are not.
    Absent,
    /// The file system cannot say without blocking, as network ones cannot.
    Unknown,
}

/// Reads for all connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Reads {
    turns: Arc<Semaphore>,
    rooms: Arc<Semaphore>,
}

/// Bytes that take up room until they are sent.
struct Held {
    bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(READS)),
            rooms: Arc::new(Semaphore::new(ROOMS)),
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Looks whether the bytes of `segment` are in memory, without waiting for a disk.
///
/// # Errors
/// `UnexpectedEof` when the file is shorter, else what the system says.
pub(super) fn residency(segment: &Segment) -> io::Result<Residency> {
    for offset in (segment.offset..segment.end()).step_by(PROBE_BYTES) {
        let mut byte = [0];
        let bytes = &mut [IoSliceMut::new(&mut byte)];
        match preadv2(&segment.file, bytes, offset, ReadWriteFlags::NOWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Residency::Absent),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(Residency::Unknown),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Residency::Resident)
}

impl Reads {
    /// Brings the bytes of `segment` to memory, where sending them finds them.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file is shorter, else what the system says.
    pub(super) async fn fetch(self, segment: Segment) -> io::Result<Segment> {
        let turn = self.turns.acquire_owned().await;
        let fetched = spawn_blocking(move || {
            let mut scratch = vec![0; FETCH_BYTES];
            let mut unread = segment.clone();
            while unread.length > 0 {
                let read = read(&unread, &mut scratch)?;
                unread = unread.after(read as u64);
            }
            drop(turn);
            Ok(segment)
        });
        fetched.await.unwrap_or_else(|join| Err(join.into()))
    }

    /// Reads from the start of `segment` as far as there is room. Gives the bytes, and what is left.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file is shorter, else what the system says.
    pub(super) async fn read(self, segment: Segment) -> io::Result<(Bytes, Segment)> {
        let turn = self.turns.acquire_owned().await;
        let room = self.rooms.try_acquire_owned().ok();
        let most = if room.is_some() {
            READ_BYTES
        } else {
            READ_BYTES_MIN
        };
        let read = spawn_blocking(move || {
            let length = segment.length.min(most);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            let read = read(&segment, &mut bytes)?;
            bytes.truncate(read);
            drop(turn);
            let bytes = Bytes::from_owner(Held { bytes, _room: room });
            Ok((bytes, segment.after(read as u64)))
        });
        read.await.unwrap_or_else(|join| Err(join.into()))
    }
}

/// Reads from the start of `segment`, at least one byte.
fn read(segment: &Segment, buffer: &mut [u8]) -> io::Result<usize> {
    let length = usize::try_from(segment.length).unwrap_or(usize::MAX);
    let length = length.min(buffer.len());
    match segment.file.read_at(&mut buffer[..length], segment.offset) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of this many bytes, all of it.
    fn file(length: u64) -> Segment {
        let file = tempfile::tempfile().unwrap();
        let bytes = vec![b'x'; usize::try_from(length).unwrap()];
        file.write_all_at(&bytes, 0).unwrap();
        Segment {
            file: Arc::new(file),
            offset: 0,
            length,
        }
    }

    #[tokio::test]
    async fn what_was_fetched_is_in_memory() {
        let segment = Reads::default().fetch(file(700_000)).await.unwrap();
        assert_eq!(segment.length, 700_000);
        assert_ne!(residency(&segment).unwrap(), Residency::Absent);
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_is_an_error_however_it_is_read() {
        let mut segment = file(1000);
        segment.length = 1001;
        let reads = Reads::default();
        let fetched = reads.clone().fetch(segment.clone()).await.unwrap_err();
        assert_eq!(fetched.kind(), io::ErrorKind::UnexpectedEof);
        let (bytes, rest) = reads.clone().read(segment.clone()).await.unwrap();
        assert_eq!((bytes.len(), rest.length), (1000, 1));
        let read = reads.read(rest).await.unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::UnexpectedEof);
        // Where the file system cannot say what is in memory, it cannot say this either.
        let looked = residency(&segment.after(1000)).map_err(|error| error.kind());
        let short = Err(io::ErrorKind::UnexpectedEof);
        assert!(
            looked == short || looked == Ok(Residency::Unknown),
            "{looked:?}"
        );
    }

    #[tokio::test]
    async fn without_room_less_is_read_at_once() {
        let (reads, segment) = (Reads::default(), file(READ_BYTES));
        let mut held = Vec::new();
        for _ in 0..ROOMS {
            held.push(reads.clone().read(segment.clone()).await.unwrap());
        }
        assert!(held.iter().all(|(_, rest)| rest.length == 0));
        let read = async || reads.clone().read(segment.clone()).await.unwrap().0.len() as u64;
        assert_eq!(read().await, READ_BYTES_MIN);
        held.pop();
        assert_eq!(read().await, READ_BYTES);
    }
}
