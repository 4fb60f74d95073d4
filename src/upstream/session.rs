//! One request to one endpoint: authenticated as the registry asks, with redirects followed, and never more often
//! than it takes.
//!
//! What a registry asks for is learned from the answer to the request itself, not from a request to `/v2/`, whose
//! challenge often differs. Which answer it wanted is remembered per repository, so that later requests bring it along.

use std::time::Duration;

use moka::sync::Cache;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, RANGE, VIA};
use reqwest::{Method, Response, StatusCode, Url};

use super::challenge::{Challenge, challenges};
use super::endpoint::{Endpoint, Upstream, scope_of};
use super::realm::{self, Issuers};
use super::redirect::{self, REDIRECTS_MAX, is_redirect, is_same_origin};
use super::table::{Row, UNKNOWN};
use super::token::{self, Origin, Token, TokenKey, Tokens};
use super::{Credential, Error, answer, body};
use crate::clock::Clock;

/// Most repositories of which the way to authenticate is remembered. Some hundred bytes each.
const SCHEMES_MAX: u64 = 10_000;

/// Most endpoints that are remembered not to answer HEAD on blobs.
const HEADLESS_MAX: u64 = 1_000;

/// How long that is remembered. Registries get mended.
const HEADLESS_REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) transport: std::sync::Arc<super::transport::Transport>,
    pub(super) tokens: Tokens,
    pub(super) clock: Clock,
    schemes: Cache<SchemeKey, Scheme>,
    headless: Cache<Url, ()>,
}

impl Shared {
    /// Nothing learned yet.
    pub(super) fn new(transport: super::transport::Transport, clock: Clock) -> Self {
        let transport = std::sync::Arc::new(transport);
        Self {
            tokens: Tokens::new(std::sync::Arc::clone(&transport), clock.clone()),
            transport,
            clock,
            schemes: Cache::new(SCHEMES_MAX),
            headless: Cache::builder()
                .max_capacity(HEADLESS_MAX)
                .time_to_live(HEADLESS_REMEMBERED)
                .build(),
        }
    }
}

/// For whom a scheme is remembered: endpoint, repository, credential.
type SchemeKey = (Url, String, Option<Credential>);

/// How a registry wants to be shown who asks.
#[derive(Debug, Clone)]
enum Scheme {
    /// By a token.
    Bearer(TokenKey),
    /// By name and password.
    Basic,
}

/// What a request brings along to show who asks.
#[derive(Debug)]
struct Attached {
    authorization: HeaderValue,
    scheme: Scheme,
    is_credential_refused: bool,
    /// Whether a refusal of it is the registry's last word: it was made for this very challenge a moment ago.
    is_last_word: bool,
}

/// One request.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    /// GET or HEAD.
    pub(super) method: Method,
    /// What is asked for, below the repository.
    pub(super) below: &'a str,
    /// `Accept`, where it matters.
    pub(super) accept: Option<&'static str>,
    /// `Range`, where a part is enough.
    pub(super) range: Option<String>,
}

/// The final answer to an [`Ask`], whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    /// The answer; no redirect that could have been followed.
    pub(super) response: Response,
    /// Whether it comes from where a redirect led, not from the registry.
    pub(super) is_away: bool,
    is_authenticated: bool,
    is_credential_refused: bool,
}

impl Answer {
    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }
}

/// One repository at one endpoint, on behalf of one caller.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) shared: &'a Shared,
    pub(super) upstream: &'a Upstream,
    pub(super) endpoint: &'a Endpoint,
    /// What the repository is called at this endpoint.
    pub(super) repository: String,
    /// The credential, where this endpoint may see it.
    pub(super) credential: Option<&'a Credential>,
    /// The `Via` header.
    pub(super) via: &'a HeaderValue,
}

