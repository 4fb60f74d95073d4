//! Small records by key, each a file that is replaced as a whole.

use std::io::{self, Read as _, Write as _};
use std::sync::atomic::Ordering;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::ingest::Destination;
use super::layout::{self, Audience, Place, RecordKey};
use super::local::Local;
use super::{Error, Ingest, Operation};

/// Longest record that is read, in bytes. A tag record is some hundred, a list of a thousand tags some ten thousand.
pub const RECORD_BYTES_MAX: u64 = 64 * 1024;

impl Local {
    /// The record of `key`, if there is one. What it says is for the caller to check.
    ///
    /// # Errors
    /// `Open` or `Read` when it is there but cannot be read.
    pub fn record(&self, key: RecordKey<'_>) -> Result<Option<Vec<u8>>, Error> {
        self.record_at(&layout::record(key))
    }

    /// The record at `place`, if there is one.
    pub(super) fn record_at(&self, place: &Place) -> Result<Option<Vec<u8>>, Error> {
        let Some((file, _)) = self.open_file(place)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        file.take(RECORD_BYTES_MAX)
            .read_to_end(&mut content)
            .map_err(|error| Operation::Read.failed(error))?;
        Ok(Some(content))
    }

    /// Writes the record of `key`, whole or not at all.
    ///
    /// # Errors
    /// The step that failed; the record is then as it was.
    pub fn write_record(&self, key: RecordKey<'_>, content: &[u8]) -> Result<(), Error> {
        self.write_record_at(layout::record(key), content)?;
        self.records_written.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the record at `place`, whole or not at all.
    pub(super) fn write_record_at(&self, place: Place, content: &[u8]) -> Result<(), Error> {
        let failed = |error: io::Error| Operation::Create.failed(error);
        let directory = self
            .make_directory(&layout::ingest_directory())
            .map_err(failed)?;
        let name = format!("record.{:016x}", fastrand::u64(..));
        let destination = Destination::Record(place);
        let ingest =
            Ingest::create(self.clone(), directory, name, destination, None).map_err(failed)?;
        ingest
            .file()
            .as_ref()
            .write_all(content)
            .map_err(|error| Operation::Write.failed(error))?;
        // Whose a record is it says itself.
        ingest.publish(Audience::Entitled)
    }

    /// How many records were written since the start.
    pub fn records_written(&self) -> u64 {
        self.records_written.load(Ordering::Relaxed)
    }

    /// Removes the record of `key`. One that is not there counts as removed.
    ///
    /// # Errors
    /// `Remove` when it is there and stays.
    pub fn remove_record(&self, key: RecordKey<'_>) -> Result<(), Error> {
        let path = layout::record(key).path();
        match rustix::fs::unlinkat(&self.base, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Operation::Remove.failed(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, Digest};

    #[test]
    fn records_are_written_whole_and_replaced() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let local = Local::open(directory.path()).expect("a writable directory");
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let namespace = "docker.io".parse().expect("a namespace");
        let repository = "library/x".parse().expect("a name");
        let key = RecordKey::Manifest(&namespace, &repository, &digest);
        assert_eq!(local.record(key).expect("readable"), None);
        for content in [&b"first, longer"[..], b"second"] {
            local.write_record(key, content).expect("written");
            assert_eq!(
                local.record(key).expect("readable").as_deref(),
                Some(content)
            );
        }
        local.remove_record(key).expect("removed");
        local
            .remove_record(key)
            .expect("removing what is not there is no error");
        assert_eq!(local.record(key).expect("readable"), None);
        let ingest = directory.path().join("v1/ingest");
        assert_eq!(std::fs::read_dir(ingest).map_or(0, Iterator::count), 0);
    }
}
