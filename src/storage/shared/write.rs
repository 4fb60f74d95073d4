//! What the store is given.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions};
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::{ANSWER_TIMEOUT, Error, Operation, Shared, WRITE_TIMEOUT};
use crate::oci::{Digest, Hasher};
use crate::storage::layout::{self, Audience, RecordName};
use crate::storage::{RECORD_BYTES_MAX, StoredBlob};

/// How many bytes are uploaded at once. A larger blob goes in parts of this size: S3 takes 10 000 of them, and the
/// largest blob there is has 6 500.
const PART_BYTES: u64 = 8 * 1024 * 1024;

/// How often a record is read again because somebody else wrote it meanwhile.
const RACES_MAX: u32 = 4;

/// The part of a record that says how new it is.
#[derive(Debug, Deserialize)]
struct Stamp {
    /// When upstream said so, in seconds since 1970.
    #[serde(default)]
    checked: u64,
}

impl Shared {
    /// Uploads a verified blob, unless it is there. It can be seen only once all of it is there, and only if what was
    /// read of it on the way still hashes to `digest`.
    ///
    /// # Errors
    /// `Damaged` when it does not; else see [`Error`].
    pub async fn put_blob(&self, digest: &Digest, blob: &StoredBlob) -> Result<(), Error> {
        let path = layout::blob(digest, blob.audience).path();
        if blob.size <= PART_BYTES {
            let mut hasher = Hasher::new(digest.algorithm());
            let content = read(&blob.file, 0, blob.size).await?;
            hasher.update(&content);
            return if hasher.finish() == *digest {
                self.put_new(&path, content).await
            } else {
                Err(Error::Damaged)
            };
        }
        let place = self.place(&path);
        if self.has(&place, blob.size).await? {
            return Ok(());
        }
        let begun = self.0.store.put_multipart(&place);
        let begun = self.ask(Operation::Put, WRITE_TIMEOUT, begun).await?;
        let Some(mut upload) = begun else {
            return Ok(());
        };
        let Err(error) = self.put_parts(&mut *upload, digest, blob).await else {
            return Ok(());
        };
        // What cannot be taken back goes by the lifecycle rules of the bucket.
        let aborted = upload.abort();
        let _ = self.ask(Operation::Delete, ANSWER_TIMEOUT, aborted).await;
        // The reply may be all that was lost; and where another replica was faster, some stores end every other upload
        // of the same object.
        if error.is_trouble() && self.has(&place, blob.size).await? {
            return Ok(());
        }
        Err(error)
    }

    /// Whether there is an object of `size` bytes at `place`.
    async fn has(&self, place: &Path, size: u64) -> Result<bool, Error> {
        Ok(self.size_at(place).await? == Some(size))
    }

    /// The size in bytes of what is at `place`.
    async fn size_at(&self, place: &Path) -> Result<Option<u64>, Error> {
        let known = self.0.store.head(place);
        let known = self.ask(Operation::Head, ANSWER_TIMEOUT, known).await?;
        Ok(known.map(|known| known.size))
    }

    async fn put_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        digest: &Digest,
        blob: &StoredBlob,
    ) -> Result<(), Error> {
        let mut hasher = Hasher::new(digest.algorithm());
        let mut at = 0;
        while at < blob.size {
            let end = (at + PART_BYTES).min(blob.size);
            let part = read(&blob.file, at, end).await?;
            hasher.update(&part);
            self.0.metrics.shared_sent(end - at);
            let sent = upload.put_part(part.into());
            self.ask(Operation::Put, WRITE_TIMEOUT, sent).await?;
            at = end;
        }
        if hasher.finish() != *digest {
            return Err(Error::Damaged);
        }
        let completed = upload.complete();
        self.ask(Operation::Put, WRITE_TIMEOUT, completed).await?;
        Ok(())
    }

    /// Takes the blob `digest` out of the store: its bytes are wrong.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove_blob(&self, digest: &Digest, audience: Audience) -> Result<(), Error> {
        self.remove(&layout::blob(digest, audience).path()).await
    }

    /// Uploads the bytes of the manifest `digest`, unless they are there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_document(&self, digest: &Digest, content: Bytes) -> Result<(), Error> {
        self.put_new(&layout::document(digest).path(), content)
            .await
    }

    /// Uploads a record, unless there is one that is as new: what upstream said last counts, whoever heard it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_record(&self, name: &RecordName, content: &[u8]) -> Result<(), Error> {
        let path = name.path();
        let ours = checked(content);
        for _ in 0..RACES_MAX {
            let there = self.small(&path, RECORD_BYTES_MAX).await?;
            let mode = match there {
                Some((there, _)) if checked(&there) > ours || *there == *content => return Ok(()),
                Some((_, version)) => PutMode::Update(version),
                None => PutMode::Create,
            };
            match self.put(&path, Bytes::copy_from_slice(content), mode).await {
                Err(Error::Refused(cause)) if is_race(&cause) => {}
                ended => return ended,
            }
        }
        // Others write it all the time, and what they write is as new.
        Ok(())
    }

    /// Takes a record out of the store.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove_record(&self, name: &RecordName) -> Result<(), Error> {
        self.remove(&name.path()).await
    }

    async fn remove(&self, path: &str) -> Result<(), Error> {
        let place = self.place(path);
        let question = self.0.store.delete(&place);
        self.ask(Operation::Delete, WRITE_TIMEOUT, question).await?;
        Ok(())
    }

    /// Uploads what is the same whoever uploads it: if it is there already, that will do.
    async fn put_new(&self, path: &str, content: Bytes) -> Result<(), Error> {
        match self.put(path, content, PutMode::Create).await {
            Err(Error::Refused(cause)) if is_race(&cause) => {
                // It is there (412), or somebody else was about to put it there and may yet have failed (409).
                match self.size_at(&self.place(path)).await? {
                    Some(_) => Ok(()),
                    None => Err(Error::Unavailable(cause)),
                }
            }
            ended => ended,
        }
    }

    async fn put(&self, path: &str, content: Bytes, mode: PutMode) -> Result<(), Error> {
        let place = self.place(path);
        let length = content.len() as u64;
        let put = |mode| {
            let options = PutOptions::from(mode);
            let question = self
                .0
                .store
                .put_opts(&place, content.clone().into(), options);
            self.ask(Operation::Put, WRITE_TIMEOUT, question)
        };
        let put_so = match put(mode.clone()).await {
            // A store that knows no conditions takes it without: whoever writes this writes the same, or as new.
            Err(Error::Refused(cause)) if !is_race(&cause) && mode != PutMode::Overwrite => {
                put(PutMode::Overwrite).await
            }
            ended => ended,
        };
        put_so?;
        self.0.metrics.shared_sent(length);
        Ok(())
    }
}

/// Whether somebody else was faster.
fn is_race(cause: &object_store::Error) -> bool {
    matches!(
        cause,
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }
    )
}

/// When upstream said what is in a record; 0 for one that holds whenever it was written.
fn checked(content: &[u8]) -> u64 {
    serde_json::from_slice::<Stamp>(content).map_or(0, |stamp| stamp.checked)
}

/// The bytes of `file` from `start` up to `end`.
async fn read(file: &Arc<File>, start: u64, end: u64) -> Result<Bytes, Error> {
    let file = Arc::clone(file);
    let read = spawn_blocking(move || {
        let length = usize::try_from(end - start).ok()?;
        let mut content = vec![0; length];
        file.read_exact_at(&mut content, start).ok()?;
        Some(Bytes::from(content))
    });
    read.await.ok().flatten().ok_or(Error::Damaged)
}
