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
mod tests {
    use std::os::unix::fs::symlink;

    use bytes::Bytes;

    use super::*;

    fn open() -> (tempfile::TempDir, Local) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let local = Local::open(directory.path()).expect("a writable directory");
        (directory, local)
    }

    fn store(local: &Local, content: &'static [u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let ingest = local
            .ingest(&digest, Some(content.len() as u64))
            .expect("an ingest file");
        let (head, tail) = content.split_at(content.len() / 2);
        let chunks = [
            Bytes::from_static(head),
            Bytes::new(),
            Bytes::from_static(tail),
        ];
        ingest.write_at(&chunks, 0).expect("written");
        ingest.publish(Audience::Everybody).expect("published");
        digest
    }

    fn read(blob: &StoredBlob) -> Vec<u8> {
        let mut content = Vec::new();
        (&*blob.file).read_to_end(&mut content).expect("read");
        content
    }

    fn files_below(directory: &Path, name: &str) -> usize {
        std::fs::read_dir(directory.join("v1").join(name)).map_or(0, Iterator::count)
    }

    #[test]
    fn a_published_blob_is_found_by_its_digest() {
        let (_directory, local) = open();
        for content in [&b"some bytes"[..], b""] {
            let digest = store(&local, content);
            let blob = local.blob(&digest).expect("readable").expect("there");
            assert_eq!(
                (blob.size, read(&blob)),
                (content.len() as u64, content.to_vec())
            );
        }
        assert!(
            local
                .blob(&Digest::of(Algorithm::Sha256, b"other"))
                .expect("readable")
                .is_none()
        );
    }

    #[test]
    fn a_blob_that_is_not_published_leaves_nothing() {
        let (directory, local) = open();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        drop(local.ingest(&digest, Some(1)).expect("an ingest file"));
        assert_eq!(files_below(directory.path(), "ingest"), 0);
        assert!(local.blob(&digest).expect("readable").is_none());
    }

    #[test]
    fn leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not() {
        let (directory, local) = open();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let living = local.ingest(&digest, Some(1)).expect("an ingest file");
        std::fs::write(directory.path().join("v1/ingest/dead"), b"half").expect("written");
        Local::open(directory.path()).expect("opened beside the living");
        assert_eq!(files_below(directory.path(), "ingest"), 1);
        living
            .write_at(&[Bytes::from_static(b"x")], 0)
            .expect("written");
        living.publish(Audience::Entitled).expect("published");
    }

    #[test]
    fn what_a_stranger_puts_in_place_of_a_blob_is_a_miss() {
        let (directory, local) = open();
        let digest = store(&local, b"some bytes");
        let path = directory
            .path()
            .join(layout::blob(&digest, Audience::Everybody).path());
        let missing = || local.blob(&digest).expect("no error").is_none();

        std::fs::remove_file(&path).expect("removed");
        symlink("/etc/passwd", &path).expect("linked");
        assert!(missing(), "a symbolic link is not followed");
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        assert!(missing(), "a directory is no blob");
        std::fs::remove_dir(&path).expect("removed");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
            .expect("made");
        assert!(missing(), "a FIFO is not waited for");
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, b"").expect("written");
        assert!(missing(), "an empty file is not the content");
    }

    #[test]
    fn what_cannot_be_read_is_discarded_and_what_took_its_place_is_not() {
        let (_directory, local) = open();
        let digest = store(&local, b"some bytes");
        let found = || local.blob(&digest).expect("readable");
        let first = found().expect("there");
        store(&local, b"some bytes");
        local
            .discard(&digest, &first.file)
            .expect("another one stands there");
        let second = found().expect("there");
        local.discard(&digest, &second.file).expect("removed");
        assert!(found().is_none());
        local.discard(&digest, &second.file).expect("gone already");
    }

    #[test]
    fn what_becomes_everybodys_is_not_kept_twice() {
        let (directory, local) = open();
        let content = b"some bytes";
        let digest = Digest::of(Algorithm::Sha256, content);
        let ingest = local.ingest(&digest, None).expect("an ingest file");
        ingest
            .write_at(&[Bytes::from_static(content)], 0)
            .expect("written");
        ingest.publish(Audience::Entitled).expect("published");
        let audience = || {
            let blob = local.blob(&digest).expect("readable");
            blob.expect("there").audience
        };
        assert_eq!(audience(), Audience::Entitled);
        store(&local, content);
        assert_eq!(audience(), Audience::Everybody);
        let private = layout::blob(&digest, Audience::Entitled).path();
        assert!(!directory.path().join(private).exists());
    }

    #[test]
    fn a_blob_without_its_seal_is_verified_first() {
        let (directory, local) = open();
        let digest = store(&local, b"some bytes");
        let path = directory
            .path()
            .join(layout::blob(&digest, Audience::Everybody).path());
        let times = std::fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
        let unseal = || {
            let file = File::options().write(true).open(&path).expect("there");
            file.set_times(times).expect("ours");
        };
        unseal();
        assert!(local.blob(&digest).expect("readable").is_none());
        assert!(local.verified_blob(&digest).expect("readable").is_some());
        assert!(
            local.blob(&digest).expect("readable").is_some(),
            "it is sealed again"
        );

        std::fs::write(&path, b"SOME BYTES").expect("written");
        assert!(local.blob(&digest).expect("readable").is_none());
        assert!(local.verified_blob(&digest).expect("readable").is_none());
        assert!(!path.exists(), "it was not the blob");
    }

    #[test]
    fn what_belongs_to_somebody_else_is_not_used() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tried: only root can give files away");
            return;
        }
        let (directory, local) = open();
        let digest = store(&local, b"some bytes");
        let path = directory
            .path()
            .join(layout::blob(&digest, Audience::Everybody).path());
        std::os::unix::fs::chown(&path, Some(12345), None).expect("given away");
        assert!(local.blob(&digest).expect("readable").is_none());

        let ours = directory.path().join(layout::VERSION);
        std::os::unix::fs::chown(&ours, Some(12345), None).expect("given away");
        let error = Local::open(directory.path()).expect_err("it is a stranger's");
        assert!(
            matches!(error, OpenError::Stranger { owner: 12345, .. }),
            "{error}"
        );
        // The directory itself may be anybody's, as long as it can be written to.
        std::os::unix::fs::chown(&ours, Some(0), None).expect("taken back");
        std::os::unix::fs::chown(directory.path(), Some(12345), None).expect("given away");
        Local::open(directory.path()).expect("it can be written to");
    }

    #[test]
    fn a_directory_emptied_by_a_stranger_costs_misses_only() {
        let (directory, local) = open();
        let digest = store(&local, b"some bytes");
        let held = local.blob(&digest).expect("readable").expect("there");
        std::fs::remove_dir_all(directory.path().join("v1")).expect("emptied");
        assert!(local.blob(&digest).expect("no error").is_none());
        assert_eq!(read(&held), b"some bytes");
        store(&local, b"some bytes");
        assert!(local.blob(&digest).expect("readable").is_some());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("file");
        std::fs::write(&file, b"").expect("written");
        let error = Local::open(&file.join("cache")).expect_err("a file is no directory");
        assert!(error.to_string().contains("file/cache"), "{error}");
    }
}
