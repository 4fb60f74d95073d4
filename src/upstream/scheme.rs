//! What a registry wants to be shown, and what of that is at hand.

use std::sync::Arc;

use reqwest::Url;
use reqwest::header::HeaderValue;

use super::challenge::Challenge;
use super::session::Session;
use super::shared::SchemeKey;
use super::token::{Origin, TokenKey};
use super::{Credential, CredentialKind, Error, issuer, realm};

/// How a registry wants to be shown who asks.
#[derive(Debug, Clone)]
pub(super) enum Scheme {
    /// By this token.
    Bearer(Arc<TokenKey>),
    /// By the credential itself: name and password, or a token that the registry takes as it is.
    Basic(Credential),
}

impl Scheme {
    /// About the bytes it takes in memory.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Bearer(key) => key.weight(),
            Self::Basic(credential) => {
                credential.username.len() + credential.password.expose().len()
            }
        }
    }
}

/// What a request brings along to show who asks.
#[derive(Debug)]
pub(super) struct Attached {
    /// The `Authorization` header.
    pub(super) authorization: HeaderValue,
    /// What it was made for.
    pub(super) scheme: Scheme,
    /// Whether the issuer of the token refused the credential, so that the token is an anonymous one.
    pub(super) is_credential_refused: bool,
    /// Whether a refusal of it is the registry's last word: it was made for this very challenge a moment ago.
    pub(super) is_last_word: bool,
}

impl Session<'_> {
    fn scheme_key(&self) -> SchemeKey {
        (
            self.endpoint.root.clone(),
            self.repository.clone(),
            self.credential.cloned(),
        )
    }

    /// What the last request to this repository had to bring along.
    pub(super) async fn remembered(&self) -> Result<Option<Attached>, Error> {
        let Some(scheme) = self.shared.schemes.get(&self.scheme_key()) else {
            return Ok(None);
        };
        match self.attach(scheme).await {
            Ok(attached) => Ok(Some(Attached {
                // The registry may want something else by now.
                is_last_word: false,
                ..attached
            })),
            // Asking again would not help, or take as long again.
            Err(error @ (Error::RateLimited { .. } | Error::Busy { .. } | Error::TimedOut(_))) => {
                Err(error)
            }
            // The issuer may have moved: the registry knows.
            Err(
                Error::NotFound
                | Error::Denied(_)
                | Error::Unavailable(_)
                | Error::TooLarge { .. }
                | Error::Protocol(_)
                | Error::Refused(_)
                | Error::Loop,
            ) => {
                self.shared.schemes.invalidate(&self.scheme_key());
                Ok(None)
            }
        }
    }

    /// Remembers what a request brought along that was not refused.
    pub(super) fn remember(&self, attached: Option<&Attached>) {
        if let Some(attached) = attached {
            let scheme = attached.scheme.clone();
            self.shared.schemes.insert(self.scheme_key(), scheme);
        }
    }

    /// Forgets what was refused.
    pub(super) fn forget(&self, refused: &Attached) {
        self.shared.schemes.invalidate(&self.scheme_key());
        match &refused.scheme {
            Scheme::Bearer(key) => self.shared.tokens.forget(key, &refused.authorization),
            Scheme::Basic(_) => {}
        }
    }

    /// The first challenge that can be met: a token if possible, because it is worth less to a thief. A realm that
    /// may not be asked is an error only where nothing else is offered.
    ///
    /// # Errors
    /// `Refused`, in that case.
    pub(super) fn choose(&self, offered: &[Challenge], url: &Url) -> Result<Option<Scheme>, Error> {
        let is_met = |challenge: &Challenge| challenge.is("bearer") || challenge.is("basic");
        if let Some(credential) = self.credential
            && credential.kind == CredentialKind::Token
            && offered.iter().any(is_met)
        {
            // Nobody issues a better one for it.
            return Ok(Some(Scheme::Basic(credential.clone())));
        }
        let mut refusal = None;
        for challenge in offered.iter().filter(|challenge| challenge.is("bearer")) {
            let realm = challenge.parameter("realm").unwrap_or_default();
            match realm::decide(realm, url, self.upstream.issuers(self.endpoint)) {
                Ok(realm) => {
                    let credential = self.credential.filter(|_| realm.sees_credentials);
                    let key = TokenKey {
                        endpoint: self.endpoint.root.clone(),
                        credential: credential.cloned(),
                        service: realm::service(challenge),
                        scope: self.endpoint.scope(&self.repository, challenge),
                        realm,
                    };
                    return Ok(Some(Scheme::Bearer(Arc::new(key))));
                }
                Err(reason) => refusal = refusal.or(Some(reason)),
            }
        }
        let credential = self
            .credential
            .filter(|_| offered.iter().any(|c| c.is("basic")));
        match (credential, refusal) {
            (Some(credential), _) => Ok(Some(Scheme::Basic(credential.clone()))),
            (None, Some(reason)) => Err(Error::Refused(reason)),
            (None, None) => Ok(None),
        }
    }

    /// What to send, a token fetched for it if need be.
    ///
    /// # Errors
    /// As [`Tokens::get`](super::token::Tokens::get).
    pub(super) async fn attach(&self, scheme: Scheme) -> Result<Attached, Error> {
        let key = match &scheme {
            Scheme::Bearer(key) => key,
            Scheme::Basic(credential) => {
                return Ok(Attached {
                    authorization: issuer::authorization(credential)?,
                    scheme,
                    is_credential_refused: false,
                    is_last_word: true,
                });
            }
        };
        let got = self.shared.tokens.get(key, self.behalf());
        let (token, origin) = got.await?;
        Ok(Attached {
            authorization: token.authorization,
            scheme,
            is_credential_refused: token.is_credential_refused,
            is_last_word: origin == Origin::Issued,
        })
    }
}
