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
    /// It has no such bucket, or no such upload any more: another replica may have completed its own of the same blob.
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
            | Self::Missing(_) => true,
            Self::Refused(_) | Self::Damaged => false,
        }
    }

    /// Whether it was an answer all the same, and no sign that the next question gets none.
    pub(super) const fn is_answer(&self) -> bool {
        match self {
            Self::Missing(_) | Self::Refused(_) | Self::Damaged => true,
            Self::LeftAlone | Self::TimedOut | Self::Denied(_) | Self::Unavailable(_) => false,
        }
    }

    /// What the store said, for the log; the client has left out what is secret.
    pub fn cause(&self) -> Option<String> {
        match self {
            Self::Denied(cause)
            | Self::Unavailable(cause)
            | Self::Missing(cause)
            | Self::Refused(cause) => Some(cause.to_string()),
            Self::LeftAlone | Self::TimedOut | Self::Damaged => None,
        }
    }
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
            Cause::NotFound { .. } => Self::Missing(cause),
            // The enumeration is open.
            Cause::Generic { .. }
            | Cause::JoinError { .. }
            | Cause::UnknownConfigurationKey { .. }
            | _ => Self::Unavailable(cause),
        }
    }
}
