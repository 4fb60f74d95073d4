//! One request to one endpoint: authenticated as the registry asks, with redirects followed, and never more often
//! than it takes.
//!
//! What a registry asks for is learned from the answer to the request itself, not from a request to `/v2/`, whose
//! challenge often differs. Which answer it wanted is remembered per repository, so that later requests bring it along.

use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode, Url};

use super::body::Received;
use super::breaker::Sign;
use super::challenge::{Challenge, challenges};
use super::endpoint::{Endpoint, Upstream};
use super::health::{sign_of_answer, sign_of_error};
use super::lent::Lender;
use super::redirect::is_same_origin;
use super::retry::Retry;
use super::scheme::{Attached, Scheme};
use super::shared::Shared;
use super::trail::Target;
use super::transport::Behalf;
use super::travel::{Arrival, Lost};
use super::{CallerToken, Credential, Denial, Error, TokenChallenge, answer, body, issuer};

/// What Amazon's private registries say, with a 403, to a password that was good for twelve hours.
const EXPIRED: &str = "authorization token has expired";

/// What a challenge says to a token that is good, and not for this (RFC 6750 section 3.1).
const LACKS_SCOPE: &str = "insufficient_scope";

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

impl Ask<'_> {
    /// Whether an answer of this status is the last word although it leads elsewhere. The Container registry of GitHub
    /// sends who asks for referrers to a web page of another host (artifacthub/hub#4785): it does not know them.
    pub(super) fn ends_with(&self, status: StatusCode) -> bool {
        status == StatusCode::SEE_OTHER && self.below.starts_with("referrers/")
    }

    /// Whether what another host says, where the registry redirects to one, is the registry's answer. Blobs are some
    /// other service's as a rule, whose trouble is not the registry's.
    fn speaks_for_registry(&self, is_away: bool) -> bool {
        !is_away || !self.below.starts_with("blobs/")
    }
}

/// The final answer to an [`Ask`], whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    /// The answer; no redirect that could have been followed.
    pub(super) response: Received,
    /// Whether it comes from where a redirect led, not from the registry.
    pub(super) is_away: bool,
    /// Where redirects led, if there were any.
    pub(super) target: Option<Target>,
    is_authenticated: bool,
    shown: Shown,
    /// How the caller could be let in with a token of their own.
    challenge: Option<TokenChallenge>,
}

/// What the registry says of what it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// It takes it, or does not say.
    Undisputed,
    /// It is a wrong name or password.
    Refused,
    /// It is a good token, and not for this repository.
    TooLittle,
}

impl Answer {
    /// Whether another credential might bring another answer.
    pub(super) fn is_refusal(&self) -> bool {
        let status = self.status();
        let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        !self.is_away && (is_refused || self.shown == Shown::Refused)
    }

    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }
}

/// One repository at one endpoint, on behalf of one caller.
#[derive(Debug, Clone)]
pub(super) struct Session<'a> {
    pub(super) shared: &'a Shared,
    pub(super) upstream: &'a Upstream,
    pub(super) endpoint: &'a Endpoint,
    /// Which one of the upstream's endpoints that is.
    pub(super) position: usize,
    /// Whether another endpoint can be asked after this one.
    pub(super) has_next: bool,
    /// What the repository is called at this endpoint.
    pub(super) repository: String,
    /// The credential, where this endpoint may see it.
    pub(super) credential: Option<&'a Credential>,
    /// The caller's own token, where this endpoint may see it. Then there is no credential.
    pub(super) caller: Option<&'a CallerToken>,
    /// Whether a challenge is kept for the caller to meet.
    pub(super) relays: bool,
    /// Where it comes from, where this endpoint may see it.
    pub(super) lender: Option<Lender<'a>>,
    /// The `Via` header.
    pub(super) via: HeaderValue,
}

