//! What all requests share: connections, tokens, and what was learned of registries on the way. In memory only, and
//! bounded.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use reqwest::Url;

use super::connections::PublicConnections;
use super::health::PublicHealth;
use super::scheme::Scheme;
use super::token::Tokens;
use super::transport::Transport;
use super::{Credential, Credentials};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// Most bytes that are spent on remembering how repositories wanted to be shown who asks: some ten thousand of them.
/// Counted in bytes, because realms are as long as whoever wrote them liked.
const SCHEMES_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Most endpoints that are remembered not to answer HEAD on blobs.
const HEADLESS_MAX: u64 = 1_000;

/// How long that is remembered. Registries get mended.
const HEADLESS_REMEMBERED: Duration = Duration::from_hours(24);

/// For whom a scheme is remembered: endpoint, repository, credential.
pub(super) type SchemeKey = (Url, String, Option<Credential>);

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) transport: Arc<Transport>,
    pub(super) tokens: Tokens,
    pub(super) clock: Clock,
    /// The connections for blobs of the upstreams that nobody configured.
    pub(super) public_connections: PublicConnections,
    /// How the endpoints are doing that nobody configured.
    pub(super) public_health: PublicHealth,
    /// How each repository wanted to be shown who asks.
    pub(super) schemes: Cache<SchemeKey, Scheme>,
    /// Endpoints where HEAD on blobs fails although GET works.
    pub(super) headless: Cache<Url, ()>,
}

impl Shared {
    /// Nothing learned yet.
    pub(super) fn new(transport: Transport, clock: Clock, metrics: Metrics) -> Self {
        let transport = Arc::new(transport);
        Self {
            tokens: Tokens::new(Arc::clone(&transport), clock.clone()),
            transport,
            clock,
            public_connections: PublicConnections::new(),
            public_health: PublicHealth::new(metrics),
            schemes: Cache::builder()
                .max_capacity(SCHEMES_BYTES_MAX)
                .weigher(|key: &SchemeKey, scheme: &Scheme| {
                    u32::try_from(key.0.as_str().len() + key.1.len() + scheme.weight())
                        .unwrap_or(u32::MAX)
                })
                .build(),
            headless: Cache::builder()
                .max_capacity(HEADLESS_MAX)
                .time_to_live(HEADLESS_REMEMBERED)
                .build(),
        }
    }

    /// Forgets what was learned or got with credentials other than these.
    pub(super) fn keep_only(&self, credentials: &Credentials) {
        self.tokens.keep_only(credentials);
        let is_gone = |credential: &Credential| !credentials.hold(credential);
        for (key, _) in &self.schemes {
            if key.2.as_ref().is_some_and(is_gone) {
                self.schemes.invalidate(&*key);
            }
        }
    }
}
