//! Every metric and label, declared once.
//!
//! Labels are bounded: the words are the closed sets of the code that reports them, and an `upstream` is what
//! `upstream::Directory::label` gives, never text of a client.

use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

mod answers;
pub use answers::Answered;
use answers::{Answers, Tally};

mod cache;
use cache::CacheMetrics;

mod shared;
use shared::SharedMetrics;

mod upstream;
pub use upstream::UpstreamRequest;
use upstream::UpstreamRequestLabels;

#[cfg(test)]
mod tests;

/// From a hit in memory to a layer over a slow link, in seconds.
const REQUEST_SECONDS: [f64; 12] = [
    0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 1800.0,
];

/// From a registry next door to the longest wait for a head, in seconds.
const FIRST_BYTE_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The counts and times of this process. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<KindLabel, Histogram, fn() -> Histogram>,
    served_bytes: Family<ServedLabels, Counter>,
    answers: Answers,
    upstream_requests: Family<UpstreamRequestLabels, Counter>,
    upstream_first_byte_seconds: Family<UpstreamLabel, Histogram, fn() -> Histogram>,
    upstream_request_seconds: Family<UpstreamLabel, Histogram, fn() -> Histogram>,
    upstream_bytes: Family<UpstreamLabel, Counter>,
    upstream_retries: Family<ReasonLabel, Counter>,
    upstream_breakers_open: Family<UpstreamLabel, Gauge>,
    upstream_refusals: Family<UpstreamLabel, Counter>,
    upstream_quota: Family<UpstreamLabel, Gauge>,
    fills: Gauge,
    fill_waiters: Gauge,
    storage_errors: Family<OperationLabel, Counter>,
    cache: CacheMetrics,
    shared: SharedMetrics,
    digest_mismatches: Family<UpstreamLabel, Counter>,
    connections: Gauge,
    connections_accepted: Counter,
    accept_errors: Family<ReasonLabel, Counter>,
    client_refusals: Counter,
    bodies: Family<EndLabel, Counter>,
    /// The one of them that nearly all are.
    whole_bodies: Counter,
    panics: Counter,
    config_reloads: Family<ResultLabel, Counter>,
    config_loaded: Gauge,
    /// Empty where nobody looks at a node.
    node_mirror_configured: Family<NodeLabel, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    upstream: String,
    kind: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServedLabels {
    upstream: String,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabel {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    op: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    mirror: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabel {
    end: &'static str,
}

/// How a body ends that was given to the end.
const WHOLE: &str = "ended";

/// One of the things a gauge counts: it is there as long as this value is.
#[derive(Debug)]
#[must_use = "the gauge goes down again when this is dropped"]
pub struct Counted(Gauge);

impl Metrics {
    /// The media type of [`Metrics::render`].
    pub const CONTENT_TYPE: &'static str =
        "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Metrics that all stand at zero.
    pub fn new() -> Self {
        Self(Arc::new(Inner::new()))
    }

    /// All metrics in the `OpenMetrics` 1.0 text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail, and every label here has an encoding.
        if let Err(error) = encode(&mut text, &self.0.registry) {
            tracing::error!(%error, "the metrics could not be rendered");
        }
        text
    }

    /// A client's request was answered.
    pub fn answered(&self, answered: &Answered<'_>) {
        self.0.answers.count(answered, |key| {
            let labels = RequestLabels {
                upstream: key.upstream.to_owned(),
                kind: key.kind,
                result: key.result,
            };
            let kind = KindLabel { kind: key.kind };
            Tally {
                requests: self.0.requests.get_or_create(&labels).clone(),
                seconds: self.0.request_seconds.get_or_create(&kind).clone(),
                bytes: key.source.map(|source| {
                    let upstream = key.upstream.to_owned();
                    let labels = ServedLabels { upstream, source };
                    self.0.served_bytes.get_or_create(&labels).clone()
                }),
            }
        });
    }

    /// A request to an upstream is made again.
    pub fn upstream_retry(&self, reason: &'static str) {
        self.0
            .upstream_retries
            .get_or_create(&ReasonLabel { reason })
            .inc();
    }

    /// A fill is under way for as long as the returned value lives.
    pub fn fill(&self) -> Counted {
        Counted::new(&self.0.fills)
    }

    /// A reader waits for bytes of a fill for as long as the returned value lives.
    pub fn fill_waiter(&self) -> Counted {
        Counted::new(&self.0.fill_waiters)
    }

    /// The storage failed at `op`.
    pub fn storage_error(&self, op: &'static str) {
        self.0
            .storage_errors
            .get_or_create(&OperationLabel { op })
            .inc();
    }

    /// An upstream sent bytes that are not those of the digest asked for.
    pub fn digest_mismatch(&self, upstream: &str) {
        self.0
            .digest_mismatches
            .get_or_create(&UpstreamLabel::new(upstream))
            .inc();
    }

    /// A client's connection was accepted, and is open for as long as the returned value lives.
    pub fn connection(&self) -> Counted {
        self.0.connections_accepted.inc();
        Counted::new(&self.0.connections)
    }

    /// A connection could not be accepted, or had to wait in the backlog because too many were open.
    pub fn accept_error(&self, reason: &'static str) {
        self.0
            .accept_errors
            .get_or_create(&ReasonLabel { reason })
            .inc();
    }

    /// A request was refused because its client has as much under way as one may have.
    pub fn client_refusal(&self) {
        self.0.client_refusals.inc();
    }

    /// The body of a response came to its end; `end` is `ended`, `failed`, `unreadable` or
    /// `cancelled`.
    pub fn body(&self, end: &'static str) {
        if end == WHOLE {
            self.0.whole_bodies.inc();
        } else {
            self.0.bodies.get_or_create(&EndLabel { end }).inc();
        }
    }

    /// Handling a request panicked: a bug.
    pub fn panic(&self) {
        self.0.panics.inc();
    }

    /// The configuration was read again, and taken on or not.
    pub fn config_reload(&self, is_taken_on: bool) {
        let result = if is_taken_on { "ok" } else { "failed" };
        self.0
            .config_reloads
            .get_or_create(&ResultLabel { result })
            .inc();
    }

    /// The configuration that is in force was taken on at `time`.
    pub fn config_loaded(&self, time: SystemTime) {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since_epoch.unwrap_or_default().as_secs();
        self.0
            .config_loaded
            .set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Whether the node that this process looks at pulls through `mirror`, the URL that it was told.
    pub fn node_mirror_configured(&self, mirror: &str, is_configured: bool) {
        let labels = NodeLabel {
            mirror: mirror.to_owned(),
        };
        self.0
            .node_mirror_configured
            .get_or_create(&labels)
            .set(i64::from(is_configured));
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Inner ===

impl Inner {
    fn new() -> Self {
        let bodies = Family::<EndLabel, Counter>::default();
        let whole_bodies = bodies.get_or_create_owned(&EndLabel { end: WHOLE });
        let mut inner = Self {
            registry: Registry::with_prefix("entrepot"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            served_bytes: Family::default(),
            answers: Answers::default(),
            upstream_requests: Family::default(),
            upstream_first_byte_seconds: Family::new_with_constructor(|| {
                Histogram::new(FIRST_BYTE_SECONDS)
            }),
            upstream_request_seconds: Family::new_with_constructor(|| {
                Histogram::new(REQUEST_SECONDS)
            }),
            upstream_bytes: Family::default(),
            upstream_retries: Family::default(),
            upstream_breakers_open: Family::default(),
            upstream_refusals: Family::default(),
            upstream_quota: Family::default(),
            fills: Gauge::default(),
            fill_waiters: Gauge::default(),
            storage_errors: Family::default(),
            cache: CacheMetrics::default(),
            shared: SharedMetrics::default(),
            digest_mismatches: Family::default(),
            connections: Gauge::default(),
            connections_accepted: Counter::default(),
            accept_errors: Family::default(),
            client_refusals: Counter::default(),
            whole_bodies,
            bodies,
            panics: Counter::default(),
            config_reloads: Family::default(),
            config_loaded: Gauge::default(),
            node_mirror_configured: Family::default(),
        };
        inner.register();
        inner
    }

    /// Names and help texts. The encoder adds `_total` to counters and `_info` to the build.
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "build",
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "requests",
            "Requests of clients, by outcome",
            self.requests.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "Time from the head of a request to the end of its answer",
            self.request_seconds.clone(),
        );
        registry.register(
            "served_bytes",
            "Body bytes sent to clients",
            self.served_bytes.clone(),
        );
        registry.register(
            "upstream_requests",
            "Requests to upstreams, by status; none where no answer came, or nobody waited for it",
            self.upstream_requests.clone(),
        );
        registry.register(
            "upstream_ttfb_seconds",
            "Time until an upstream answered with the head of a response",
            self.upstream_first_byte_seconds.clone(),
        );
        registry.register(
            "upstream_request_duration_seconds",
            "Time until the answer of an upstream was read or given up",
            self.upstream_request_seconds.clone(),
        );
        registry.register(
            "upstream_bytes",
            "Body bytes received from upstreams",
            self.upstream_bytes.clone(),
        );
        registry.register(
            "upstream_retries",
            "Requests to upstreams that were made again",
            self.upstream_retries.clone(),
        );
        registry.register(
            "upstream_breakers_open",
            "Endpoints of upstreams that are left alone because they fail or limit the rate",
            self.upstream_breakers_open.clone(),
        );
        registry.register(
            "upstream_refusals",
            "Requests that were not sent because an endpoint is left alone",
            self.upstream_refusals.clone(),
        );
        registry.register(
            "upstream_quota_remaining",
            "How many requests an upstream said that it will still answer",
            self.upstream_quota.clone(),
        );
        registry.register(
            "inflight_fills",
            "Blobs on their way in",
            self.fills.clone(),
        );
        registry.register(
            "fill_waiters",
            "Readers that wait for bytes of a blob on its way in",
            self.fill_waiters.clone(),
        );
        registry.register(
            "storage_errors",
            "Operations the storage failed at",
            self.storage_errors.clone(),
        );
        self.cache.register(registry);
        self.shared.register(registry);
        registry.register(
            "digest_mismatch",
            "Bodies of upstreams with other bytes than were asked for",
            self.digest_mismatches.clone(),
        );
        registry.register(
            "connections",
            "Open connections of clients",
            self.connections.clone(),
        );
        registry.register(
            "connections_accepted",
            "Connections of clients that were accepted",
            self.connections_accepted.clone(),
        );
        registry.register(
            "accept_errors",
            "Times that accepting a connection failed or had to wait",
            self.accept_errors.clone(),
        );
        registry.register(
            "client_refusals",
            "Requests that were refused because their client had too much under way",
            self.client_refusals.clone(),
        );
        registry.register(
            "bodies",
            "Bodies of responses, by how they ended",
            self.bodies.clone(),
        );
        registry.register(
            "panics",
            "Requests whose handling panicked",
            self.panics.clone(),
        );
        registry.register(
            "config_reloads",
            "Times the configuration was read again, by what came of it: ok or failed",
            self.config_reloads.clone(),
        );
        registry.register(
            "config_loaded_timestamp_seconds",
            "When the configuration that is in force was taken on",
            self.config_loaded.clone(),
        );
        registry.register(
            "node_mirror_configured",
            "Whether the runtime of this node pulls through the mirror, for every registry",
            self.node_mirror_configured.clone(),
        );
    }
}

// === impl UpstreamLabel ===

impl UpstreamLabel {
    fn new(upstream: &str) -> Self {
        Self {
            upstream: upstream.to_owned(),
        }
    }
}

// === impl Counted ===

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
