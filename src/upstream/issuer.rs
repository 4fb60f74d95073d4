//! One conversation with whoever issues tokens (distribution, "Token Authentication Specification"). By GET: every
//! issuer takes it, and many take nothing else. An identity token alone is shown in a POST (distribution,
//! `spec/auth/oauth.md`), which is what it was made for.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

use super::body::Received;
use super::token::{Token, TokenKey};
use super::transport::{Behalf, Transport};
use super::{Credential, CredentialKind, Error, answer, body};
use crate::clock::Clock;

/// Most of a token answer that is read, in bytes; go-containerregistry's limit. Real ones stay below 8 KiB.
const TOKEN_ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// How long a token lives that says nothing, and the least that is believed (token specification: "for compatibility
/// with older clients, a token should never be returned with less than 60 seconds to live").
const LIFETIME_MIN: Duration = Duration::from_mins(1);

/// The most that is believed: the longest life that is documented anywhere, Amazon's.
const LIFETIME_MAX: Duration = Duration::from_hours(12);

/// How long before its end a token is renewed, so that none dies on its way.
const RENEWED_EARLY: Duration = Duration::from_secs(5);

/// What we are called where an issuer wants to know (distribution, `spec/auth/oauth.md`).
const CLIENT_ID: &str = "entrepot";

/// The value of an `Authorization` header that shows the credential itself. It never shows in `Debug`.
///
/// # Errors
/// Never in practice: Base64 is visible text.
pub(super) fn authorization(credential: &Credential) -> Result<HeaderValue, Error> {
    match credential.kind {
        CredentialKind::Password | CredentialKind::Identity => basic(credential),
        CredentialKind::Token => sensitive(&format!("Bearer {}", credential.password.expose())),
    }
}

fn basic(credential: &Credential) -> Result<HeaderValue, Error> {
    let pair = format!("{}:{}", credential.username, credential.password.expose());
    sensitive(&format!("Basic {}", BASE64_STANDARD.encode(pair)))
}

fn sensitive(text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Error::Protocol("the token cannot stand in a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What it takes to talk to an issuer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Issuer<'a> {
    pub(super) transport: &'a Transport,
    pub(super) clock: &'a Clock,
    /// The issuer may have the addresses that the registry may have.
    pub(super) behalf: Behalf<'a>,
}

impl Issuer<'_> {
    /// Asks with the credential, and without it where the issuer does not take it: many public images can still be
    /// pulled then, and the refusal is remembered for the error message of the others.
    ///
    /// # Errors
    /// As [`Issuer::ask`].
    pub(super) async fn issue(&self, key: &TokenKey) -> Result<Token, Error> {
        let Some(credential) = &key.credential else {
            return self.ask(key, None).await;
        };
        match self.ask(key, Some(credential)).await {
            Err(Error::Denied(reason)) => {
                tracing::warn!(
                    upstream = self.behalf.label,
                    %reason,
                    "a credential is refused; trying without it"
                );
                let mut token = match self.ask(key, None).await {
                    Err(Error::Denied(_)) => return Err(credential_refused()),
                    outcome => outcome?,
                };
                token.is_credential_refused = true;
                Ok(token)
            }
            outcome => outcome,
        }
    }

    /// One request, with `credential`, whatever `key` says.
    ///
    /// # Errors
    /// `Denied` when the issuer refuses, `Refused` when it redirects, and whatever keeps an answer from coming.
    pub(super) async fn ask(
        &self,
        key: &TokenKey,
        credential: Option<&Credential>,
    ) -> Result<Token, Error> {
        let identity = credential.filter(|it| it.kind == CredentialKind::Identity);
        if let Some(identity) = identity {
            let response = self.grant(key, identity).await?;
            if !knows_no_grants(response.status()) {
                return self.read(response, true).await;
            }
            body::discard(response).await;
        }
        let url = request_url(key);
        let mut headers = HeaderMap::new();
        if let Some(credential) = credential {
            headers.insert(AUTHORIZATION, basic(credential)?);
        }
        let sent = self
            .transport
            .send(self.behalf, &Method::GET, &url, &headers);
        self.read(sent.await?, credential.is_some()).await
    }

    /// Asks for an access token by a refresh token (RFC 6749 section 6). It stays in the body, where no log looks. One that
    /// the issuer sends along for the next time is not kept: the operator's file says what is shown.
    async fn grant(&self, key: &TokenKey, identity: &Credential) -> Result<Received, Error> {
        let form = grant_form(key, identity);
        let posted = self.transport.post(self.behalf, &key.realm.url, form);
        posted.await
    }

    /// The token in an answer.
    async fn read(&self, response: Received, with_credential: bool) -> Result<Token, Error> {
        let status = response.status();
        if status.is_redirection() {
            // A second host would have to pass the rules of realms again; no issuer is known to need one.
            return Err(Error::Refused("the token endpoint redirects".to_owned()));
        }
        if status != StatusCode::OK {
            let error = answer::verdict(status, response.headers(), self.clock.now());
            body::discard(response).await;
            return Err(at_token_endpoint(error, status, with_credential));
        }
        let bytes = body::whole(response, TOKEN_ANSWER_BYTES_MAX).await?;
        let answer = TokenAnswer::read(&bytes)
            .ok_or_else(|| Error::Protocol("the token endpoint gives no token".to_owned()))?;
        Ok(Token {
            authorization: sensitive(&format!("Bearer {}", answer.token))?,
            is_credential_refused: false,
            good_until: Instant::now() + lifetime(&answer, self.clock.now()) - RENEWED_EARLY,
        })
    }
}

