//! The way from the held directory down to a file: no symbolic link is followed, and no FIFO waited for.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;

use super::layout::Place;
use super::local::{Access, Local};
use super::{Error, Operation};

/// Directories are ours and our group's to read.
const DIRECTORY_MODE: u32 = 0o750;

/// What a directory has besides where our group may delete files.
const GROUP_MODE: u32 = 0o020;

impl Local {
    /// Opens a regular file for reading. Whatever else stands in its place is not there as far as we care.
    pub(super) fn open_file(&self, place: &Place) -> Result<Option<(File, Stat)>, Error> {
        self.open_file_with(place, OFlags::empty())
    }

    /// The same, and reading it is no use of it: the kernel leaves the time of the last one as it is.
    pub(super) fn open_unnoticed(&self, place: &Place) -> Result<Option<(File, Stat)>, Error> {
        match self.open_file_with(place, OFlags::NOATIME) {
            // Only who owns a file may ask for that, and what somebody else owns is nothing of ours.
            Err(error) if error.cause.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            opened => opened,
        }
    }

    fn open_file_with(&self, place: &Place, more: OFlags) -> Result<Option<(File, Stat)>, Error> {
        // NONBLOCK: opening a FIFO somebody planted must not wait for its other end.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | more;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let path = place.path();
        let opened = match openat2(&self.base, &path, flags, Mode::empty(), resolve) {
            // Kernels before 5.6, and sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => openat(&self.base, &path, flags, Mode::empty()),
            opened => opened,
        };
        match opened {
            Ok(descriptor) => {
                let stat = fstat(&descriptor).map_err(|errno| Operation::Open.failed(errno))?;
                let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
                // A name that somebody else gave a file of theirs is nothing of ours.
                let ours = stat.st_uid == rustix::process::geteuid().as_raw();
                Ok((regular && ours).then(|| (File::from(descriptor), stat)))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(None),
            Err(errno) => Err(Operation::Open.failed(errno)),
        }
    }

    /// Opens a directory below the base, making every part that is missing. No part may be a symbolic link.
    pub(super) fn make_directory<S: AsRef<str>>(&self, parts: &[S]) -> io::Result<OwnedFd> {
        self.descend(parts, false)
    }

    /// The same; what a stranger put in the place of a directory of ours is removed.
    pub(super) fn claim_directory<S: AsRef<str>>(&self, parts: &[S]) -> io::Result<OwnedFd> {
        self.descend(parts, true)
    }

    fn descend<S: AsRef<str>>(&self, parts: &[S], clears_way: bool) -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut parent: Option<OwnedFd> = None;
        for part in parts {
            let above = parent.as_ref().unwrap_or(&self.base);
            let opened = match openat(above, part.as_ref(), flags, Mode::empty()) {
                Err(Errno::NOTDIR | Errno::LOOP) if clears_way => {
                    rustix::fs::unlinkat(above, part.as_ref(), AtFlags::empty())?;
                    self.make_part(above, part.as_ref())
                }
                Err(Errno::NOENT) => self.make_part(above, part.as_ref()),
                opened => opened,
            };
            parent = Some(opened?);
        }
        parent.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
    }

    fn make_part(&self, above: &OwnedFd, part: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::mkdirat(above, part, Mode::from_raw_mode(DIRECTORY_MODE)) {
            // Somebody else may have been faster.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        // A name that is not yet durable takes everything below it along when power fails.
        rustix::fs::fsync(above)?;
        let made = openat(above, part, flags, Mode::empty())?;
        if self.access == Access::Group {
            // The mask of the process has a say in `mkdir`, and the group that a directory passes on stays.
            let mode = fstat(&made)?.st_mode | GROUP_MODE;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
        }
        Ok(made)
    }
}