impl Session<'_> {
    /// Asks, and authenticates if need be. At most four requests reach the registry: with what is remembered, without
    /// anything, with a kept token, and with a new one.
    ///
    /// # Errors
    /// What kept an answer from coming, and what kept a token from coming. No status of the registry is an error here.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Error> {
        let url = self.endpoint.url(&self.repository, ask.below);
        let mut attached = self.remembered().await?;
        let mut may_restart = true;
        loop {
            let (response, is_away) = self.travel(ask, &url, attached.as_ref()).await?;
            if response.status() != StatusCode::UNAUTHORIZED || is_away {
                self.remember(attached.as_ref());
                return Ok(answered(response, is_away, attached.as_ref()));
            }
            let offered = challenges(response.headers());
            let next = match &attached {
                None => self.answer_to(&offered, &url).await?,
                Some(refused) => {
                    self.forget(refused);
                    if refused.is_last_word || !may_restart {
                        return Ok(answered(response, is_away, attached.as_ref()));
                    }
                    may_restart = false;
                    self.restart(refused, &offered, &url).await?
                }
            };
            match next {
                Next::Ask(attach) => {
                    body::discard(response).await;
                    attached = attach;
                }
                Next::GiveUp => return Ok(answered(response, is_away, attached.as_ref())),
            }
        }
    }

    /// What an answer that is no success means. Reads the rest of it.
    pub(super) async fn verdict(&self, answer: Answer) -> Error {
        let status = answer.status();
        let error = answer::verdict(status, answer.response.headers(), self.shared.clock.now());
        body::discard(answer.response).await;
        if !matches!(error, Error::Denied(_)) || answer.is_away {
            return error;
        }
        if answer.is_credential_refused {
            return token::credential_refused();
        }
        let is_missing = status == StatusCode::UNAUTHORIZED
            && answer.is_authenticated
            && self.endpoint.row.unauthorized_is_missing;
        if is_missing { Error::NotFound } else { error }
    }

    /// Whether HEAD on blobs is worth trying here.
    pub(super) fn answers_head_blob(&self) -> bool {
        self.endpoint.row.answers_head_blob
            && !self.shared.headless.contains_key(&self.endpoint.root)
    }

    /// Remembers that HEAD on blobs fails here although GET works.
    pub(super) fn learn_headless(&self) {
        self.shared.headless.insert(self.endpoint.root.clone(), ());
    }

    fn scheme_key(&self) -> SchemeKey {
        (
            self.endpoint.root.clone(),
            self.repository.clone(),
            self.credential.cloned(),
        )
    }

    /// What the last request to this repository had to bring along.
    async fn remembered(&self) -> Result<Option<Attached>, Error> {
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
            Err(error @ (Error::RateLimited { .. } | Error::TimedOut(_))) => Err(error),
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

    fn remember(&self, attached: Option<&Attached>) {
        if let Some(attached) = attached {
            let scheme = attached.scheme.clone();
            self.shared.schemes.insert(self.scheme_key(), scheme);
        }
    }

    fn forget(&self, refused: &Attached) {
        self.shared.schemes.invalidate(&self.scheme_key());
        match &refused.scheme {
            Scheme::Bearer(key) => self.shared.tokens.forget(key, &refused.authorization),
            Scheme::Basic => {}
        }
    }

    /// What to send after a request that brought nothing along.
    async fn answer_to(&self, offered: &[Challenge], url: &Url) -> Result<Next, Error> {
        match self.choose(offered, url)? {
            Some(scheme) => Ok(Next::Ask(Some(self.attach(scheme).await?))),
            None => Ok(Next::GiveUp),
        }
    }

    /// What to send after one that brought `refused` along. Harbor answers an expired token with a challenge for a
    /// password, or with none, and says what it really wants to those alone who bring nothing.
    async fn restart(
        &self,
        refused: &Attached,
        offered: &[Challenge],
        url: &Url,
    ) -> Result<Next, Error> {
        match (self.choose(offered, url), &refused.scheme) {
            (Ok(Some(scheme @ Scheme::Bearer(_))), _) => {
                Ok(Next::Ask(Some(self.attach(scheme).await?)))
            }
            (_, Scheme::Bearer(_)) => Ok(Next::Ask(None)),
            (_, Scheme::Basic) => Ok(Next::GiveUp),
        }
    }

    /// The first challenge that can be met: a token if possible, because it is worth less to a thief. A realm that
    /// may not be asked is an error only where nothing else is offered.
    fn choose(&self, offered: &[Challenge], url: &Url) -> Result<Option<Scheme>, Error> {
        let mut refusal = None;
        for challenge in offered.iter().filter(|challenge| challenge.is("bearer")) {
            let realm = challenge.parameter("realm").unwrap_or_default();
            match realm::decide(realm, url, self.upstream.issuers(self.endpoint)) {
                Ok(realm) => {
                    let credential = self.credential.filter(|_| realm.sees_credentials);
                    return Ok(Some(Scheme::Bearer(TokenKey {
                        endpoint: self.endpoint.root.clone(),
                        credential: credential.cloned(),
                        realm,
                        service: challenge.parameter("service").map(str::to_owned),
                        scope: self.endpoint.scope(&self.repository),
                    })));
                }
                Err(reason) => refusal = refusal.or(Some(reason)),
            }
        }
        let asks_for_password = offered.iter().any(|challenge| challenge.is("basic"));
        match (asks_for_password && self.credential.is_some(), refusal) {
            (true, _) => Ok(Some(Scheme::Basic)),
            (false, Some(reason)) => Err(Error::Refused(reason)),
            (false, None) => Ok(None),
        }
    }

    async fn attach(&self, scheme: Scheme) -> Result<Attached, Error> {
        let upstream = self.upstream;
        let (authorization, is_last_word, is_credential_refused) = match (&scheme, self.credential)
        {
            (Scheme::Bearer(key), _) => {
                let tokens = &self.shared.tokens;
                let got = tokens.get(key, &upstream.reach, &upstream.label).await?;
                let (
                    Token {
                        authorization,
                        is_credential_refused,
                        ..
                    },
                    origin,
                ) = got;
                (
                    authorization,
                    origin == Origin::Issued,
                    is_credential_refused,
                )
            }
            (Scheme::Basic, Some(credential)) => (token::basic(credential)?, true, false),
            (Scheme::Basic, None) => {
                return Err(Error::Denied("it asks for a password".to_owned()));
            }
        };
        Ok(Attached {
            authorization,
            scheme,
            is_credential_refused,
            is_last_word,
        })
    }

    /// Sends the request and follows redirects. What shows who asks stays behind when the origin changes, and is not
    /// picked up again on a way back. Returns the last answer, and whether it comes from elsewhere.
    async fn travel(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        attached: Option<&Attached>,
    ) -> Result<(Response, bool), Error> {
        let mut url = url.clone();
        let mut authorization = attached.map(|attached| attached.authorization.clone());
        let mut is_away = false;
        let mut may_ask_for_token = false;
        let mut redirects = 0;
        loop {
            let response = self.send(ask, &url, authorization.as_ref()).await?;
            if is_redirect(response.status()) {
                redirects += 1;
                if redirects > REDIRECTS_MAX {
                    let reason = format!("it redirects more than {REDIRECTS_MAX} times");
                    return Err(Error::Protocol(reason));
                }
                let target = redirect::target(&url, response.headers()).map_err(Error::Refused)?;
                body::discard(response).await;
                if !is_same_origin(&url, &target) {
                    authorization = None;
                    is_away = true;
                    may_ask_for_token = true;
                }
                url = target;
            } else if response.status() == StatusCode::UNAUTHORIZED && may_ask_for_token {
                may_ask_for_token = false;
                authorization = self.visitor_token(&url, response.headers()).await?;
                if authorization.is_none() {
                    return Ok((response, is_away));
                }
                body::discard(response).await;
            } else {
                return Ok((response, is_away));
            }
        }
    }

    /// An anonymous token for a host that a redirect led to, for this request alone. Nothing of it is remembered: the
    /// next request may be led elsewhere.
    async fn visitor_token(
        &self,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Option<HeaderValue>, Error> {
        let issuers = Issuers {
            row: Row::find(super::guard::host_of(url)).unwrap_or(&UNKNOWN),
            configured: &[],
        };
        let Some(scope) = scope_of(url) else {
            return Ok(None);
        };
        let offered = challenges(headers);
        for challenge in offered.iter().filter(|challenge| challenge.is("bearer")) {
            let realm = challenge.parameter("realm").unwrap_or_default();
            let Ok(realm) = realm::decide(realm, url, issuers) else {
                continue;
            };
            let key = TokenKey {
                endpoint: url.clone(),
                realm,
                credential: None,
                service: challenge.parameter("service").map(str::to_owned),
                scope,
            };
            let upstream = self.upstream;
            let issued = self
                .shared
                .tokens
                .issue_once(&key, &upstream.reach, &upstream.label);
            return issued.await.map(|token| Some(token.authorization));
        }
        Ok(None)
    }

    async fn send(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(VIA, self.via.clone());
        if let Some(accept) = ask.accept {
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
        }
        if let Some(range) = ask.range.as_deref().and_then(|range| range.parse().ok()) {
            headers.insert(RANGE, range);
        }
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let (reach, label) = (&self.upstream.reach, &self.upstream.label);
        let transport = &self.shared.transport;
        transport
            .send(reach, label, &ask.method, url, &headers)
            .await
    }
}

/// What follows a 401.
enum Next {
    /// The same request, with this along.
    Ask(Option<Attached>),
    /// Nothing: there is nothing to bring along.
    GiveUp,
}

fn answered(response: Response, is_away: bool, attached: Option<&Attached>) -> Answer {
    Answer {
        response,
        is_away,
        is_authenticated: attached.is_some(),
        is_credential_refused: attached.is_some_and(|attached| attached.is_credential_refused),
    }
}
