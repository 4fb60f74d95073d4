//! What surrounds the mirror while it runs as a command: its log, and the signals that end it.

pub mod logging;

mod signals;
pub use signals::Signals;
