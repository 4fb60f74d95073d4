//! An object store behind the directory: what every replica may ask, and what each of them gives.
//!
//! Names are those of the directory, below a prefix: `v1/blobs/…` of everybody's blobs, `v1/private/…` of the others,
//! `v1/documents/…` of the bytes of manifests, which no question for a blob finds, and the records under their hashed
//! names. Nothing here is verified: whoever reads holds the bytes against their digest, as those of an upstream.
//!
//! Whatever goes wrong is trouble: the caller does without. A [breaker] keeps a store that fails from being
//! waited for again and again. Nothing here lists the store: objects go by rules of its own.

mod breaker;
use breaker::Breaker;

mod client;

mod config;
pub use config::{AccessKey, Config, Provider, SetUpError};
/// Below what in a bucket: parts with a slash between them, or nothing.
pub use object_store::path::Path as Prefix;

mod error;
pub use error::Error;

mod read;
pub use read::{SharedBlob, SharedStream};

mod write;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::path::Path;
use tokio::time::{Instant, timeout};

use crate::metrics::Metrics;

/// How long the store has to begin an answer to a question somebody waits for. Stores answer within some hundredths of
/// a second; whoever waits here has an upstream to ask.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one write may take, a part of a large blob or all of a small one: 8 MiB at 1 Mbit/s.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);

/// What is asked of the store; the metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Get,
    Head,
    Put,
    Delete,
}

impl Operation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}

/// An object store. Cheap to clone.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    /// Where ours begins.
    prefix: Path,
    breaker: Mutex<Breaker>,
    metrics: Metrics,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The store prints how it is configured.
        f.debug_tuple("Shared").field(&self.0.prefix).finish()
    }
}

impl Shared {
    /// The store that `config` means, asked by `client`. Asks nothing yet.
    ///
    /// # Errors
    /// When no store can be meant; never because it is not up.
    pub fn open(
        config: &Config,
        client: reqwest::Client,
        metrics: Metrics,
    ) -> Result<Self, SetUpError> {
        let store = config.build(client)?;
        metrics.shared_is_up(true);
        Ok(Self(Arc::new(Inner {
            store,
            prefix: config.prefix.clone(),
            breaker: Mutex::default(),
            metrics,
        })))
    }

    /// How long the store is left alone, where it is: it failed a moment ago.
    pub fn left_alone_for(&self) -> Option<Duration> {
        self.breaker().left_alone_for(Instant::now())
    }

    /// Where what lies at `path` of the directory lies in the store.
    fn place(&self, path: &str) -> Path {
        let parts = path.split('/');
        parts.fold(self.0.prefix.clone(), Path::join)
    }

    /// Asks the store, if it is asked at all, and learns from what it says. That something is not there is an answer.
    async fn ask<T>(
        &self,
        operation: Operation,
        patience: Duration,
        question: impl Future<Output = object_store::Result<T>>,
    ) -> Result<Option<T>, Error> {
        if !self.breaker().admits(Instant::now()) {
            return Err(Error::LeftAlone);
        }
        let answer = match timeout(patience, question).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(error @ object_store::Error::NotFound { .. }))
                if operation != Operation::Put && !error::is_without_bucket(&error) =>
            {
                Ok(None)
            }
            Ok(Err(error)) => Err(Error::from(error)),
            Err(_elapsed) => Err(Error::TimedOut),
        };
        let result = match &answer {
            Ok(Some(_)) => "ok",
            Ok(None) => "missing",
            Err(error) => error.as_str(),
        };
        self.0.metrics.shared_request(operation.as_str(), result);
        match &answer {
            Err(error) if !error.is_answer() => self.troubled(error),
            Ok(_) | Err(_) => self.answered(),
        }
        answer
    }

    /// The store answered.
    fn answered(&self) {
        if self.breaker().answered() {
            self.0.metrics.shared_is_up(true);
            tracing::info!("the shared tier is back");
        }
    }

    /// The store is in trouble.
    fn troubled(&self, error: &Error) {
        let is_silent = matches!(error, Error::TimedOut);
        let opened = self
            .breaker()
            .failed(Instant::now(), is_silent, fastrand::f64());
        if let Some(opened) = opened {
            self.0.metrics.shared_is_up(false);
            if opened.is_first {
                tracing::warn!(
                    %error, cause = error.cause(), pause = ?opened.pause,
                    "the shared tier is in trouble: the mirror goes on with upstream and its own disk"
                );
            }
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.0
            .breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
