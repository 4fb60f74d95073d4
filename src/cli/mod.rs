//! What surrounds the mirror while it runs as a command: its log, and the signals that end it or tell it to look at its
//! configuration.

pub mod logging;

mod signals;
pub use signals::{Hangup, Signals};
