//! One HTTP port in front of every container registry.

pub mod cli;
pub mod config;

pub mod upstream;

pub mod clock;
pub mod oci;
pub mod single_flight;
