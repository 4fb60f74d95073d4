//! One request to an upstream, counted and timed, and how upstreams are doing.

use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;

use super::{Counted, Metrics, UpstreamLabel};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct UpstreamRequestLabels {
    upstream: String,
    method: &'static str,
    code: String,
}

/// A request to an upstream, from when it is sent until its body is read or given up: until this is dropped.
#[derive(Debug)]
#[must_use = "the request is over when this is dropped"]
pub struct UpstreamRequest {
    metrics: Metrics,
    label: UpstreamLabel,
    method: &'static str,
    started: Instant,
    is_answered: bool,
    /// Looked up once, so that a chunk of a body costs one addition.
    bytes: Counter,
}

impl Metrics {
    /// A request by `method` is sent to an upstream now.
    pub fn upstream_request(&self, upstream: &str, method: &'static str) -> UpstreamRequest {
        let label = UpstreamLabel::new(upstream);
        UpstreamRequest {
            bytes: self.0.upstream_bytes.get_or_create_owned(&label),
            metrics: self.clone(),
            label,
            method,
            started: Instant::now(),
            is_answered: false,
        }
    }

    /// An endpoint of an upstream is left alone for as long as the returned value lives.
    pub fn upstream_breaker_open(&self, upstream: &str) -> Counted {
        let label = UpstreamLabel::new(upstream);
        Counted::new(&self.0.upstream_breakers_open.get_or_create_owned(&label))
    }

    /// A request was not sent, because the endpoint is left alone.
    pub fn upstream_refusal(&self, upstream: &str) {
        self.0
            .upstream_refusals
            .get_or_create(&UpstreamLabel::new(upstream))
            .inc();
    }

    /// An upstream said that it will answer so many more requests.
    pub fn upstream_quota(&self, upstream: &str, remaining: u64) {
        self.0
            .upstream_quota
            .get_or_create(&UpstreamLabel::new(upstream))
            .set(i64::try_from(remaining).unwrap_or(i64::MAX));
    }
}

impl UpstreamRequest {
    /// The upstream answered with the head of a response, and this status.
    pub fn answered(&mut self, code: u16) {
        self.is_answered = true;
        self.count(Some(code));
        let seconds = &self.metrics.0.upstream_first_byte_seconds;
        let waited = self.started.elapsed().as_secs_f64();
        seconds.get_or_create(&self.label).observe(waited);
    }

    /// So many bytes of the body came.
    pub fn received(&self, bytes: u64) {
        self.bytes.inc_by(bytes);
    }

    fn count(&self, code: Option<u16>) {
        let labels = UpstreamRequestLabels {
            upstream: self.label.upstream.clone(),
            method: self.method,
            code: code_label(code),
        };
        let requests = &self.metrics.0.upstream_requests;
        requests.get_or_create(&labels).inc();
    }
}

impl Drop for UpstreamRequest {
    fn drop(&mut self) {
        if !self.is_answered {
            self.count(None);
        }
        let seconds = &self.metrics.0.upstream_request_seconds;
        let took = self.started.elapsed().as_secs_f64();
        seconds.get_or_create(&self.label).observe(took);
    }
}

/// At most 502 values, whatever an upstream sends.
fn code_label(code: Option<u16>) -> String {
    match code {
        Some(code @ 100..=599) => code.to_string(),
        Some(_) => "other".to_owned(),
        None => "none".to_owned(),
    }
}
