//! What the shared tier is asked and given.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Metrics, ReasonLabel};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SharedRequestLabels {
    op: &'static str,
    result: &'static str,
}

/// The metrics of the shared tier.
#[derive(Debug, Default)]
pub(super) struct SharedMetrics {
    up: Gauge,
    requests: Family<SharedRequestLabels, Counter>,
    received_bytes: Counter,
    sent_bytes: Counter,
    waiting: Gauge<u64, AtomicU64>,
    dropped: Family<ReasonLabel, Counter>,
}

impl SharedMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "shared_up",
            "Whether the shared tier is asked: 0 while it is left alone because it fails, and where there is none",
            self.up.clone(),
        );
        registry.register(
            "shared_requests",
            "Questions to the shared tier, by what was asked and what came of it",
            self.requests.clone(),
        );
        registry.register(
            "shared_received_bytes",
            "Bytes of blobs that came from the shared tier",
            self.received_bytes.clone(),
        );
        registry.register(
            "shared_sent_bytes",
            "Bytes that were uploaded to the shared tier",
            self.sent_bytes.clone(),
        );
        registry.register(
            "shared_waiting",
            "What waits to be uploaded to the shared tier, or is being",
            self.waiting.clone(),
        );
        registry.register(
            "shared_dropped",
            "What was not uploaded to the shared tier after all, by why",
            self.dropped.clone(),
        );
    }
}

impl Metrics {
    /// Whether the shared tier is asked.
    pub fn shared_is_up(&self, is_up: bool) {
        self.0.shared.up.set(i64::from(is_up));
    }

    /// The shared tier was asked something.
    pub fn shared_request(&self, op: &'static str, result: &'static str) {
        let labels = SharedRequestLabels { op, result };
        self.0.shared.requests.get_or_create(&labels).inc();
    }

    /// So many bytes of a blob came from the shared tier.
    pub fn shared_received(&self, bytes: u64) {
        self.0.shared.received_bytes.inc_by(bytes);
    }

    /// So many bytes were uploaded.
    pub fn shared_sent(&self, bytes: u64) {
        self.0.shared.sent_bytes.inc_by(bytes);
    }

    /// So much waits to be uploaded, or is being.
    pub fn shared_waiting(&self, n_parcels: usize) {
        self.0.shared.waiting.set(n_parcels as u64);
    }

    /// Something is not uploaded after all.
    pub fn shared_dropped(&self, reason: &'static str) {
        self.0
            .shared
            .dropped
            .get_or_create(&ReasonLabel { reason })
            .inc();
    }
}
