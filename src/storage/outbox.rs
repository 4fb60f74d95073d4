//! What is still to be uploaded: an empty file each, named for it, so that a restart finds it again.

use std::fmt;

use rustix::fs::{AtFlags, Mode, OFlags, openat};
use rustix::io::Errno;

use super::layout::{self, RecordName};
use super::local::{FILE_MODE, Local};
use super::{Error, Operation};
use crate::oci::Digest;

/// Something that is to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Parcel {
    /// A blob.
    Blob(Digest),
    /// The bytes of a manifest.
    Document(Digest),
    /// A record.
    Record(RecordName),
    /// That there is no such record any more.
    Removal(RecordName),
}

impl fmt::Display for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = |f: &mut fmt::Formatter<'_>, kind: &str, digest: &Digest| {
            write!(f, "{kind}.{}.{}", digest.algorithm().as_str(), digest.hex())
        };
        match self {
            Self::Blob(blob) => digest(f, "blob", blob),
            Self::Document(document) => digest(f, "document", document),
            Self::Record(name) => write!(f, "record.{name}"),
            Self::Removal(name) => write!(f, "removal.{name}"),
        }
    }
}

impl Parcel {
    /// The blob on disk that it is about, if it is one.
    pub fn blob(&self) -> Option<&Digest> {
        match self {
            Self::Blob(digest) | Self::Document(digest) => Some(digest),
            Self::Record(_) | Self::Removal(_) => None,
        }
    }

    /// What a file of this name stands for; `None` where it is a stranger's.
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '.');
        let (kind, what, hex) = (parts.next()?, parts.next()?, parts.next()?);
        let digest = || format!("{what}:{hex}").parse().ok();
        let record = || RecordName::parse(what, hex);
        match kind {
            "blob" => digest().map(Self::Blob),
            "document" => digest().map(Self::Document),
            "record" => record().map(Self::Record),
            "removal" => record().map(Self::Removal),
            _ => None,
        }
    }
}

impl Local {
    /// Remembers that `parcel` is to be uploaded. It is not made durable: what a crash forgets is uploaded when somebody
    /// fetches it again.
    ///
    /// # Errors
    /// `Create`, when that cannot be remembered.
    pub fn note(&self, parcel: &Parcel) -> Result<(), Error> {
        let failed = |error: std::io::Error| Operation::Create.failed(error);
        let outbox = self
            .make_directory(&layout::outbox_directory())
            .map_err(failed)?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(FILE_MODE);
        openat(&outbox, parcel.to_string(), flags | OFlags::NONBLOCK, mode)
            .map_err(|errno| Operation::Create.failed(errno))?;
        Ok(())
    }

    /// Forgets that. What is not remembered counts as forgotten.
    ///
    /// # Errors
    /// `Remove`, when it stays.
    pub fn forget_note(&self, parcel: &Parcel) -> Result<(), Error> {
        let directory = layout::outbox_directory().join("/");
        let path = format!("{directory}/{parcel}");
        match rustix::fs::unlinkat(self.base(), path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(Operation::Remove.failed(errno)),
        }
    }

    /// At most `n_max` of what is to be uploaded, in no order. What a stranger put there is passed over.
    ///
    /// # Errors
    /// `Open` when the directory cannot be read.
    pub fn notes(&self, n_max: usize) -> Result<Vec<Parcel>, Error> {
        let outbox = self
            .make_directory(&layout::outbox_directory())
            .map_err(|error| Operation::Open.failed(error))?;
        let entries =
            rustix::fs::Dir::read_from(&outbox).map_err(|errno| Operation::Open.failed(errno))?;
        let parcels = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            Parcel::parse(entry.file_name().to_str().ok()?)
        });
        Ok(parcels.take(n_max).collect())
    }

    /// The content of the record called `name`, if there is one.
    ///
    /// # Errors
    /// `Open` or `Read` when it is there but cannot be read.
    pub fn record_named(&self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        self.record_at(&name.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use crate::storage::RecordKey;

    #[test]
    fn what_is_noted_is_found_again_until_it_is_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = Local::open(directory.path()).expect("a writable directory");
        let digest = Digest::of(Algorithm::Sha512, b"x");
        let namespace = "a.example".parse().expect("a namespace");
        let repository = "b/c".parse().expect("a name");
        let record = RecordName::from(RecordKey::Link(&namespace, &repository, &digest));
        let parcels = [
            Parcel::Blob(digest),
            Parcel::Document(Digest::of(Algorithm::Sha256, b"x")),
            Parcel::Record(record.clone()),
            Parcel::Removal(record),
        ];
        for parcel in &parcels {
            assert_eq!(Parcel::parse(&parcel.to_string()).as_ref(), Some(parcel));
            local.note(parcel).expect("noted");
            local.note(parcel).expect("noted again");
        }
        std::fs::write(directory.path().join("v1/outbox/stranger"), b"x").expect("written");
        let again = Local::open(directory.path()).expect("a writable directory");
        let found = again.notes(10).expect("readable");
        assert_eq!(found.len(), 4);
        assert!(parcels.iter().all(|parcel| found.contains(parcel)));
        assert_eq!(again.notes(2).expect("readable").len(), 2);
        for parcel in &parcels {
            again.forget_note(parcel).expect("forgotten");
            again.forget_note(parcel).expect("forgotten before");
        }
        assert_eq!(again.notes(10).expect("readable"), []);
    }
}
