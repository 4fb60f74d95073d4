//! What the tests stand on: a scripted upstream, the mirror, and a client that sees every byte.
//!
//! Everything waits on signals, nothing sleeps. A test runs on one thread, upstream, mirror and client in turn.

pub mod world;

pub mod bucket;
pub mod log;
pub mod mirror;
pub mod upstream;

pub mod answers;
pub mod client;

pub mod clock;
pub mod content;
pub mod gate;
pub mod secrets;
