//! A directory of blobs. Every call blocks: run it where blocking is allowed.
//!
//! All access is relative to one held descriptor, follows no symbolic link and never waits on a FIFO, so a stranger
//! who can write to the directory can cost misses and nothing else.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

use super::ingest::Destination;
use super::kept::Kept;
use super::layout::{self, Audience, Place};
use super::seal::{self, LastUse};
use super::{Error, Ingest, Operation};
use crate::oci::{Algorithm, Digest, Hasher};

/// How many bytes are read at once of a blob that is verified.
pub(super) const VERIFY_BYTES: usize = 1024 * 1024;

/// Files are ours and our group's to read; nothing here is ever executed.
pub(super) const FILE_MODE: u32 = 0o640;

/// Blobs by digest and records by key, in a directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Local {
    /// The cache directory itself, held open. What is below is looked up anew each time, because it may be deleted
    /// at any time.
    pub(super) base: Arc<OwnedFd>,
    pub(super) access: Access,
    /// Whether the file system keeps the nanoseconds that a [seal] is made of.
    keeps_seals: bool,
    /// How many records were written.
    pub(super) records_written: Arc<AtomicU64>,
    pub(super) kept: Arc<Kept>,
}

/// Who may delete files in the directory, beside us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Nobody.
    #[default]
    Owner,
    /// Whoever is of our group.
    Group,
}

/// A blob that was verified when it was stored.
#[derive(Debug, Clone)]
pub struct StoredBlob {
    /// The open file. It stays readable when its name is deleted.
    pub file: Arc<File>,
    /// Its size in bytes.
    pub size: u64,
    /// Whose it is.
    pub audience: Audience,
    /// When it was last used.
    pub last_use: LastUse,
}

/// Why a directory cannot be the cache.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not there and cannot be made.
    #[error("cannot create the cache directory {}", .path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is none, where one was expected.
    #[error(
        "there is no cache in {}: name its directory with --cache-dir, or the configuration with --config",
        .0.display()
    )]
    Missing(PathBuf),
    /// It is there, but nothing can be made in it.
    #[error(
        "cannot write to the cache directory {}: it must be writable by uid {uid}",
        .path.display()
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// Who we are.
        uid: u32,
        /// What the operating system said.
        source: io::Error,
    },
    /// The part of it that is ours belongs to somebody else, who could put anything into it.
    #[error(
        "{} belongs to uid {owner}, but this process is uid {uid}: remove it or run as its owner",
        .path.display()
    )]
    Stranger {
        /// The subdirectory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
}

