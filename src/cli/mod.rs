//! What surrounds the mirror while it runs as a command: its log, the signals that end it or tell it to look at its
//! configuration, and the commands beside it.

pub mod health;
pub mod hosts;
pub mod logging;
pub mod node;
pub mod probe;
pub mod upkeep;

mod lines;
mod signals;
pub use signals::{Hangup, Signals};
