//! The task of a fill: from the sources into the file, verified, published.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};

use super::behind::Behind;
use super::fill::{End, Fill, FillError, Opened};
use crate::metrics::Metrics;
use crate::oci::Hasher;
use crate::storage::{Ingest, Local};
use crate::upstream::{self, BlobStream, Extent, Repository};

/// How many bytes are gathered into one write. Larger is not faster: measured 1.73 CPU seconds per GiB at 256 KiB,
/// 2.09 at 1 MiB.
const WRITE_BYTES: usize = 256 * 1024;

/// How often a source that dropped in the middle is taken up again without a single byte of progress.
const RESUMES_IN_VAIN_MAX: u32 = 3;

/// How often a source is taken up again at all: a source that gives a few bytes at a time is broken, too.
const RESUMES_MAX: u32 = 100;

/// The first pause before a source is taken up again; doubled for each attempt in vain, and jittered, so that the
/// fills that one outage cut do not all come back at the same instant.
const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// How long one fill may take at most: the largest layer that a registry takes (52 000 MiB, Amazon ECR quotas) over
/// 20 Mbit/s. Stalls end much earlier, by the upstream's idle time-out.
const FILL_DEADLINE: Duration = Duration::from_hours(6);

/// Largest blob taken from an upstream that does not say how large it is, in bytes. Its readers wait for all of it,
/// since nothing can be answered without a length.
const UNDECLARED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Brings the blob of `fill` in.
pub(super) async fn run(fill: Arc<Fill>, storage: Local, behind: Behind, metrics: Metrics) {
    let _inflight = metrics.fill();
    let receiver = Receiver {
        fill: Arc::clone(&fill),
        storage,
        behind,
        metrics,
        writer: None,
        declared: None,
    };
    let deadline = Instant::now() + FILL_DEADLINE;
    let result = timeout_at(deadline, receiver.run())
        .await
        .unwrap_or(Err(FillError::Upstream(upstream::Error::TimedOut(
            upstream::Silence::Body,
        ))));
    if let Err(error) = result {
        info!(digest = %fill.digest(), error = %error, "fill failed");
        fill.end(End::Failed(error));
    }
}

/// The state of the task.
struct Receiver {
    fill: Arc<Fill>,
    storage: Local,
    behind: Behind,
    metrics: Metrics,
    /// Made when the first source answers.
    writer: Option<Writer>,
    /// The size the first source declared; every other source has to agree.
    declared: Option<u64>,
}

impl Receiver {
    async fn run(mut self) -> Result<(), FillError> {
        let mut last = FillError::Broken;
        while let Some(source) = self.fill.next_source() {
            match self.receive_from(&source).await {
                Ok(()) => return self.finish(&source).await,
                Err(FillError::Upstream(error)) => {
                    debug!(digest = %self.fill.digest(), %source, %error, "source failed");
                    self.fill.source_failed(&source, error.clone());
                    last = error.into();
                }
                Err(
                    error @ (FillError::WrongDigest { .. }
                    | FillError::Storage(_)
                    | FillError::Broken),
                ) => return Err(error),
            }
        }
        Err(last)
    }

    /// Receives all that is missing from one source, taking it up again where it drops.
    async fn receive_from(&mut self, source: &Repository) -> Result<(), FillError> {
        let mut in_vain = 0;
        for _ in 0..RESUMES_MAX {
            let before = self.front();
            let error = match self.receive_once(source).await {
                Err(FillError::Upstream(error)) if error.is_trouble() && self.writer.is_some() => {
                    error
                }
                ended => return ended,
            };
            if self.declared == Some(self.front()) {
                // It dropped after the last byte.
                return Ok(());
            }
            in_vain = if self.front() > before {
                0
            } else {
                in_vain + 1
            };
            if in_vain >= RESUMES_IN_VAIN_MAX {
                return Err(error.into());
            }
            debug!(digest = %self.fill.digest(), %source, %error, at = self.front(), "resuming");
            self.metrics.upstream_retry(error.as_str());
            sleep(RESUME_PAUSE.mul_f64(f64::from(1 << in_vain) * (0.5 + fastrand::f64()))).await;
        }
        Err(FillError::Upstream(upstream::Error::Protocol(
            "the body never ends".to_owned(),
        )))
    }

    /// One request to one source, and its body for as long as it lasts.
    async fn receive_once(&mut self, source: &Repository) -> Result<(), FillError> {
        let rest = Extent::Rest {
            from: self.front(),
            total: self.declared,
        };
        let mut stream = source.get_blob(&self.fill.digest(), rest).await?;
        self.open(&stream).await?;
        self.skip_to_front(&mut stream).await?;
        let mut gathered = gather(&mut stream).await;
        loop {
            let batch = std::mem::take(&mut gathered.chunks);
            if batch.is_empty() {
                return gathered
                    .end
                    .map_or(Ok(()), |end| end.map_err(FillError::from));
            }
            // The next batch comes in while this one is written and hashed.
            let (written, next) = if gathered.end.is_none() {
                tokio::join!(self.write(batch), gather(&mut stream))
            } else {
                (
                    self.write(batch).await,
                    Gathered {
                        chunks: Vec::new(),
                        end: gathered.end,
                    },
                )
            };
            written?;
            gathered = next;
        }
    }