impl Session<'_> {
    /// Asks, unless the endpoint is left alone for now, and authenticates if need be. What comes of it decides whether
    /// others may ask.
    ///
    /// # Errors
    /// What kept an answer from coming, now or a moment ago, and what kept a token from coming. No status of the
    /// registry is an error here.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Error> {
        let permit = self.endpoint.health.admit(&ask.method)?;
        let outcome = self.converse_as_lent(ask).await;
        permit.report(self.sign_of(ask, &outcome));
        outcome.map_err(|lost| lost.error)
    }

    /// Whether the next endpoint is asked after `error`. A mirror in front may lack what the registry has, and what it
    /// refuses us, who show it no credential, the registry may give.
    pub(super) fn falls_through(&self, error: &Error) -> bool {
        let is_refusal = matches!(error, Error::Denied(_) | Error::Refused(_));
        let is_passed_over = matches!(error, Error::NotFound) || error.is_trouble();
        is_passed_over || (is_refusal && self.endpoint.is_mirror())
    }

    /// What came of asking says about the endpoint; `None` for nothing.
    fn sign_of(&self, ask: &Ask<'_>, outcome: &Result<Answer, Lost>) -> Option<Sign> {
        match outcome {
            Ok(answer) if ask.speaks_for_registry(answer.is_away) => {
                let headers = answer.response.headers();
                self.endpoint.health.hear(headers);
                Some(sign_of_answer(
                    answer.status(),
                    headers,
                    self.shared.clock.now(),
                ))
            }
            Err(lost) if ask.speaks_for_registry(lost.is_away) => {
                sign_of_error(&ask.method, &lost.error)
            }
            // The registry answered: with a redirect.
            Ok(_) | Err(_) => Some(Sign::Answer),
        }
    }

    /// At most four requests reach the registry: with what is remembered, without anything, with a kept token, and with
    /// a new one.
    pub(super) async fn converse(&self, ask: &Ask<'_>) -> Result<Answer, Lost> {
        let url = self.endpoint.url(&self.repository, ask.below);
        if let Some(token) = self.caller {
            return self.ask_for_caller(ask, &url, token).await;
        }
        let mut attached = self.remembered().await?;
        let mut may_restart = true;
        loop {
            let authorization = attached.as_ref().map(|attached| &attached.authorization);
            let arrival = self.travel(ask, &url, authorization).await?;
            if arrival.response.status() != StatusCode::UNAUTHORIZED || arrival.is_away {
                self.remember(attached.as_ref());
                return Ok(self.answered(arrival, attached.as_ref()));
            }
            let offered = challenges(arrival.response.headers());
            let next = match &attached {
                None => self.choose(&offered, &url)?.map_or(Next::GiveUp, Next::ask),
                Some(refused) => {
                    self.forget(refused);
                    if refused.is_last_word || !may_restart {
                        return Ok(self.answered(arrival, attached.as_ref()));
                    }
                    may_restart = false;
                    self.restart(refused, &offered, &url)
                }
            };
            match next {
                Next::Ask(scheme) => {
                    // Before a token is asked for: answers are counted, see `Transport::send`.
                    body::discard(arrival.response).await;
                    if attached.is_some() {
                        self.shared.transport.retry(Retry::TokenRefused);
                    }
                    attached = match scheme {
                        Some(scheme) => {
                            let challenge = self.relayed(&scheme);
                            let attached = self.attach(*scheme).await;
                            Some(attached.map_err(|error| with_challenge(error, challenge))?)
                        }
                        None => None,
                    };
                }
                Next::GiveUp => return Ok(self.answered(arrival, attached.as_ref())),
            }
        }
    }

    /// Asks with the caller's own token, once: whether it is good is between the two of them.
    async fn ask_for_caller(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        token: &CallerToken,
    ) -> Result<Answer, Lost> {
        let arrival = self.travel(ask, url, Some(token.authorization())).await?;
        let is_refused = arrival.response.status() == StatusCode::UNAUTHORIZED && !arrival.is_away;
        let offered = if is_refused {
            challenges(arrival.response.headers())
        } else {
            Vec::new()
        };
        let scheme = self.choose(&offered, url)?;
        Ok(Answer {
            is_authenticated: true,
            shown: if offered.iter().any(lacks_scope) {
                Shown::TooLittle
            } else {
                Shown::Undisputed
            },
            challenge: scheme.and_then(|scheme| self.relayed(&scheme)),
            ..self.answered(arrival, None)
        })
    }

    /// Asks where the registry redirected to before, without showing who asks. Where that is the registry itself, it is
    /// left alone as it is by [`ask`](Self::ask).
    ///
    /// # Errors
    /// What kept an answer from coming. No status is an error here.
    pub(super) async fn ask_at(&self, ask: &Ask<'_>, target: &Target) -> Result<Answer, Error> {
        if !is_same_origin(&self.endpoint.root, &target.url) {
            return self.revisit(ask, target).await.map_err(|lost| lost.error);
        }
        let permit = self.endpoint.health.admit(&ask.method)?;
        let outcome = self.revisit(ask, target).await;
        permit.report(match &outcome {
            Ok(answer) => Some(sign_of_answer(
                answer.status(),
                answer.response.headers(),
                self.shared.clock.now(),
            )),
            Err(lost) => sign_of_error(&ask.method, &lost.error),
        });
        outcome.map_err(|lost| lost.error)
    }

    async fn revisit(&self, ask: &Ask<'_>, target: &Target) -> Result<Answer, Lost> {
        let arrival = self.travel(ask, &target.url, None).await?;
        let here = || Target {
            url: target.url.clone(),
            was_shown: false,
        };
        Ok(Answer {
            response: arrival.response,
            is_away: true,
            target: Some(arrival.target.unwrap_or_else(here)),
            is_authenticated: false,
            shown: Shown::Undisputed,
            challenge: None,
        })
    }

    /// What an answer that is no success means. Reads the rest of it.
    pub(super) async fn verdict(&self, answer: Answer) -> Error {
        let status = answer.status();
        let error = answer::verdict(status, answer.response.headers(), self.shared.clock.now());
        let words = body::words(answer.response).await;
        let Error::Denied(denial) = error else {
            return error;
        };
        if answer.is_away {
            return Error::Denied(denial);
        }
        if answer.shown == Shown::Refused {
            return issuer::credential_refused();
        }
        if answer.is_authenticated && words.contains(EXPIRED) {
            return Error::denied("the configured credential has expired");
        }
        if status == StatusCode::UNAUTHORIZED && !answer.is_authenticated {
            let reason = "it wants to know who asks, and no credential for it is configured";
            let denial = Denial::from(reason.to_owned());
            return Error::Denied(denial.with_challenge(answer.challenge));
        }
        if status == StatusCode::UNAUTHORIZED && self.endpoint.row.unauthorized_is_missing {
            return self.denied_or_missing(denial, answer.shown, answer.challenge);
        }
        Error::Denied(denial.with_challenge(answer.challenge))
    }

    /// What the 401 of a registry means that says the same of what is missing and of what is private, as Docker Hub
    /// does. Whoever could still show a token is told how, because nothing else would ever bring it along; whoever has
    /// shown a good one has heard the last word, and so has everybody where no other right than the mirror's counts.
    fn denied_or_missing(
        &self,
        denial: Denial,
        shown: Shown,
        challenge: Option<TokenChallenge>,
    ) -> Error {
        match (self.caller, challenge) {
            (Some(_), _) if shown == Shown::TooLittle => Error::Denied(denial.or_missing()),
            (None, None) => Error::NotFound,
            (_, challenge) => Error::Denied(denial.with_challenge(challenge)),
        }
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

    /// On whose behalf requests are sent.
    pub(super) fn behalf(&self) -> Behalf<'_> {
        Behalf {
            reach: &self.upstream.reach,
            label: &self.upstream.label,
        }
    }

    /// The challenge that `scheme` answers, where callers may be shown it. A password is never asked for on behalf of
    /// an upstream.
    fn relayed(&self, scheme: &Scheme) -> Option<TokenChallenge> {
        match scheme {
            Scheme::Bearer(key) if self.relays => Some(TokenChallenge::of(key)),
            Scheme::Bearer(_) | Scheme::Basic(_) => None,
        }
    }

    fn answered(&self, arrival: Arrival, attached: Option<&Attached>) -> Answer {
        let is_unauthorized = arrival.response.status() == StatusCode::UNAUTHORIZED;
        let is_credential_refused = attached.is_some_and(|attached| match attached.scheme {
            Scheme::Bearer(_) => attached.is_credential_refused,
            Scheme::Basic(_) => is_unauthorized,
        });
        Answer {
            response: arrival.response,
            is_away: arrival.is_away,
            target: arrival.target,
            is_authenticated: attached.is_some(),
            shown: if is_credential_refused {
                Shown::Refused
            } else {
                Shown::Undisputed
            },
            challenge: attached.and_then(|attached| self.relayed(&attached.scheme)),
        }
    }

    /// What to send after one that brought `refused` along. Harbor answers an expired token with a challenge for a
    /// password, or with none, and says what it really wants to those alone who bring nothing.
    fn restart(&self, refused: &Attached, offered: &[Challenge], url: &Url) -> Next {
        match (self.choose(offered, url), &refused.scheme) {
            (Ok(Some(scheme @ Scheme::Bearer(_))), _) => Next::ask(scheme),
            (_, Scheme::Bearer(_)) => Next::Ask(None),
            (_, Scheme::Basic(_)) => Next::GiveUp,
        }
    }
}

/// Whether a challenge answers a token that is good, and not for this.
fn lacks_scope(challenge: &Challenge) -> bool {
    challenge.parameter("error") == Some(LACKS_SCOPE)
}

/// What follows a 401.
enum Next {
    /// The same request, with this along.
    Ask(Option<Box<Scheme>>),
    /// Nothing: there is nothing to bring along.
    GiveUp,
}

impl Next {
    fn ask(scheme: Scheme) -> Self {
        Self::Ask(Some(scheme.into()))
    }
}

/// `error`, with the way in for the caller where it is a refusal.
fn with_challenge(error: Error, challenge: Option<TokenChallenge>) -> Error {
    match error {
        Error::Denied(denial) => Error::Denied(denial.with_challenge(challenge)),
        other @ (Error::NotFound
        | Error::RateLimited { .. }
        | Error::Busy { .. }
        | Error::Unavailable(_)
        | Error::TimedOut(_)
        | Error::TooLarge { .. }
        | Error::Protocol(_)
        | Error::Refused(_)
        | Error::Loop) => other,
    }
}
