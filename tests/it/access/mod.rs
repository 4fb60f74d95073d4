//! Who may read what is cached: by right, whether or not the bytes are here.

pub mod members;

mod callers;
mod clients;
mod links;
mod provenance;
mod readers;
mod table;
