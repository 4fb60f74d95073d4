//! The integration suite: one binary, in reading order. A real listener, a real client and a real upstream that is
//! scripted and counts, all in this process and on loopback.

#![expect(
    clippy::expect_used,
    reason = "the harness is test code throughout: an expectation that fails is a failed test"
)]
#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod harness;

mod architecture;
mod scripted_upstream;

mod conformance;

mod at_hand;

mod bounds;
mod breaker;
mod concurrent_pulls;
mod own_word;
mod pieces;
mod shared_fills;
mod unreachable;
mod upstream_failures;

mod routing;
mod security;

mod access;

mod registries;

mod freshness;
mod headers;
mod import;
mod inventory;
mod listings;

mod budget;
mod damage;
mod exact;
mod reload;
mod repeated;
mod shared_tier;
mod tls;
mod ways_out;

mod restart;
mod scrub;
mod shutdown;

mod hosts;
mod node;
