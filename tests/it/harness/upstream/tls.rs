//! Certificates for upstreams that speak TLS.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// A certificate authority of a test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for some hosts, and its key.
    pub fn certify(&self, hosts: &[&str]) -> (Certificate, KeyPair) {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        self.sign(&CertificateParams::new(hosts).expect("names"))
    }

    /// The same, good from the first day of one year to that of another.
    pub fn certify_between(
        &self,
        hosts: &[&str],
        [from, until]: [i32; 2],
    ) -> (Certificate, KeyPair) {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        self.sign(&params)
    }

    /// A certificate for a client of this name, and its key.
    pub fn certify_client(&self, name: &str) -> (Certificate, KeyPair) {
        self.certify_client_between(name, [2020, 2090])
    }

    /// The same, good from the first day of one year to that of another.
    pub fn certify_client_between(
        &self,
        name: &str,
        [from, until]: [i32; 2],
    ) -> (Certificate, KeyPair) {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate, key)
    }

    /// The server's side of TLS for a host, HTTP/1.1 only.
    pub fn acceptor(&self, host: &str) -> TlsAcceptor {
        let identity = self.certify(&[host]);
        acceptor(&identity, WebPkiClientVerifier::no_client_auth())
    }

    /// The same for servers that let in only whoever has a certificate of this authority.
    pub fn demanding_acceptor(&self, host: &str) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.pem.as_bytes());
        roots.add(root.expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let identity = self.certify(&[host]);
        acceptor(&identity, verifier.build().expect("a verifier"))
    }
}

/// The server's side of TLS with this certificate, HTTP/1.1 only.
pub fn acceptor(
    (certificate, key): &(Certificate, KeyPair),
    clients: Arc<dyn ClientCertVerifier>,
) -> TlsAcceptor {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's versions")
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("the key of the certificate");
    TlsAcceptor::from(Arc::new(config))
}
