//! Whole conversations with registries on loopback.
