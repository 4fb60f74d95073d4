//! Other registries: who they are, what may be sent to them, and how they answer.

mod config;
pub use config::{
    Config, Credential, CredentialEntry, Credentials, Proxies, Secret, UnknownNamespaces,
    UpstreamConfig,
};

mod error;
pub use error::{Error, Silence};
