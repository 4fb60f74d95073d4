//! A file on its way in: it has a temporary name and a lock until its content is known to be right.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, openat};
use rustix::io::Errno;

use super::layout::{self, Audience, Place};
use super::local::{FILE_MODE, Local};
use super::{Error, Operation, seal};
use crate::oci::Digest;

/// What a growing file becomes.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    /// The blob of this digest.
    Blob(Digest),
    /// A record.
    Record(Place),
}

/// A growing file. Dropped without [`Ingest::publish`], it is removed.
#[derive(Debug)]
pub struct Ingest {
    local: Local,
    directory: OwnedFd,
    name: String,
    destination: Destination,
    file: Arc<File>,
    published: AtomicBool,
}

impl Ingest {
    /// Makes the file `name` in `directory` and locks it.
    pub(super) fn create(
        local: Local,
        directory: OwnedFd,
        name: String,
        destination: Destination,
        size: Option<u64>,
    ) -> io::Result<Self> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let descriptor = openat(&directory, &name, flags, Mode::from_raw_mode(FILE_MODE))?;
        let file = Arc::new(File::from(descriptor));
        // From here on the file is removed on every way out.
        let ingest = Self {
            local,
            directory,
            name,
            destination,
            file,
            published: AtomicBool::new(false),
        };
        // Tells a process that starts while this one runs that the file is in use. Between `open` and here it could
        // be taken for a leftover and removed; publishing then fails, and the blob is fetched once more.
        rustix::fs::flock(
            ingest.file.as_fd(),
            FlockOperation::NonBlockingLockExclusive,
        )?;
        ingest.preallocate(size.unwrap_or(0))?;
        Ok(ingest)
    }

    /// Sets `size` bytes aside, so that a full disk shows now rather than at the last byte. Where the file system cannot
    /// say, it shows then; and so it does for what would take most of the room there is: an upstream that declares much
    /// and sends little must not keep it from all others.
    fn preallocate(&self, size: u64) -> io::Result<()> {
        let room = rustix::fs::fstatvfs(&self.file)?;
        let available = room.f_bavail.saturating_mul(room.f_frsize);
        if size == 0 || (size > available / 2 && size <= available) {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, size) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The file, for those who read what is already there. It stays readable after publishing and after removal.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Writes `chunks`, one after the other, from `offset` on.
    ///
    /// # Errors
    /// `Write`; how much was written is then unknown.
    pub fn write_at(&self, chunks: &[Bytes], offset: u64) -> Result<(), Error> {
        let mut slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut slices = &mut slices[..];
        let mut offset = offset;
        // Leading empty slices would make an honest 0 look like a full device.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match rustix::io::pwritev(&self.file, slices, offset) {
                Ok(0) => return Err(Operation::Write.failed(io::ErrorKind::WriteZero)),
                Ok(written) => {
                    IoSlice::advance_slices(&mut slices, written);
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Operation::Write.failed(errno)),
            }
        }
        Ok(())
    }

    /// Makes the content durable and gives it its final name, which says whose a blob is. To be called once the content is known to be right.
    ///
    /// A failed fsync is not tried again: the kernel may have dropped the pages and would then call it a success
    /// (Rebello et al., USENIX ATC 2020).
    ///
    /// # Errors
    /// `Publish`; nothing stands under the final name that was not there before.
    pub fn publish(&self, audience: Audience) -> Result<(), Error> {
        self.try_publish(audience)
            .map_err(|error| Operation::Publish.failed(error))?;
        self.published.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn try_publish(&self, audience: Audience) -> io::Result<()> {
        if let Destination::Blob(digest) = &self.destination {
            // Where the file system does not take it, the blob is verified when it is next opened.
            let _ = seal::seal(&self.file, digest);
        }
        self.file.sync_data()?;
        let Place { directory, file } = match &self.destination {
            Destination::Blob(digest) => layout::blob(digest, audience),
            Destination::Record(place) => place.clone(),
        };
        let shelf = self.local.claim_directory(&directory)?;
        match rustix::fs::renameat(&self.directory, &self.name, &shelf, &file) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                // A stranger's directory in our place goes out of the way; what is in it is not ours to delete.
                let away = format!("obstacle.{:016x}", fastrand::u64(..));
                rustix::fs::renameat(&shelf, &file, &self.directory, away)?;
                rustix::fs::renameat(&self.directory, &self.name, &shelf, &file)?;
            }
            renamed => renamed?,
        }
        rustix::fs::fsync(&shelf)?;
        if let (Destination::Blob(digest), Audience::Everybody) = (&self.destination, audience) {
            // What is everybody's need not be kept twice.
            self.local.remove_blob_of(digest, Audience::Entitled);
        }
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.published.load(Ordering::Relaxed) {
            // It may be gone already; and what cannot be removed now is removed at the next start.
            let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}
