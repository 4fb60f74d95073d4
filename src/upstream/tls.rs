//! Whose certificates are believed.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::ClientIdentity;

/// Where distributions keep the certificate authorities of the system: Debian, Alpine and Arch; Fedora and Red Hat;
/// SUSE; the rest.
const SYSTEM_STORES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The certificate authorities every upstream is checked against: the system's, or what `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` name in their place. Where the system has none, as in an image made from scratch, the ones compiled in
/// come as well: else one more authority would put out all others.
pub(super) fn usual_roots() -> RootCertStore {
    let has_system_store = SYSTEM_STORES.iter().any(|store| Path::new(store).exists());
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some certificate authorities of the system cannot be read");
    }
    roots_of(found.certs, has_system_store)
}

/// `found`, and the ones compiled in where they are needed.
fn roots_of(found: Vec<CertificateDer<'static>>, has_system_store: bool) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found);
    if roots.is_empty() || !has_system_store {
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

/// A TLS client for one upstream: it shows `identity` where it is asked for a certificate, and takes what the hosts in
/// `believed` show, whoever vouches for it.
///
/// # Errors
/// When `identity` is of no use.
pub(super) fn client_of(
    roots: RootCertStore,
    identity: Option<&ClientIdentity>,
    believed: &[String],
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = if believed.is_empty() {
        builder.with_root_certificates(roots)
    } else {
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let usual = usual
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let verifier = Believing {
            hosts: believed.to_owned(),
            usual,
        };
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
    };
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(ClientIdentity { chain, key }) => {
            builder.with_client_auth_cert(chain.clone(), key.clone_key())
        }
    }
}

/// Takes what some hosts show, and judges all others as usual.
#[derive(Debug)]
struct Believing {
    /// Names, and addresses without brackets.
    hosts: Vec<String>,
    usual: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = name.to_str();
        if self.hosts.iter().any(|host| **host == *shown) {
            return Ok(ServerCertVerified::assertion());
        }
        self.usual
            .verify_server_cert(certificate, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
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

    fn authority() -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().expect("a key");
        let parameters = rcgen::CertificateParams::new(vec!["ca.example".to_owned()]);
        let certificate = parameters.expect("parameters").self_signed(&key);
        certificate.expect("a certificate")
    }

    #[test]
    fn a_certificate_authority_is_added_to_the_others() {
        let roots = with_authorities(&RootCertStore::empty(), authority().pem().as_bytes());
        assert_eq!(roots.expect("one certificate").len(), 1);
    }

    #[test]
    fn the_roots_compiled_in_stay_where_the_system_has_none() {
        let compiled_in = webpki_roots::TLS_SERVER_ROOTS.len();
        let one = || vec![authority().der().clone()];
        assert_eq!(roots_of(one(), true).len(), 1);
        assert_eq!(roots_of(one(), false).len(), 1 + compiled_in);
        assert_eq!(roots_of(Vec::new(), true).len(), compiled_in);
        assert_eq!(roots_of(Vec::new(), false).len(), compiled_in);
    }
}
