//! How upstream says no, and how a caller could show a right of their own.

use std::fmt;
use std::sync::Arc;

use super::token::TokenKey;

/// Why upstream says no. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Denial {
    reason: Arc<str>,
    challenge: Option<Arc<TokenChallenge>>,
    may_be_missing: bool,
}

impl Denial {
    /// Why, for the log.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// How the caller could be let in with a token of their own: only where nothing but that is left to try, and
    /// relaying it is what the operator wants.
    pub fn challenge(&self) -> Option<&TokenChallenge> {
        self.challenge.as_deref()
    }

    /// Whether it says the same of what is not there, and nothing is left to try: the one who asked has shown a token
    /// that is good, and not for this.
    pub fn may_be_missing(&self) -> bool {
        self.may_be_missing
    }

    /// The same, of a registry that also says so of what is not there.
    #[must_use]
    pub(super) fn or_missing(self) -> Self {
        Self {
            may_be_missing: true,
            challenge: None,
            ..self
        }
    }

    /// The same, with the way in.
    #[must_use]
    pub fn with_challenge(self, challenge: Option<TokenChallenge>) -> Self {
        Self {
            challenge: challenge.map(Arc::new),
            ..self
        }
    }
}

impl From<String> for Denial {
    fn from(reason: String) -> Self {
        Self {
            reason: reason.into(),
            challenge: None,
            may_be_missing: false,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// A Bearer challenge that may be shown to callers: its realm passed the rules of realms, and its scope is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenChallenge {
    realm: String,
    service: Option<String>,
    scope: String,
}

impl TokenChallenge {
    /// The challenge that a token for `key` answers.
    pub(super) fn of(key: &TokenKey) -> Self {
        Self {
            realm: key.realm.url.to_string(),
            service: key.service.clone(),
            scope: key.scope.clone(),
        }
    }
}

/// The value of `WWW-Authenticate` (distribution, "Token Authentication Specification").
impl fmt::Display for TokenChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bearer realm={}", Quoted(&self.realm))?;
        if let Some(service) = &self.service {
            write!(f, ",service={}", Quoted(service))?;
        }
        write!(f, ",scope={}", Quoted(&self.scope))
    }
}

/// A quoted string (RFC 9110 section 5.6.4). Control characters, which it cannot hold, are left out.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars().filter(|c| !c.is_control()) {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_written_so_that_it_cannot_say_more_than_it_should() {
        let challenge = TokenChallenge {
            realm: "https://h/token".to_owned(),
            service: Some("a\",scope=\"registry:catalog:*\r\nX: y".to_owned()),
            scope: "repository:a/b:pull".to_owned(),
        };
        assert_eq!(
            challenge.to_string(),
            r#"Bearer realm="https://h/token",service="a\",scope=\"registry:catalog:*X: y",scope="repository:a/b:pull""#
        );
    }
}
