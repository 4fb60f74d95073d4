//! One request on its way, over redirects if need be.

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, RANGE, VIA};
use reqwest::{Response, StatusCode, Url};

use super::challenge::challenges;
use super::endpoint::scope_of;
use super::realm::{self, Issuers};
use super::redirect::{self, REDIRECTS_MAX, is_redirect, is_same_origin};
use super::scheme::Attached;
use super::session::{Ask, Session};
use super::table::{Row, UNKNOWN};
use super::token::TokenKey;
use super::{Error, body, guard};

impl Session<'_> {
    /// Sends the request and follows redirects. What shows who asks stays behind when the origin changes, and is not
    /// picked up again on a way back. Returns the last answer, and whether it comes from elsewhere.
    ///
    /// # Errors
    /// `Refused` and `Protocol` for a redirect that is not followed, and whatever keeps an answer from coming.
    pub(super) async fn travel(
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
            row: Row::find(guard::host_of(url)).unwrap_or(&UNKNOWN),
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