    /// Makes the file, or holds a further source against what the first one said.
    async fn open(&mut self, stream: &BlobStream) -> Result<(), FillError> {
        let size = stream.total();
        if self.writer.is_some() {
            return match size {
                size if size == self.declared => Ok(()),
                _ => {
                    Err(upstream::Error::Protocol("the size of the blob changed".to_owned()).into())
                }
            };
        }
        let (storage, digest) = (self.storage.clone(), self.fill.digest());
        let ingest = blocking(move || storage.ingest(&digest, size))
            .await?
            .inspect_err(|error| {
                self.metrics.storage_error(error.operation.as_str());
            })?;
        if let Some(size) = size {
            self.fill.open(Opened {
                size,
                file: Arc::clone(ingest.file()),
            });
        }
        self.declared = size;
        let hasher = Hasher::new(digest.algorithm());
        self.writer = Some(Writer {
            ingest,
            hasher,
            front: 0,
        });
        Ok(())
    }

    /// Reads over what is already there, where the source would not start in the middle.
    async fn skip_to_front(&mut self, stream: &mut BlobStream) -> Result<(), FillError> {
        let mut at = stream.offset();
        while at < self.front() {
            let Some(mut chunk) = stream.chunk().await? else {
                return Err(upstream::Error::Protocol("the body ended early".to_owned()).into());
            };
            let skipped = (self.front() - at).min(chunk.len() as u64);
            at += skipped;
            // No chunk is larger than memory, so the count fits.
            let rest = chunk.split_off(usize::try_from(skipped).unwrap_or(chunk.len()));
            if !rest.is_empty() {
                self.write(vec![rest]).await?;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Appends to the front.
    async fn write(&mut self, chunks: Vec<Bytes>) -> Result<(), FillError> {
        let mut writer = self.writer.take().ok_or(FillError::Broken)?;
        let before = writer.front;
        let (writer, written) = blocking(move || {
            let written = writer.write(&chunks);
            (writer, written)
        })
        .await?;
        written.inspect_err(|error| self.metrics.storage_error(error.operation.as_str()))?;
        let front = writer.front;
        self.writer = Some(writer);
        if self.declared.is_none() && front > UNDECLARED_BYTES_MAX {
            return Err(upstream::Error::TooLarge {
                bytes_max: UNDECLARED_BYTES_MAX,
            }
            .into());
        }
        self.fill.received(before..front);
        Ok(())
    }

    /// Every byte is there: holds them against the digest, lets the readers have the end, and publishes.
    async fn finish(mut self, source: &Repository) -> Result<(), FillError> {
        let Writer {
            ingest,
            hasher,
            front,
        } = self.writer.take().ok_or(FillError::Broken)?;
        let found = hasher.finish();
        if found != self.fill.digest() {
            warn!(digest = %self.fill.digest(), %found, bytes = front, %source, "wrong bytes");
            self.metrics.digest_mismatch(source.label());
            return Err(FillError::WrongDigest { found });
        }
        if self.declared.is_none() {
            self.fill.open(Opened {
                size: front,
                file: Arc::clone(ingest.file()),
            });
        }
        let _publishing = self.behind.under_way();
        self.fill.end(End::Verified);
        // The readers have what they need; whether the blob is also kept is our own affair.
        if let Err(error) = blocking(move || ingest.publish()).await? {
            warn!(digest = %self.fill.digest(), error = %error.cause, "the blob was not stored");
            self.metrics.storage_error(error.operation.as_str());
        }
        Ok(())
    }

    fn front(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.front)
    }
}

/// The file, and the digest of its front.
struct Writer {
    ingest: Ingest,
    hasher: Hasher,
    front: u64,
}

impl Writer {
    fn write(&mut self, chunks: &[Bytes]) -> Result<(), crate::storage::Error> {
        self.ingest.write_at(chunks, self.front)?;
        for chunk in chunks {
            self.hasher.update(chunk);
            self.front += chunk.len() as u64;
        }
        Ok(())
    }
}

/// What a source gave without making us wait, and its end where it came to one.
struct Gathered {
    chunks: Vec<Bytes>,
    end: Option<Result<(), upstream::Error>>,
}

/// Waits for the next bytes, and takes along what is there already: a slow source is passed on at once, a fast one in
/// large writes.
async fn gather(stream: &mut BlobStream) -> Gathered {
    let mut gathered = Gathered {
        chunks: Vec::new(),
        end: None,
    };
    let mut bytes = 0;
    let mut next = Some(stream.chunk().await);
    while let Some(chunk) = next {
        match chunk {
            Ok(Some(chunk)) => {
                bytes += chunk.len();
                gathered.chunks.push(chunk);
            }
            Ok(None) => gathered.end = Some(Ok(())),
            Err(error) => gathered.end = Some(Err(error)),
        }
        let more = gathered.end.is_none() && bytes < WRITE_BYTES;
        next = if more {
            stream.chunk().now_or_never()
        } else {
            None
        };
    }
    gathered
}

/// Runs what blocks where that is allowed. A panic there is the end of the fill, not of the process.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FillError> {
    spawn_blocking(work).await.map_err(|_| FillError::Broken)
}
