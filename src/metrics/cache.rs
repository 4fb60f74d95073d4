//! What the directory holds, and what goes from it.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{KindLabel, Metrics};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EvictedLabel {
    reason: &'static str,
}

/// The metrics of the directory.
#[derive(Debug, Default)]
pub(super) struct CacheMetrics {
    bytes: Gauge<u64, AtomicU64>,
    limit_bytes: Gauge<u64, AtomicU64>,
    objects: Family<KindLabel, Gauge<u64, AtomicU64>>,
    evicted: Family<EvictedLabel, Counter>,
    evicted_bytes: Family<EvictedLabel, Counter>,
    oldest_seconds: Gauge<u64, AtomicU64>,
    scrubbed_bytes: Counter,
    scrub_mismatches: Counter,
}

impl CacheMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "cache_bytes",
            "What the stored blobs take on disk, in bytes",
            self.bytes.clone(),
        );
        registry.register(
            "cache_limit_bytes",
            "What they may take: as configured, and less where others fill the disk",
            self.limit_bytes.clone(),
        );
        registry.register(
            "cache_objects",
            "What is stored, by kind",
            self.objects.clone(),
        );
        registry.register(
            "cache_evicted",
            "Blobs that were removed for room, by what was short",
            self.evicted.clone(),
        );
        registry.register(
            "cache_evicted_bytes",
            "What removed blobs took on disk",
            self.evicted_bytes.clone(),
        );
        registry.register(
            "cache_oldest_seconds",
            "Time since the last use of the blob that nobody has used for longest",
            self.oldest_seconds.clone(),
        );
        registry.register(
            "scrubbed_bytes",
            "Bytes of stored blobs that were read once more, to see whether they are what they were",
            self.scrubbed_bytes.clone(),
        );
        registry.register(
            "scrub_mismatches",
            "Stored blobs that were not, and were moved to the quarantine",
            self.scrub_mismatches.clone(),
        );
    }
}

impl Metrics {
    /// The stored blobs take so many bytes on disk.
    pub fn cache_bytes(&self, bytes: u64) {
        self.0.cache.bytes.set(bytes);
    }

    /// The stored blobs may take so many bytes.
    pub fn cache_limit_bytes(&self, bytes: u64) {
        self.0.cache.limit_bytes.set(bytes);
    }

    /// So many objects of a kind are stored.
    pub fn cache_objects(&self, kind: &'static str, n_objects: usize) {
        let objects = self
            .0
            .cache
            .objects
            .get_or_create_owned(&KindLabel { kind });
        objects.set(n_objects as u64);
    }

    /// A blob of so many bytes was removed for room.
    pub fn evicted(&self, reason: &'static str, bytes: u64) {
        let label = EvictedLabel { reason };
        self.0.cache.evicted.get_or_create(&label).inc();
        self.0
            .cache
            .evicted_bytes
            .get_or_create(&label)
            .inc_by(bytes);
    }

    /// So many bytes of stored blobs were read once more.
    pub fn scrubbed_bytes(&self, bytes: u64) {
        self.0.cache.scrubbed_bytes.inc_by(bytes);
    }

    /// A stored blob was not what it was.
    pub fn scrub_mismatch(&self) {
        self.0.cache.scrub_mismatches.inc();
    }

    /// The blob that nobody has used for longest was used so many seconds ago.
    pub fn cache_oldest_seconds(&self, seconds: u64) {
        self.0.cache.oldest_seconds.set(seconds);
    }
}
