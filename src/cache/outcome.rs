//! How an answer came about: one word for the log, the metric and the `Cache-Status` header.

use std::fmt;
use std::time::Duration;

use crate::single_flight::Role;

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// From the cache, with no upstream request.
    Hit,
    /// From upstream.
    Miss {
        /// Whether somebody else's request for the same content was joined.
        collapsed: bool,
        /// Whether the content was, or is being, stored.
        stored: bool,
    },
    /// From the shared tier, into the cache.
    Shared {
        /// Whether somebody else's request for the same content was joined.
        collapsed: bool,
    },
    /// From upstream, because the shared tier is in trouble.
    Unshared {
        /// Whether somebody else's request for the same content was joined.
        collapsed: bool,
    },
    /// From the cache, after upstream said that it still holds.
    Revalidated,
    /// From the cache, without upstream having said that it still holds.
    Stale {
        /// For how long it has not been fresh any more.
        by: Duration,
        /// Why that will do.
        why: WhyStale,
    },
    /// From upstream, past the cache.
    Bypass(BypassReason),
}

/// Why something was served that was not fresh, in the words of RFC 5861.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyStale {
    /// Upstream is being asked, and whoever asked does not wait for it.
    WhileRevalidating,
    /// Upstream gave no answer that counts.
    OnError,
    /// Upstream is about to give no more, and what is left is kept for what is not here at all.
    SparingQuota,
}

/// Why the cache was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BypassReason {
    /// Storage is failing, and upstream answers.
    StorageFailed,
    /// A registry that anybody could have set up says that it has what only others are known to have: it has to send it.
    NotBelieved,
    /// It does not fit into what the cache may take.
    NoRoom,
}

impl Outcome {
    /// From upstream, into the cache, by a task that one caller started and others joined.
    pub(super) fn fetched(role: Role) -> Self {
        Self::Miss {
            collapsed: role == Role::Follower,
            stored: true,
        }
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss {
                collapsed: false, ..
            }
            | Self::Unshared { collapsed: false } => "miss",
            Self::Miss {
                collapsed: true, ..
            }
            | Self::Unshared { collapsed: true } => "coalesced",
            Self::Shared { .. } => "shared",
            Self::Revalidated => "revalidated",
            Self::Stale { .. } => "stale",
            Self::Bypass(
                BypassReason::StorageFailed | BypassReason::NotBelieved | BypassReason::NoRoom,
            ) => "bypass",
        }
    }

    /// Where the bytes that were sent came from: the metric label.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Hit | Self::Revalidated | Self::Stale { .. } => "cache",
            Self::Shared { .. } => "shared",
            Self::Miss { .. } | Self::Unshared { .. } | Self::Bypass(_) => "upstream",
        }
    }
}

/// The value of the `Cache-Status` header (RFC 9211).
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entrepot; ")?;
        match self {
            Self::Hit => f.write_str("hit"),
            Self::Miss { collapsed, stored } => {
                f.write_str("fwd=miss")?;
                f.write_str(if *collapsed { "; collapsed" } else { "" })?;
                f.write_str(if *stored { "; stored" } else { "" })
            }
            Self::Shared { collapsed } => {
                f.write_str("hit")?;
                f.write_str(if *collapsed { "; collapsed" } else { "" })?;
                f.write_str("; detail=shared")
            }
            Self::Unshared { collapsed } => {
                f.write_str("fwd=miss")?;
                f.write_str(if *collapsed { "; collapsed" } else { "" })?;
                f.write_str("; stored; detail=shared-failed")
            }
            Self::Revalidated => f.write_str("fwd=stale; fwd-status=200; detail=revalidated"),
            // Section 2.5: a negative ttl says that the response is stale, and by how much.
            Self::Stale { by, why } => {
                let why = match why {
                    WhyStale::WhileRevalidating => "stale-while-revalidate",
                    WhyStale::OnError => "stale-if-error",
                    WhyStale::SparingQuota => "sparing-quota",
                };
                write!(f, "hit; ttl=-{}; detail={why}", by.as_secs())
            }
            Self::Bypass(BypassReason::StorageFailed) => {
                f.write_str("fwd=bypass; detail=storage-failed")
            }
            Self::Bypass(BypassReason::NotBelieved) => {
                f.write_str("fwd=bypass; detail=not-believed")
            }
            Self::Bypass(BypassReason::NoRoom) => f.write_str("fwd=bypass; detail=no-room"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_that_of_rfc_9211() {
        let check = |outcome: Outcome, expected: &str| assert_eq!(outcome.to_string(), expected);
        check(Outcome::Hit, "entrepot; hit");
        check(
            Outcome::Miss {
                collapsed: false,
                stored: true,
            },
            "entrepot; fwd=miss; stored",
        );
        check(
            Outcome::Miss {
                collapsed: true,
                stored: true,
            },
            "entrepot; fwd=miss; collapsed; stored",
        );
        check(
            Outcome::Stale {
                by: Duration::from_secs(90),
                why: WhyStale::OnError,
            },
            "entrepot; hit; ttl=-90; detail=stale-if-error",
        );
    }
}