impl Local {
    /// Opens the cache in `directory`, which must be there already: for those who look after it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn attach(directory: &Path, access: Access) -> Result<Self, OpenError> {
        if !directory.join(layout::VERSION).is_dir() {
            return Err(OpenError::Missing(directory.to_owned()));
        }
        Self::open_for(directory, access)
    }

    /// Opens `directory`, making it where it is missing, proves that it can be written to, and removes what dead
    /// processes left half-written.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_for(directory, Access::Owner)
    }

    /// The same, where others may delete files.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_for(directory: &Path, access: Access) -> Result<Self, OpenError> {
        let create = |source| OpenError::Create {
            path: directory.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(create)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let base = rustix::fs::open(directory, flags, Mode::empty())
            .map_err(|errno| create(errno.into()))?;
        let mut local = Self {
            base: Arc::new(base),
            access,
            keeps_seals: true,
            records_written: Arc::default(),
            kept: Arc::new(Kept::new()),
        };
        let uid = rustix::process::geteuid().as_raw();
        let not_writable = |source: io::Error| OpenError::NotWritable {
            path: directory.to_owned(),
            uid,
            source,
        };
        let ours = local
            .make_directory(&[layout::VERSION])
            .map_err(not_writable)?;
        let owner = fstat(&ours)
            .map_err(|errno| not_writable(errno.into()))?
            .st_uid;
        if owner != uid {
            return Err(OpenError::Stranger {
                path: directory.join(layout::VERSION),
                owner,
                uid,
            });
        }
        let ingest = local
            .make_directory(&layout::ingest_directory())
            .map_err(not_writable)?;
        local.keeps_seals = prove_writable(&ingest).map_err(not_writable)?;
        if !local.keeps_seals {
            let directory = directory.display();
            tracing::warn!(%directory, "the file system keeps no nanoseconds: a damaged blob may go unnoticed");
        }
        remove_leftovers(&ingest).map_err(not_writable)?;
        Ok(local)
    }

    /// The blob stored under `digest`, if there is one, as it was when it was verified.
    ///
    /// # Errors
    /// `Open` when the file is there but cannot be opened; `Read` when not even its first byte can be read, as long as
    /// another source can still be asked.
    pub fn blob(&self, digest: &Digest) -> Result<Option<StoredBlob>, Error> {
        self.first_of(digest, Self::blob_of)
    }

    /// What `look` finds of the blob. What is everybody's comes first: it is most of what there is, and it is then found
    /// by one look.
    fn first_of(
        &self,
        digest: &Digest,
        look: impl Fn(&Self, &Digest, Audience) -> Result<Option<StoredBlob>, Error>,
    ) -> Result<Option<StoredBlob>, Error> {
        for audience in Audience::ALL {
            if let Some(blob) = look(self, digest, audience)? {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    fn blob_of(&self, digest: &Digest, audience: Audience) -> Result<Option<StoredBlob>, Error> {
        let Some((file, stat)) = self.open_file(&layout::blob(digest, audience))? else {
            return Ok(None);
        };
        if !self.is_whole(&stat, digest) {
            return Ok(None);
        }
        if stat.st_size > 0 {
            file.read_exact_at(&mut [0], 0)
                .map_err(|error| Operation::Read.failed(error))?;
        }
        Ok(Some(StoredBlob::new(Arc::new(file), &stat, audience)))
    }

    /// The same where the seal is missing, for the price of reading it all: a blob that was copied here, or stored
    /// before a crash. What is not the blob is removed.
    ///
    /// # Errors
    /// `Open` or `Read` when the file is there but cannot be read.
    pub fn verified_blob(&self, digest: &Digest) -> Result<Option<StoredBlob>, Error> {
        self.first_of(digest, Self::verified_blob_of)
    }

    fn verified_blob_of(
        &self,
        digest: &Digest,
        audience: Audience,
    ) -> Result<Option<StoredBlob>, Error> {
        let Some((file, stat)) = self.open_file(&layout::blob(digest, audience))? else {
            return Ok(None);
        };
        if !self.is_whole(&stat, digest) {
            if hash(&file, digest).map_err(|error| Operation::Read.failed(error))? != *digest {
                tracing::warn!(%digest, bytes = stat.st_size, "removed what was not the blob");
                self.remove_blob_of(digest, audience);
                return Ok(None);
            }
            // Where it cannot be sealed, it is verified again the next time.
            let _ = seal::seal(&file, digest);
        }
        Ok(Some(StoredBlob::new(Arc::new(file), &stat, audience)))
    }

    /// Remembers on disk when a blob was last used.
    ///
    /// # Errors
    /// `Touch` when the file system does not take it.
    pub fn touch(&self, blob: &StoredBlob, last_use: LastUse) -> Result<(), Error> {
        rustix::fs::futimens(&*blob.file, &seal::times_of(last_use))
            .map_err(|errno| Operation::Touch.failed(errno))
    }

    pub(super) fn is_whole(&self, stat: &Stat, digest: &Digest) -> bool {
        if self.keeps_seals {
            return seal::is_whole(stat, digest);
        }
        // An empty file where there should be content is what a crash leaves on some file systems.
        stat.st_size > 0 || *digest == Digest::of(digest.algorithm(), b"")
    }

    /// Removes the blob `digest` as long as it is this `file`, which cannot be read: what has taken its place stays.
    ///
    /// # Errors
    /// `Open` or `Remove` when it is there and stays.
    pub fn discard(&self, digest: &Digest, file: &File) -> Result<(), Error> {
        for audience in [Audience::Everybody, Audience::Entitled] {
            self.discard_of(&layout::blob(digest, audience), file)?;
        }
        self.kept.let_go(digest);
        Ok(())
    }

    fn discard_of(&self, place: &Place, file: &File) -> Result<(), Error> {
        let Some((found, _)) = self.open_file(place)? else {
            return Ok(());
        };
        let identity = |file: &File| fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
        let failed = |errno: Errno| Operation::Remove.failed(errno);
        if identity(&found).map_err(failed)? != identity(file).map_err(failed)? {
            return Ok(());
        }
        match rustix::fs::unlinkat(&self.base, place.path(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// A file in which the blob `digest` may grow, with `size` bytes set aside where that is known.
    ///
    /// # Errors
    /// `Create` when it cannot be made or there is no room for `size` bytes.
    pub fn ingest(&self, digest: &Digest, size: Option<u64>) -> Result<Ingest, Error> {
        let failed = |error: io::Error| Operation::Create.failed(error);
        let place = layout::ingest(digest, fastrand::u64(..));
        let directory = self.make_directory(&place.directory).map_err(failed)?;
        Ingest::create(
            self.clone(),
            directory,
            place.file,
            Destination::Blob(*digest),
            size,
        )
        .map_err(failed)
    }

    /// Removes the blob `digest` of one audience. One that stays costs room alone.
    pub(super) fn remove_blob_of(&self, digest: &Digest, audience: Audience) {
        let path = layout::blob(digest, audience).path();
        let _ = rustix::fs::unlinkat(&self.base, path, AtFlags::empty());
        self.kept.let_go(digest);
    }

    /// The cache directory itself.
    pub(super) fn base(&self) -> &OwnedFd {
        &self.base
    }
}

impl StoredBlob {
    /// A blob that was verified and is in `file`, which need not have a name any more.
    pub(crate) fn of_file(file: Arc<File>, size: u64, audience: Audience) -> Self {
        Self {
            file,
            size,
            audience,
            last_use: LastUse { at: 0, note: 0 },
        }
    }

    pub(super) fn new(file: Arc<File>, stat: &Stat, audience: Audience) -> Self {
        Self {
            file,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            audience,
            last_use: seal::last_use(stat),
        }
    }
}

/// What a file hashes to. Blocks for as long as it takes to read it.
fn hash(mut file: &File, digest: &Digest) -> io::Result<Digest> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; VERIFY_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes a file and removes it again: the one test that knows of owners, groups, mounts and quotas. Gives whether the
/// file system keeps seals.
fn prove_writable(directory: &OwnedFd) -> io::Result<bool> {
    let name = format!("probe.{:016x}", fastrand::u64(..));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let probe = openat(directory, &name, flags, Mode::from_raw_mode(FILE_MODE))?;
    let digest = Digest::of(Algorithm::Sha256, b"");
    let sealed = seal::seal(&probe, &digest).and_then(|()| fstat(&probe));
    let keeps_seals = sealed.is_ok_and(|stat| seal::is_whole(&stat, &digest));
    rustix::fs::unlinkat(directory, &name, AtFlags::empty())?;
    Ok(keeps_seals)
}

/// Removes the ingest files whose process is gone. A living process, perhaps the one this one takes over from, holds
/// a lock on its own.
fn remove_leftovers(ingest: &OwnedFd) -> io::Result<()> {
    for entry in rustix::fs::Dir::read_from(ingest)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(file) = openat(ingest, name, flags, Mode::empty()) else {
            continue;
        };
        if rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_ok() {
            // What a stranger made undeletable is a stranger's; it costs room, not correctness.
            let _ = rustix::fs::unlinkat(ingest, name, AtFlags::empty());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
