//! The built binary, run as a user runs it, with the clients people use.
//!
//! Everything is real: containerd, Docker Engine, podman and skopeo as Debian packages them, Debian's `docker-registry`
//! over TLS as the upstream, and images made from the files of the machine. Everything listens on loopback, lives in
//! a directory of its own and is ended by its process id. `tests/run` installs what is needed.
//!
//! Clients that need privileges are in `as_root`; the rest runs for anybody.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its harness too"
)]

mod harness;

mod rig;

mod command_line;

mod skopeo;

mod credentials;
mod crowds;
mod health;
mod node;
mod overlap;
mod reload;
mod replicas;
mod restart;
mod siege;
mod strangers;
mod upkeep;

mod as_root;
