//! Who a client is to the mirror.

use std::fmt;
use std::sync::Arc;

/// A client that has proven who it is: by its password now, by its certificate where a listener asks for one. Which of
/// the two is no matter to the rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity(Arc<str>);

impl Identity {
    /// The client of this name. For whoever has proof of it.
    pub fn proven(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
