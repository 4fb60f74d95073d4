//! One HTTP port in front of every container registry.

pub mod storage;
pub mod upstream;

pub mod clock;
pub mod oci;
pub mod single_flight;
