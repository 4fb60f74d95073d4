//! Whose certificates are believed.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// The certificate authorities every upstream is checked against: the system's (`SSL_CERT_FILE` and `SSL_CERT_DIR`
/// included), else the ones compiled in, because an image made from scratch has none.
pub(super) fn usual_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some certificate authorities of the system cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// `roots` and the certificates in `pem`.
///
/// # Errors
/// Why `pem` is of no use: no certificate in it, or one that is none.
pub(super) fn with_authorities(roots: &RootCertStore, pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = roots.clone();
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.len() == before {
        return Err("it holds no certificate".to_owned());
    }
    Ok(roots)
}

/// A TLS client that believes `roots` alone.
///
/// # Errors
/// When the provider does not do TLS 1.2 and 1.3: never, in practice.
pub(super) fn client(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let refuse = |pem: &[u8]| with_authorities(&RootCertStore::empty(), pem).is_err();
        assert!(refuse(b""));
        assert!(refuse(b"not a certificate"));
        assert!(refuse(
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        ));
    }

    #[test]
    fn a_certificate_authority_is_added_to_the_others() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let parameters = rcgen::CertificateParams::new(vec!["ca.example".to_owned()]);
        let certificate = parameters.expect("parameters").self_signed(&key);
        let pem = certificate.expect("a certificate").pem();
        let roots = with_authorities(&RootCertStore::empty(), pem.as_bytes());
        assert_eq!(roots.expect("one certificate").len(), 1);
    }
}
