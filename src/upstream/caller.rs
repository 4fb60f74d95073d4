//! Callers who show a right of their own: their token, and what may be remembered of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::HeaderValue;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::issuer;

/// Longest token that is passed on, in bytes. Real ones stay below 4 KiB; the server bounds the head anyway.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Who a right belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Anybody: nothing is shown to upstream but an anonymous token.
    Anybody,
    /// The mirror, by the credential of this user name.
    Mirror(Arc<str>),
    /// One caller, by their own token.
    Caller(TokenHash),
}

/// What is remembered of a caller's token: its keyed hash, worth nothing to anybody else and to no other process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A caller's `Authorization: Bearer`, for the caller's own upstream and nobody else. Cheap to clone.
#[derive(Clone)]
pub struct CallerToken {
    authorization: HeaderValue,
    hash: TokenHash,
    expires: Option<SystemTime>,
}

impl CallerToken {
    /// What stands in for the token where it is remembered.
    pub fn hash(&self) -> TokenHash {
        self.hash
    }

    /// When it ends, where it says so itself. Nothing of that is verified: it can only shorten what is remembered.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// The header, for the one place that sends it.
    pub(super) fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }
}

impl fmt::Debug for CallerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for CallerToken {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for CallerToken {}

/// Hashes tokens, with a key that this process made up and never shows.
#[derive(Clone)]
pub(super) struct TokenHasher(hmac::Key);

impl TokenHasher {
    /// A hasher with a new key; `None` where the system gives no randomness, and then no token is taken.
    pub(super) fn new() -> Option<Self> {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).ok()?;
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// The token in an `Authorization` header, where it holds one. The scheme is written in any case (RFC 9110
    /// section 11.1).
    pub(super) fn read(&self, header: &HeaderValue) -> Option<CallerToken> {
        let text = header.to_str().ok()?;
        let (scheme, token) = text.split_once(' ')?;
        let token = token.trim_matches(' ');
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !scheme.eq_ignore_ascii_case("bearer") || !is_token || token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        authorization.set_sensitive(true);
        let tag = hmac::sign(&self.0, token.as_bytes());
        Some(CallerToken {
            authorization,
            hash: TokenHash(tag.as_ref().try_into().ok()?),
            expires: issuer::expiry(token).and_then(|seconds| {
                SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
            }),
        })
    }
}

impl fmt::Debug for TokenHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hasher: &TokenHasher, text: &'static str) -> Option<CallerToken> {
        hasher.read(&HeaderValue::from_static(text))
    }

    #[test]
    fn only_bearer_tokens_are_taken() {
        let hasher = TokenHasher::new().expect("randomness");
        let token = read(&hasher, "bearer  abc").expect("a token");
        assert_eq!(token.authorization().as_bytes(), b"Bearer abc");
        for text in [
            "",
            "Bearer",
            "Bearer ",
            "Basic dTpw",
            "Bearer a b",
            "Negotiate x",
        ] {
            assert!(read(&hasher, text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_token_is_known_again_by_its_hash_and_in_this_process_alone() {
        let (here, there) = (TokenHasher::new(), TokenHasher::new());
        let hash = |hasher: &Option<TokenHasher>, text| {
            let hasher = hasher.as_ref().expect("randomness");
            read(hasher, text).expect("a token").hash()
        };
        assert_eq!(hash(&here, "Bearer abc"), hash(&here, "BEARER abc"));
        assert_ne!(hash(&here, "Bearer abc"), hash(&here, "Bearer abd"));
        assert_ne!(hash(&here, "Bearer abc"), hash(&there, "Bearer abc"));
    }

    #[test]
    fn neither_token_nor_hash_is_printed() {
        let hasher = TokenHasher::new().expect("randomness");
        let token = read(&hasher, "Bearer hunter2").expect("a token");
        assert_eq!(
            format!("{token:?} {:?}", token.hash()),
            "[redacted] [redacted]"
        );
        assert_eq!(format!("{:?}", token.authorization()), "Sensitive");
    }
}
