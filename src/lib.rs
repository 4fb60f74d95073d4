//! One HTTP port in front of every container registry.

pub mod config;

pub mod server;

pub mod storage;
pub mod upstream;

pub mod clock;
pub mod metrics;
pub mod oci;
pub mod single_flight;
