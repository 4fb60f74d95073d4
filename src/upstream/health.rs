//! How one endpoint is doing: whether it is asked at all, and how much it will still give. For everybody who asks it.
//!
//! What counts is what the registry itself says, its token service included. Blobs are redirected to some other service
//! as a rule, and what that does is no reason to leave the registry alone; whatever else is redirected, manifests first
//! of all, counts wherever it leads: registry.k8s.io has none of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use moka::sync::Cache;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use tokio::time::Instant;

use super::breaker::{Breaker, Cause, Change, Refusal, Sign, Ticket};
use super::clients::Standing;
use super::quota::Quota;
use super::waiting::Waiting;
use super::{Error, answer};
use crate::metrics::{Counted, Metrics};
use crate::oci::Namespace;

/// For how long it is believed what an endpoint said of its quota. Once this has passed somebody asks again, and learns
/// how much there is by then.
const QUOTA_BELIEVED: Duration = Duration::from_mins(5);

/// Most endpoints that nobody configured and whose health is known, of those in the table and of all others each. Who is
/// forgotten is asked as if nothing had happened.
const PUBLIC_MAX: u64 = 1_000;

/// How long a public endpoint is remembered that nobody asks: longer than any breaker is open.
const PUBLIC_REMEMBERED: Duration = Duration::from_hours(2);

/// How one endpoint is doing.
#[derive(Debug)]
pub(super) struct Health {
    /// The metric label of the upstream.
    label: String,
    /// For the log.
    host: String,
    /// Whether the label stands for this upstream alone.
    is_named: bool,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    breaker: Breaker,
    /// Those who have no answer to a HEAD yet.
    waiting: Waiting,
    /// Since when the breaker is open, and what counts that.
    open: Option<(Instant, Counted)>,
    /// What was said of the quota, and when.
    quota: Option<(Quota, Instant)>,
}

impl Health {
    /// Nothing is known yet of the endpoint at `host`, of the upstream `namespace` with the metric label `label`.
    pub(super) fn new(namespace: &Namespace, label: &str, host: &str, metrics: &Metrics) -> Self {
        Self {
            label: label.to_owned(),
            host: host.to_owned(),
            is_named: namespace.as_str() == label,
            metrics: metrics.clone(),
            state: Mutex::default(),
        }
    }

    /// Leave to ask once, by `method`.
    ///
    /// # Errors
    /// The kind of error that opened the breaker, where it is open.
    pub(super) fn admit(self: &Arc<Self>, method: &Method) -> Result<Permit, Error> {
        let now = Instant::now();
        let mut state = self.state();
        match state.breaker.admit(now) {
            Ok(ticket) => {
                let is_waited_for = *method == Method::HEAD;
                if is_waited_for {
                    state.waiting.begin(now);
                }
                Ok(Permit {
                    health: Arc::clone(self),
                    is_waited_for,
                    ticket: Some(ticket),
                })
            }
            Err(refusal) => {
                drop(state);
                self.refused();
                Err(refusal.error())
            }
        }
    }

