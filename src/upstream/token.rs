//! Bearer tokens: fetched once per key however many ask, kept as long as they live.

use std::sync::Arc;

use moka::sync::Cache;
use reqwest::Url;
use reqwest::header::HeaderValue;
use tokio::time::Instant;

use super::issuer::Issuer;
use super::realm::Realm;
use super::transport::{Behalf, Transport};
use super::{Credential, Credentials, Error};
use crate::clock::Clock;
use crate::single_flight::{Role, SingleFlight};

/// Most bytes of tokens that are kept, with what they are for: some thousand tokens of the usual 1 to 3 KiB. Counted
/// in bytes, because anybody can run a registry that issues large ones.
const TOKENS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a key weighs beside its texts, in bytes, and what the cache needs for it.
const KEY_BYTES: usize = 512;

/// What a token is for. Everything that is sent to get it is in here, so two different requests never share one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    /// The endpoint it is shown to.
    pub(super) endpoint: Url,
    /// Who issues it.
    pub(super) realm: Realm,
    /// Who asks; only where the realm may see it.
    pub(super) credential: Option<Credential>,
    /// The service of the challenge, where it names one.
    pub(super) service: Option<String>,
    /// What may be done with it. Computed here, never copied from a challenge.
    pub(super) scope: String,
}

impl TokenKey {
    /// About the bytes it takes in memory.
    pub(super) fn weight(&self) -> usize {
        let texts = [
            self.endpoint.as_str(),
            self.realm.url.as_str(),
            self.service.as_deref().unwrap_or_default(),
            &self.scope,
        ];
        KEY_BYTES + texts.iter().map(|text| text.len()).sum::<usize>()
    }
}

/// A token, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Token {
    /// The value of the `Authorization` header.
    pub(super) authorization: HeaderValue,
    /// Whether the issuer refused the credential and gave an anonymous token after that.
    pub(super) is_credential_refused: bool,
    /// When it is to be renewed.
    pub(super) good_until: Instant,
}

/// Asks issuers for tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    kept: Cache<Arc<TokenKey>, Token>,
    flights: SingleFlight<Arc<TokenKey>, Result<Token, Error>>,
    transport: Arc<Transport>,
    clock: Clock,
}

/// Where a token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was kept: it may have been revoked since.
    Kept,
    /// It was issued right now.
    Issued,
}

impl Tokens {
    /// No tokens yet.
    pub(super) fn new(transport: Arc<Transport>, clock: Clock) -> Self {
        Self {
            kept: Cache::builder()
                .max_capacity(TOKENS_BYTES_MAX)
                .weigher(|key: &Arc<TokenKey>, token: &Token| {
                    let bytes = key.weight() + token.authorization.len();
                    u32::try_from(bytes).unwrap_or(u32::MAX)
                })
                .build(),
            flights: SingleFlight::default(),
            transport,
            clock,
        }
    }

    /// Forgets tokens that were issued for credentials other than these.
    pub(super) fn keep_only(&self, credentials: &Credentials) {
        let is_gone = |credential: &Credential| !credentials.hold(credential);
        for (key, _) in &self.kept {
            if key.credential.as_ref().is_some_and(is_gone) {
                self.kept.invalidate(&*key);
            }
        }
    }

    /// The token of `key`, kept or new. One request per key is under way, however many ask.
    ///
    /// Cancel-safe: the request goes on for whoever asks next.
    ///
    /// # Errors
    /// `Denied` when the issuer refuses, `Refused` when it redirects, and whatever keeps an answer from coming.
    pub(super) async fn get(
        &self,
        key: &Arc<TokenKey>,
        behalf: Behalf<'_>,
    ) -> Result<(Token, Origin), Error> {
        if let Some(token) = self.kept.get(key)
            && Instant::now() < token.good_until
        {
            return Ok((token, Origin::Kept));
        }
        let make = || {
            let (transport, clock, kept) = (
                Arc::clone(&self.transport),
                self.clock.clone(),
                self.kept.clone(),
            );
            let (key, reach) = (key.clone(), behalf.reach.clone());
            let label = behalf.label.to_owned();
            async move {
                let issuer = Issuer {
                    transport: &transport,
                    clock: &clock,
                    behalf: Behalf {
                        reach: &reach,
                        label: &label,
                    },
                };
                let token = issuer.issue(&key).await?;
                kept.insert(key, token.clone());
                Ok(token)
            }
        };
        let (_, outcome): (Role, _) = self.flights.run(key.clone(), make).await;
        let token = outcome.map_err(|panicked| Error::Unavailable(Arc::new(panicked)))??;
        Ok((token, Origin::Issued))
    }

    /// A token for this request alone, anonymous whatever `key` says: for a host that a registry redirected to.
    ///
    /// # Errors
    /// As [`Tokens::get`].
    pub(super) async fn issue_once(
        &self,
        key: &TokenKey,
        behalf: Behalf<'_>,
    ) -> Result<Token, Error> {
        let issuer = Issuer {
            transport: &self.transport,
            clock: &self.clock,
            behalf,
        };
        // Boxed, because hardly a redirect leads to a host that wants a token.
        Box::pin(issuer.ask(key, None)).await
    }

    /// Drops `token`, which the registry no longer takes. One that has come since stays.
    pub(super) fn forget(&self, key: &TokenKey, token: &HeaderValue) {
        if self
            .kept
            .get(key)
            .is_some_and(|kept| kept.authorization == *token)
        {
            self.kept.invalidate(key);
        }
    }
}
