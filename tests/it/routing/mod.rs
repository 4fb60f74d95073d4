//! The ways in: by listener, by host name, and by a list of default registries; and what of a registry is let through.

mod homes;
mod hosts;
mod listeners;
mod repositories;
mod search;
