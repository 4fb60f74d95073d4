//! What every answer of the mirror must have, and short ways to expect one.

use serde_json::Value;

use super::client::{Answer, Ending};

/// The codes of distribution-spec "Error Codes", and the two that clients know for 5xx.
const CODES: [&str; 16] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
    "UNAVAILABLE",
    "UNKNOWN",
];

/// Headers that must never come through, or never at all.
const NEVER: [&str; 5] = [
    "Set-Cookie",
    "Location",
    "Transfer-Encoding",
    "Content-Encoding",
    "X-Of-Upstream",
];

/// Checks what conformance.md A10 says of every answer below `/v2/`.
pub fn check_common(method: &str, target: &str, answer: &Answer) {
    if !target.starts_with("/v2") {
        return;
    }
    let said = |header| answer.header(header);
    let what = format!("{method} {target}: {answer:?}");
    assert_eq!(
        said("Docker-Distribution-Api-Version"),
        Some("registry/2.0"),
        "{what}"
    );
    assert_eq!(said("X-Content-Type-Options"), Some("nosniff"), "{what}");
    for header in NEVER {
        assert_eq!(said(header), None, "{what}");
    }
    // RFC 9110 section 15.5.2; with any other status it would make containerd log in.
    assert_eq!(
        said("WWW-Authenticate").is_some(),
        answer.status == 401,
        "{what}"
    );
    if matches!(answer.status, 429 | 503) {
        assert!(said("Retry-After").is_some(), "{what}");
    }
    if answer.status != 304 {
        assert!(said("Content-Length").is_some(), "{what}");
    }
    if method == "HEAD" {
        assert!(answer.body.is_empty(), "{what}");
    } else if answer.status >= 400 && !answer.body.is_empty() && answer.ending == Ending::Complete {
        let code = error_code(answer);
        assert!(CODES.contains(&&*code), "{what}");
    }
}

/// The code of an error body of the specification.
pub fn error_code(answer: &Answer) -> String {
    let media_type = answer.header("Content-Type");
    assert_eq!(media_type, Some("application/json"), "{answer:?}");
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let errors = body["errors"].as_array().expect("a list of errors");
    assert_eq!(errors.len(), 1, "{body}");
    let message = errors[0]["message"].as_str().expect("a message");
    assert!(!message.is_empty(), "{body}");
    errors[0]["code"].as_str().expect("a code").to_owned()
}

impl Answer {
    /// An error of this status and code; gives its message.
    pub fn expect_error(self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(error_code(&self), code, "{self:?}");
        let body: Value = serde_json::from_slice(&self.body).expect("JSON");
        let message = body["errors"][0]["message"].as_str();
        message.unwrap_or_default().to_owned()
    }

    /// The status and, where it is an error with a body, its code.
    pub fn outcome(&self) -> (u16, String) {
        let is_error = self.status >= 400 && !self.body.is_empty();
        let code = if is_error {
            error_code(self)
        } else {
            String::new()
        };
        (self.status, code)
    }
}
