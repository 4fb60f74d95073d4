//! Which policy keeps the right blobs: byte and request hit ratios over a synthetic trace of image pulls, as a table.
//!
//! `cargo run --example eviction`

#![expect(clippy::print_stdout, reason = "the table is what this is for")]

mod rivals;
mod trace;

#[cfg_attr(not(test), expect(dead_code, reason = "a restart is not simulated"))]
#[path = "../../src/cache/evict/policy/mod.rs"]
mod policy;

use std::collections::HashMap;

use policy::Policy;
use rivals::{Fifo, Lru};
use trace::{Request, trace};

/// Budgets, in hundredths of all bytes that are ever asked for.
const BUDGETS: [u64; 5] = [2, 5, 10, 20, 40];

/// What decides which blob goes.
trait Evicts {
    /// A blob that is kept is asked for.
    fn hit(&mut self, request: &Request);
    /// A blob comes in.
    fn insert(&mut self, request: &Request);
    /// Takes out what goes next; nothing, where nothing may go.
    fn evict(&mut self, now: u32) -> Option<(u32, u64)>;
}

impl Evicts for Policy<u32> {
    fn hit(&mut self, request: &Request) {
        self.used(&request.blob, request.at);
    }

    fn insert(&mut self, request: &Request) {
        Self::insert(self, request.blob, request.bytes, request.at);
    }

    fn evict(&mut self, now: u32) -> Option<(u32, u64)> {
        let spared = now.saturating_sub(60)..now + 60;
        let victim = Self::evict(self, &spared, |_| false)?;
        Some((victim.key, victim.bytes))
    }
}

/// The part of bytes and of requests that need not go upstream, in hundredths.
#[derive(Debug, Clone, Copy)]
struct Ratios {
    bytes: f64,
    requests: f64,
}

/// Replays a trace. A blob that finds no room is not kept, as in the mirror.
#[expect(clippy::cast_precision_loss, reason = "ratios of large numbers")]
fn replay(trace: &[Request], budget: u64, evicts: &mut dyn Evicts) -> Ratios {
    let mut kept: HashMap<u32, u64> = HashMap::new();
    let mut taken = 0;
    let (mut hits, mut hit_bytes, mut all_bytes) = (0_u64, 0_u64, 0_u64);
    for request in trace {
        all_bytes += request.bytes;
        if kept.contains_key(&request.blob) {
            hits += 1;
            hit_bytes += request.bytes;
            evicts.hit(request);
            continue;
        }
        while taken + request.bytes > budget {
            let Some((blob, bytes)) = evicts.evict(request.at) else {
                break;
            };
            kept.remove(&blob);
            taken -= bytes;
        }
        if taken + request.bytes <= budget {
            kept.insert(request.blob, request.bytes);
            taken += request.bytes;
            evicts.insert(request);
        }
    }
    Ratios {
        bytes: 100.0 * hit_bytes as f64 / all_bytes as f64,
        requests: 100.0 * hits as f64 / trace.len() as f64,
    }
}

/// FIFO, LRU and S3-FIFO on one budget.
fn compare(trace: &[Request], budget: u64) -> [Ratios; 3] {
    [
        replay(trace, budget, &mut Fifo::default()),
        replay(trace, budget, &mut Lru::default()),
        replay(trace, budget, &mut Policy::new()),
    ]
}

/// The bytes of all blobs, each counted once.
fn distinct_bytes(trace: &[Request]) -> u64 {
    let blobs: HashMap<u32, u64> = trace
        .iter()
        .map(|request| (request.blob, request.bytes))
        .collect();
    blobs.values().sum()
}

fn main() {
    let trace = trace();
    let distinct = distinct_bytes(&trace);
    let asked: u64 = trace.iter().map(|request| request.bytes).sum();
    println!(
        "{} requests, {} GiB, of which {} GiB are distinct\n",
        trace.len(),
        asked >> 30,
        distinct >> 30
    );
    println!("| budget | bytes: FIFO | LRU | S3-FIFO | requests: FIFO | LRU | S3-FIFO |");
    println!("|---|---|---|---|---|---|---|");
    for percent in BUDGETS {
        let budget = distinct / 100 * percent;
        let [fifo, lru, ours] = compare(&trace, budget);
        println!(
            "| {percent} % ({} GiB) | {:.1} % | {:.1} % | **{:.1} %** | {:.1} % | {:.1} % | **{:.1} %** |",
            budget >> 30,
            fifo.bytes,
            lru.bytes,
            ours.bytes,
            fifo.requests,
            lru.requests,
            ours.requests
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_no_worse_than_lru_and_fifo_at_any_budget() {
        let trace = trace();
        let distinct = distinct_bytes(&trace);
        for percent in BUDGETS {
            let [fifo, lru, ours] = compare(&trace, distinct / 100 * percent);
            // Half a hundredth is the noise of a trace.
            let worse = |rival: Ratios| {
                ours.bytes < rival.bytes - 0.5 || ours.requests < rival.requests - 0.5
            };
            assert!(
                !worse(fifo) && !worse(lru),
                "{percent} %: {fifo:?} {lru:?} {ours:?}"
            );
        }
    }

    #[test]
    fn the_trace_is_the_same_every_time() {
        let (first, second) = (trace(), trace());
        assert!(first == second);
        assert!(first.is_sorted_by_key(|request| request.at));
    }
}
