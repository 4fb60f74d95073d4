//! Why the shared tier did not do what was asked.

use std::sync::Arc;

/// Why the shared tier did not do what was asked. The answer is always the same: do without.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It failed a moment ago, and is not asked now.
    #[error("the shared tier failed a moment ago and is left alone")]
    LeftAlone,
    /// It does not answer in time.
    #[error("the shared tier does not answer")]
    TimedOut,
    /// It does not let us in.
    #[error("the shared tier refuses access")]
    Denied(#[source] Arc<object_store::Error>),
    /// It cannot be reached, or fails.
    #[error("the shared tier fails")]
    Unavailable(#[source] Arc<object_store::Error>),
    /// It has no such bucket.
    #[error("the shared tier has no such bucket")]
    NoBucket(#[source] Arc<object_store::Error>),
    /// It has no such upload any more: another replica may have completed its own of the same blob.
    #[error("the shared tier does not have what this is to be a part of")]
    Missing(#[source] Arc<object_store::Error>),
    /// It will not take this, whoever asks.
    #[error("the shared tier does not take this")]
    Refused(#[source] Arc<object_store::Error>),
    /// What was to be uploaded is not what it is called, or cannot be read.
    #[error("what was to be uploaded is damaged")]
    Damaged,
}

impl Error {
    /// The metric label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::LeftAlone => "left_alone",
            Self::TimedOut => "timed_out",
            Self::Denied(_) => "denied",
            Self::Unavailable(_) => "unavailable",
            Self::NoBucket(_) => "no_bucket",
            Self::Missing(_) => "gone",
            Self::Refused(_) => "refused",
            Self::Damaged => "damaged",
        }
    }

    /// Whether the store is what is wrong, so that later may be better.
    pub const fn is_trouble(&self) -> bool {
        match self {
            Self::LeftAlone
            | Self::TimedOut
            | Self::Denied(_)
            | Self::Unavailable(_)
            | Self::NoBucket(_)
            | Self::Missing(_) => true,
            Self::Refused(_) | Self::Damaged => false,
        }
    }

    /// Whether it was an answer all the same, and no sign that the next question gets none.
    pub(super) const fn is_answer(&self) -> bool {
        match self {
            Self::Missing(_) | Self::Refused(_) | Self::Damaged => true,
            Self::LeftAlone
            | Self::TimedOut
            | Self::Denied(_)
            | Self::Unavailable(_)
            | Self::NoBucket(_) => false,
        }
    }

    /// What the store said, for the log; the client has left out what is secret.
    pub fn cause(&self) -> Option<String> {
        match self {
            Self::Denied(cause)
            | Self::Unavailable(cause)
            | Self::NoBucket(cause)
            | Self::Missing(cause)
            | Self::Refused(cause) => Some(cause.to_string()),
            Self::LeftAlone | Self::TimedOut | Self::Damaged => None,
        }
    }
}

/// What stores write in a 404 that means the bucket and not the object: S3 and what speaks like it, Google, Azure. There
/// is no body where the question was a HEAD, and then it cannot be told.
const NO_BUCKET: [&str; 3] = ["NoSuchBucket", "bucket does not exist", "ContainerNotFound"];

/// Whether what is not there is the bucket.
pub(super) fn is_without_bucket(error: &object_store::Error) -> bool {
    let object_store::Error::NotFound { source, .. } = error else {
        return false;
    };
    let said = source.to_string();
    NO_BUCKET.iter().any(|code| said.contains(code))
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as Cause;
        let cause = Arc::new(error);
        match &*cause {
            Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. } => Self::Denied(cause),
            Cause::AlreadyExists { .. }
            | Cause::Precondition { .. }
            | Cause::NotModified { .. }
            | Cause::InvalidPath { .. }
            | Cause::NotSupported { .. }
            | Cause::NotImplemented { .. } => Self::Refused(cause),
            Cause::NotFound { .. } if is_without_bucket(&cause) => Self::NoBucket(cause),
            Cause::NotFound { .. } => Self::Missing(cause),
            // The enumeration is open.
            Cause::Generic { .. }
            | Cause::JoinError { .. }
            | Cause::UnknownConfigurationKey { .. }
            | _ => Self::Unavailable(cause),
        }
    }
}
