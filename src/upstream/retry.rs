//! Why a request is sent again. Each is sent once more at most.

/// Why a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// The connection was closed before an answer came: most likely it had been kept, and was closed in the moment it
    /// was used (RFC 9110, section 9.2.2).
    Dropped,
    /// The registry no longer takes the token or the password it took before.
    TokenRefused,
    /// The host that the registry redirects to refuses: signed URLs are short-lived.
    RedirectRefused,
    /// The host that the registry redirected to before does not answer any more, or only that it cannot.
    RedirectFailed,
    /// The server knows closed ranges only.
    OpenRange,
    /// The server does not answer HEAD.
    HeadFailed,
    /// The next endpoint is asked.
    NextEndpoint,
}

impl Retry {
    /// The metric label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::TokenRefused => "token_refused",
            Self::RedirectRefused => "redirect_refused",
            Self::RedirectFailed => "redirect_failed",
            Self::OpenRange => "open_range",
            Self::HeadFailed => "head_failed",
            Self::NextEndpoint => "next_endpoint",
        }
    }
}
