//! Who a client says it is, and whether that is so.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use moka::sync::Cache;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::access::{Identity, PasswordFile};
use crate::http::Caller;

/// How long a password that was right need not be hashed again. A pull is dozens of requests.
const REMEMBERED: Duration = Duration::from_mins(5);

/// Most passwords that are remembered so, at some hundred bytes each.
const REMEMBERED_MAX: u64 = 10_000;

/// How many passwords are hashed at once. Anybody can ask for that, and each takes a processor for a while.
const AT_ONCE: usize = 2;

/// The clients that the mirror knows. Cheap to clone.
#[derive(Clone)]
pub(super) struct Clients(Arc<Inner>);

struct Inner {
    passwords: Option<Arc<PasswordFile>>,
    /// Those that were right, by a hash with a key that this process made up.
    right: Cache<[u8; 32], Identity>,
    key: Option<hmac::Key>,
    permits: Semaphore,
}

impl Clients {
    /// Those of `passwords`, or none.
    pub(super) fn new(passwords: Option<PasswordFile>) -> Self {
        let mut key = [0; 32];
        let has_key = SystemRandom::new().fill(&mut key).is_ok();
        Self(Arc::new(Inner {
            passwords: passwords.map(Arc::new),
            right: Cache::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_live(REMEMBERED)
                .build(),
            key: has_key.then(|| hmac::Key::new(hmac::HMAC_SHA256, &key)),
            permits: Semaphore::new(AT_ONCE),
        }))
    }

    /// Who asks; `None` where they do not say, say it wrong, or say it where others may be listening.
    ///
    /// Cancel-safe.
    pub(super) async fn identify(&self, caller: &Caller, headers: &HeaderMap) -> Option<Identity> {
        // The listener has verified it.
        if let Some(name) = &caller.client {
            return Some(Identity::proven(name));
        }
        let inner = &self.0;
        let passwords = inner.passwords.as_ref()?;
        if !is_private(caller) {
            return None;
        }
        let (name, password) = basic(headers)?;
        let hashed = inner.key.as_ref().and_then(|key| {
            let tag = hmac::sign(key, format!("{name}\0{password}").as_bytes());
            <[u8; 32]>::try_from(tag.as_ref()).ok()
        });
        if let Some(identity) = hashed.and_then(|hashed| inner.right.get(&hashed)) {
            return Some(identity);
        }
        // The semaphore is never closed.
        let _permit = inner.permits.acquire().await.ok()?;
        let passwords = Arc::clone(passwords);
        let identified = spawn_blocking(move || passwords.identify(&name, &password)).await;
        let identity = identified.ok()??;
        if let Some(hashed) = hashed {
            inner.right.insert(hashed, identity.clone());
        }
        Some(identity)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

/// Whether nobody else hears what `caller` says, so that a password may be asked for.
pub(super) fn is_private(caller: &Caller) -> bool {
    caller.is_encrypted || caller.peer.ip().is_loopback()
}

/// Name and password of `Authorization: Basic` (RFC 7617).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}