    /// Why nobody asks now, where that is so.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.state().breaker.refusal(Instant::now())
    }

    /// Whether whoever has something else to go by need not wait for an answer: somebody has waited for as long as
    /// `patience` and nobody has heard anything, or it was silence for which it was left alone until a moment ago.
    pub(super) fn is_silent(&self, patience: Duration) -> bool {
        let (state, now) = (self.state(), Instant::now());
        state.breaker.has_timed_out(now) || state.waiting.in_vain(now) >= patience
    }

    /// Counts somebody who is not to ask.
    pub(super) fn refused(&self) {
        self.metrics.upstream_refusal(&self.label);
    }

    /// Takes down what an answer says of the quota.
    pub(super) fn hear(&self, headers: &HeaderMap) {
        let Some(quota) = Quota::read(headers) else {
            return;
        };
        if self.is_named {
            self.metrics.upstream_quota(&self.label, quota.remaining);
        }
        let known = self.state().quota.replace((quota, Instant::now()));
        let was_short = known.is_some_and(|(known, _)| known.is_short());
        if quota.is_short() && !was_short {
            let (upstream, endpoint, remaining) = (&self.label, &self.host, quota.remaining);
            tracing::warn!(
                upstream,
                endpoint,
                remaining,
                "the registry will not give much more for now; tags are checked less often"
            );
        }
    }

    /// Whether the endpoint said a short while ago that it will not give much more.
    pub(super) fn is_short_of_quota(&self) -> bool {
        let quota = self.state().quota;
        quota.is_some_and(|(quota, heard)| quota.is_short() && heard.elapsed() < QUOTA_BELIEVED)
    }

    fn report(&self, ticket: Ticket, sign: Sign) {
        let now = Instant::now();
        let mut state = self.state();
        if sign.is_of_life() {
            state.waiting.heard(now);
        }
        let change = state.breaker.report(ticket, sign, now, fastrand::f64());
        let (upstream, endpoint) = (&self.label, &self.host);
        match change {
            Some(Change::Opened(cause, pause)) => {
                state.open = Some((now, self.metrics.upstream_breaker_open(&self.label)));
                drop(state);
                let reason = cause.as_str();
                tracing::warn!(
                    upstream,
                    endpoint,
                    reason,
                    ?pause,
                    "leaving the registry alone"
                );
            }
            Some(Change::OpenedAgain(cause, pause)) => {
                drop(state);
                let reason = cause.as_str();
                tracing::debug!(upstream, endpoint, reason, ?pause, "still no better");
            }
            Some(Change::Closed) => {
                let open = state.open.take();
                drop(state);
                let after = open.map(|(since, _)| now.saturating_duration_since(since));
                tracing::info!(upstream, endpoint, ?after, "the registry answers again");
            }
            None => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to ask an endpoint once. Dropping it says that nothing came of that.
#[derive(Debug)]
pub(super) struct Permit {
    health: Arc<Health>,
    /// Whether it counts among those who wait.
    is_waited_for: bool,
    ticket: Option<Ticket>,
}

impl Permit {
    /// What came of asking; `None` where the endpoint has no part in that.
    pub(super) fn report(mut self, sign: Option<Sign>) {
        if let Some(sign) = sign
            && let Some(ticket) = self.ticket.take()
        {
            self.health.report(ticket, sign);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.health.state();
        if self.is_waited_for {
            state.waiting.end();
        }
        if let Some(ticket) = self.ticket.take() {
            state.breaker.give_back(ticket);
        }
    }
}

/// What an answer says about the endpoint that gave it.
pub(super) fn sign_of_answer(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Sign {
    let cause = match status {
        StatusCode::TOO_MANY_REQUESTS => Cause::RateLimited,
        StatusCode::REQUEST_TIMEOUT => Cause::Unavailable,
        // Of a method, not of the server.
        StatusCode::NOT_IMPLEMENTED => return Sign::Answer,
        status if status.is_server_error() => Cause::Unavailable,
        _ => return Sign::Answer,
    };
    let wait = match cause {
        Cause::RateLimited => answer::wait(headers, now),
        Cause::Unavailable | Cause::TimedOut(_) => answer::retry_after(headers, now),
    };
    Sign::Failure { cause, wait }
}

/// What an error in place of an answer to `method` says about the endpoint; `None` for nothing.
pub(super) fn sign_of_error(method: &Method, error: &Error) -> Option<Sign> {
    let failure = |cause, wait| Some(Sign::Failure { cause, wait });
    match error {
        Error::RateLimited { retry_after } => failure(Cause::RateLimited, *retry_after),
        // Some front ends drop the connection on HEAD, and answer to the GET that follows.
        Error::Unavailable(_) if *method == Method::HEAD && error.is_dropped() => None,
        Error::Unavailable(_) => failure(Cause::Unavailable, None),
        Error::TimedOut(silence) => failure(Cause::TimedOut(*silence), None),
        Error::NotFound | Error::Denied(_) | Error::TooLarge { .. } | Error::Protocol(_) => {
            Some(Sign::Answer)
        }
        // It is we who did not ask.
        Error::Busy { .. } | Error::Refused(_) | Error::Loop => None,
    }
}

/// How the endpoints are doing that nobody configured.
#[derive(Debug)]
pub(super) struct PublicHealth {
    metrics: Metrics,
    known: Cache<Namespace, Arc<Health>>,
    strangers: Cache<Namespace, Arc<Health>>,
}

impl PublicHealth {
    /// Nothing is known yet.
    pub(super) fn new(metrics: Metrics) -> Self {
        let kept = || {
            Cache::builder()
                .max_capacity(PUBLIC_MAX)
                .time_to_idle(PUBLIC_REMEMBERED)
                .build()
        };
        Self {
            metrics,
            known: kept(),
            strangers: kept(),
        }
    }

    /// How the endpoint of `namespace` is doing, which is of this `standing`, at `host`.
    pub(super) fn of(
        &self,
        standing: Standing,
        namespace: &Namespace,
        label: &str,
        host: &str,
    ) -> Arc<Health> {
        let kept = match standing {
            Standing::Known => &self.known,
            Standing::Stranger => &self.strangers,
        };
        let make = || Arc::new(Health::new(namespace, label, host, &self.metrics));
        let entry = kept.entry_by_ref(namespace).or_insert_with(make);
        entry.into_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_cannot_is_a_failure() {
        let sign = |status: u16| {
            let status = StatusCode::from_u16(status).expect("a status");
            sign_of_answer(status, &HeaderMap::new(), SystemTime::UNIX_EPOCH)
        };
        for status in [200, 206, 301, 304, 307, 400, 401, 403, 404, 405, 416, 501] {
            assert_eq!(sign(status), Sign::Answer, "{status}");
        }
        let failure = |cause| Sign::Failure { cause, wait: None };
        assert_eq!(sign(429), failure(Cause::RateLimited));
        for status in [408, 500, 502, 503, 504, 521] {
            assert_eq!(sign(status), failure(Cause::Unavailable), "{status}");
        }
    }

    #[test]
    fn a_head_that_is_dropped_says_nothing() {
        let dropped = Error::dropped();
        assert_eq!(sign_of_error(&Method::HEAD, &dropped), None);
        assert!(sign_of_error(&Method::GET, &dropped).is_some());
    }

    #[test]
    fn the_health_of_a_public_registry_is_remembered() {
        let public = PublicHealth::new(Metrics::new());
        let of =
            |standing, name: &str| public.of(standing, &name.parse().expect("a namespace"), "", "");
        let first = of(Standing::Known, "ghcr.io");
        assert!(Arc::ptr_eq(&first, &of(Standing::Known, "ghcr.io")));
        assert!(!Arc::ptr_eq(&first, &of(Standing::Known, "quay.io")));
    }
}
