//! The error codes of the distribution specification and the JSON that carries them.

use serde::Serialize;

/// Error codes of distribution-spec "Error Codes", and the two that clients know for 5xx answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// code-1: the blob is not known to the registry.
    BlobUnknown,
    /// code-4: a digest does not parse or does not match.
    DigestInvalid,
    /// code-6: what was received as a manifest is none.
    ManifestInvalid,
    /// code-7: the manifest is not known to the registry.
    ManifestUnknown,
    /// code-8: the name does not fit the grammar.
    NameInvalid,
    /// code-9: the repository, or the registry, is not known here.
    NameUnknown,
    /// code-11: who are you?
    Unauthorized,
    /// code-12: you may not.
    Denied,
    /// code-13: this registry does not do that.
    Unsupported,
    /// code-14: later.
    TooManyRequests,
    /// The registry behind this one cannot be had. Not in the specification, which fixes codes for 4xx only;
    /// go-containerregistry and others retry it.
    Unavailable,
    /// Something went wrong here.
    Unknown,
}

impl ErrorCode {
    /// The code as it goes over the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// `{"errors":[{"code","message"}]}`, with one error.
#[derive(Debug, Serialize)]
pub struct ErrorBody<'a> {
    errors: [ErrorEntry<'a>; 1],
}

#[derive(Debug, Serialize)]
struct ErrorEntry<'a> {
    code: &'static str,
    message: &'a str,
}

impl<'a> ErrorBody<'a> {
    /// A body that carries `code` and a message for a person.
    pub const fn new(code: ErrorCode, message: &'a str) -> Self {
        Self {
            errors: [ErrorEntry {
                code: code.as_str(),
                message,
            }],
        }
    }

    /// The body as JSON text.
    pub fn to_json(&self) -> String {
        // Two strings cannot fail to serialise; an empty list is still a well-formed error body.
        serde_json::to_string(self).unwrap_or_else(|_| r#"{"errors":[]}"#.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_that_of_the_specification() {
        assert_eq!(
            ErrorBody::new(ErrorCode::NameUnknown, "say \"please\"").to_json(),
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"say \"please\""}]}"#
        );
    }
}
