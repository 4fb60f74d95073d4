//! The way to each upstream: its own proxy, its own credentials, its own certificates.

mod certificates;
mod identity;
mod kept_elsewhere;
mod kinds;
mod mirrors;
mod proxies;
mod proxy;
mod socks;