/// Whether an issuer that answers a grant so may know the older way alone: those without a POST say 404 or 405, and
/// Artifactory 401.
fn knows_no_grants(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
    )
}

/// What the caller is told when nobody takes the configured credential.
pub(super) fn credential_refused() -> Error {
    Error::denied("the configured credential is refused")
}

/// `error`, said of the token endpoint. A missing endpoint is no missing image.
fn at_token_endpoint(error: Error, status: StatusCode, with_credential: bool) -> Error {
    match error {
        // Amazon's answer to a wrong password.
        Error::Protocol(_) if with_credential && status == StatusCode::BAD_REQUEST => {
            Error::denied(format!("the token endpoint answers {status}"))
        }
        Error::NotFound | Error::Protocol(_) => {
            Error::Protocol(format!("the token endpoint answers {status}"))
        }
        Error::Denied(_) => Error::denied(format!("the token endpoint answers {status}")),
        Error::Unavailable(_) => Error::unavailable(format!("the token endpoint answers {status}")),
        other @ (Error::RateLimited { .. }
        | Error::Busy { .. }
        | Error::TimedOut(_)
        | Error::TooLarge { .. }
        | Error::Refused(_)
        | Error::Loop) => other,
    }
}

/// The realm with `service` and one `scope`: some issuers look at the first alone, others refuse two. What the realm's
/// query holds stays there. An empty service is left out.
fn request_url(key: &TokenKey) -> Url {
    let mut url = key.realm.url.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service_of(key) {
            query.append_pair("service", service);
        }
        query.append_pair("scope", &key.scope);
    }
    url
}

/// What a refresh token is sent in.
fn grant_form(key: &TokenKey, identity: &Credential) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("client_id", CLIENT_ID);
    if let Some(service) = service_of(key) {
        form.append_pair("service", service);
    }
    form.append_pair("scope", &key.scope);
    form.append_pair("refresh_token", identity.password.expose());
    form.finish()
}

fn service_of(key: &TokenKey) -> Option<&str> {
    key.service.as_deref().filter(|service| !service.is_empty())
}

/// What an issuer answers, as far as it matters.
#[derive(Debug, PartialEq)]
struct TokenAnswer {
    token: String,
    expires_in: Option<Duration>,
}

impl TokenAnswer {
    fn read(bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Raw {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<serde_json::Value>,
        }
        let raw: Raw = serde_json::from_slice(bytes).ok()?;
        let is_there = |token: &String| !token.is_empty();
        let token = raw
            .token
            .filter(is_there)
            .or(raw.access_token.filter(is_there))?;
        // A number by the specification; some write it as a text.
        let seconds = raw.expires_in.and_then(|value| match value {
            serde_json::Value::Number(number) => number.as_u64(),
            serde_json::Value::String(text) => text.parse().ok(),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => None,
        });
        Some(Self {
            token,
            expires_in: seconds.map(Duration::from_secs),
        })
    }
}

/// How long the token lives from now on: as it says, else as written in it, else a minute.
fn lifetime(answer: &TokenAnswer, now: SystemTime) -> Duration {
    let said = answer.expires_in.or_else(|| written_in(&answer.token, now));
    said.unwrap_or(LIFETIME_MIN)
        .clamp(LIFETIME_MIN, LIFETIME_MAX)
}

