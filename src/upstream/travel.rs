//! One request on its way, over redirects if need be.

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, RANGE, VIA};
use reqwest::{StatusCode, Url};

use super::body::Received;
use super::challenge::challenges;
use super::endpoint::scope_of;
use super::realm::{self, Issuers};
use super::redirect::{self, REDIRECTS_MAX, is_redirect, is_same_origin};
use super::session::{Ask, Session};
use super::table::{Row, UNKNOWN};
use super::token::TokenKey;
use super::trail::Target;
use super::{Error, body, guard};

/// The last answer to a request on its way.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The answer; no redirect.
    pub(super) response: Received,
    /// Whether it comes from another origin.
    pub(super) is_away: bool,
    /// Where redirects led, if there were any.
    pub(super) target: Option<Target>,
}

/// Why there is no answer, and where that happened.
#[derive(Debug)]
pub(super) struct Lost {
    /// Why.
    pub(super) error: Error,
    /// Whether the registry had redirected to another origin by then.
    pub(super) is_away: bool,
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        let is_away = false;
        Self { error, is_away }
    }
}

impl Session<'_> {
    /// Sends the request and follows redirects. What shows who asks stays behind when the origin changes, and is not
    /// picked up again on a way back.
    ///
    /// # Errors
    /// `Refused` and `Protocol` for a redirect that is not followed, and whatever keeps an answer from coming.
    pub(super) async fn travel(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Arrival, Lost> {
        let mut url = url.clone();
        let mut authorization = authorization.cloned();
        let mut is_away = false;
        let mut may_ask_for_token = false;
        let mut redirects = 0;
        loop {
            let lost = |error| Lost { error, is_away };
            let sent = self.send(ask, &url, authorization.as_ref()).await;
            let response = sent.map_err(lost)?;
            if is_redirect(response.status()) && !ask.ends_with(response.status()) {
                redirects += 1;
                if redirects > REDIRECTS_MAX {
                    let reason = format!("it redirects more than {REDIRECTS_MAX} times");
                    return Err(lost(Error::Protocol(reason)));
                }
                let target = redirect::target(&url, response.headers());
                let target = target.map_err(|reason| lost(Error::Protocol(reason)))?;
                body::discard(response).await;
                if !is_same_origin(&url, &target) {
                    authorization = None;
                    is_away = true;
                    may_ask_for_token = true;
                }
                url = target;
                continue;
            }
            if response.status() == StatusCode::UNAUTHORIZED && may_ask_for_token {
                may_ask_for_token = false;
                if let Some(key) = visitor_key(&url, response.headers()) {
                    body::discard(response).await;
                    let issued = self.shared.tokens.issue_once(&key, self.behalf());
                    authorization = Some(issued.await.map_err(lost)?.authorization);
                    continue;
                }
            }
            let was_shown = authorization.is_some();
            return Ok(Arrival {
                response,
                is_away,
                target: (redirects > 0).then_some(Target { url, was_shown }),
            });
        }
    }

    async fn send(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Received, Error> {
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
        let transport = &self.shared.transport;
        transport
            .send(self.behalf(), &ask.method, url, &headers)
            .await
    }
}

/// The anonymous token to ask for where a redirect led to `url`, for this request alone. Nothing of it is remembered:
/// the next request may be led elsewhere.
fn visitor_key(url: &Url, headers: &HeaderMap) -> Option<TokenKey> {
    let scope = scope_of(url)?;
    let issuers = Issuers {
        row: Row::find(guard::host_of(url)).unwrap_or(&UNKNOWN),
        configured: &[],
    };
    let offered = challenges(headers);
    let mut bearers = offered.iter().filter(|challenge| challenge.is("bearer"));
    bearers.find_map(|challenge| {
        let realm = challenge.parameter("realm").unwrap_or_default();
        Some(TokenKey {
            endpoint: url.clone(),
            realm: realm::decide(realm, url, issuers).ok()?,
            credential: None,
            service: realm::service(challenge),
            scope: scope.clone(),
        })
    })
}
