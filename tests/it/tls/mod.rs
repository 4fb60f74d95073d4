//! Listeners that speak TLS, beside one that does not.

use std::path::PathBuf;

use rcgen::{Certificate, KeyPair};

use crate::harness::mirror::Setup;

pub mod client;

mod certificates;
mod clients;
mod listeners;
mod replaced;

/// Writes a certificate and its key beside the configuration; gives their paths.
pub fn files(
    setup: &Setup,
    name: &str,
    (certificate, key): &(Certificate, KeyPair),
) -> [PathBuf; 2] {
    [
        setup.file(&format!("{name}.crt"), &certificate.pem()),
        setup.file(&format!("{name}.key"), &key.serialize_pem()),
    ]
}

/// With one more listener, that speaks TLS with these keys of `tls`.
pub fn listening(setup: Setup, keys: &str) -> Setup {
    setup.listen(&format!(
        "{{ address: \"127.0.0.1:0\", tls: {{ {keys} }} }}"
    ))
}

/// The keys of `tls` for one certificate.
pub fn pair([certificate, key]: &[PathBuf; 2]) -> String {
    format!(
        "certificate: '{}', key: '{}'",
        certificate.display(),
        key.display()
    )
}