/// The time until `exp`, where the token is a JSON Web Token (RFC 7519). Quay's live for an hour and say so nowhere
/// else. Nothing is verified: the registry does that, and a 401 renews a token whatever it said.
fn written_in(token: &str, now: SystemTime) -> Option<Duration> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Duration::from_secs(expiry(token)?).checked_sub(now)
}

/// `exp` of a JSON Web Token, in seconds since 1970. Not verified.
pub(super) fn expiry(token: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let claims = token.split('.').nth(1)?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    Some(claims.exp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Secret;
    use crate::upstream::realm::Realm;

    fn key(realm: &str, service: Option<&str>) -> TokenKey {
        TokenKey {
            endpoint: "https://r.example/v2/".parse().expect("a URL"),
            realm: Realm {
                url: realm.parse().expect("a URL"),
                sees_credentials: true,
            },
            credential: None,
            service: service.map(str::to_owned),
            scope: "repository:a/b:pull".to_owned(),
        }
    }

    #[test]
    fn the_request_asks_for_one_scope_of_our_own() {
        let check = |realm: &str, service: Option<&str>, expected: &str| {
            assert_eq!(request_url(&key(realm, service)).as_str(), expected);
        };
        check(
            "https://h/token",
            Some("SUSE Linux & Co"),
            "https://h/token?service=SUSE+Linux+%26+Co&scope=repository%3Aa%2Fb%3Apull",
        );
        check(
            "https://h/token/",
            None,
            "https://h/token/?scope=repository%3Aa%2Fb%3Apull",
        );
        check(
            "https://h/token",
            Some(""),
            "https://h/token?scope=repository%3Aa%2Fb%3Apull",
        );
        check(
            "https://h/jwt?host=x.example",
            Some("docker"),
            "https://h/jwt?host=x.example&service=docker&scope=repository%3Aa%2Fb%3Apull",
        );
    }

    #[test]
    fn either_field_may_hold_the_token() {
        let check = |json: &str, expected: Option<(&str, Option<u64>)>| {
            let expected = expected.map(|(token, seconds)| TokenAnswer {
                token: token.to_owned(),
                expires_in: seconds.map(Duration::from_secs),
            });
            assert_eq!(TokenAnswer::read(json.as_bytes()), expected, "{json}");
        };
        check(r#"{"token":"t"}"#, Some(("t", None)));
        check(r#"{"access_token":"a"}"#, Some(("a", None)));
        check(
            r#"{"token":"","access_token":"a","expires_in":600}"#,
            Some(("a", Some(600))),
        );
        check(
            r#"{"token":"t","access_token":"t","expires_in":300,"issued_at":"2018-07-27T15:59:03.97Z"}"#,
            Some(("t", Some(300))),
        );
        check(
            r#"{"token":"t","expires_in":"300"}"#,
            Some(("t", Some(300))),
        );
        check(r#"{"token":"t","expires_in":-1}"#, Some(("t", None)));
        for json in ["", "{}", "<html>", r#"{"token":null}"#, r#"{"token":7}"#] {
            check(json, None);
        }
    }

    #[test]
    fn a_token_lives_a_minute_at_least_and_half_a_day_at_most() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let check = |token: &str, expires_in: Option<u64>, expected: u64| {
            let answer = TokenAnswer {
                token: token.to_owned(),
                expires_in: expires_in.map(Duration::from_secs),
            };
            assert_eq!(lifetime(&answer, now), Duration::from_secs(expected));
        };
        let jwt = |claims: &str| format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims));
        check("opaque", None, 60);
        check("opaque", Some(0), 60);
        check("opaque", Some(300), 300);
        check("opaque", Some(u64::MAX), 12 * 60 * 60);
        check(&jwt(r#"{"exp":4600}"#), None, 3600);
        check(&jwt(r#"{"exp":4600}"#), Some(300), 300);
        check(&jwt(r#"{"exp":10}"#), None, 60);
        check(&jwt("{}"), None, 60);
        check("a.%%%.b", None, 60);
    }

    #[test]
    fn a_password_may_hold_anything_and_is_not_printed() {
        let credential = Credential::password("robot$a+b", Secret::new("p:q\n\"ü"));
        let value = basic(&credential).expect("a value");
        assert!(value.is_sensitive());
        let encoded = value.to_str().expect("text").trim_start_matches("Basic ");
        let decoded = BASE64_STANDARD.decode(encoded).expect("Base64");
        assert_eq!(decoded, "robot$a+b:p:q\n\"ü".as_bytes());
        assert_eq!(format!("{value:?}"), "Sensitive");
    }
}
