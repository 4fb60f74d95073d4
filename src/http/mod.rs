//! What the server and whoever answers its requests say to each other. Knows no socket and no OCI.

mod body;
pub use body::{Body, BodyError, End};

mod service;
pub use service::{Caller, Rejection, Service};
