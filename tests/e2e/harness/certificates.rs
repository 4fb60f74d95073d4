//! A certificate authority for one test, and a server certificate for loopback signed by it.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

/// A registry that nobody configured and no table knows: RFC 2606 reserves the name.
pub(crate) const STRANGER: &str = "registry.stranger.example.org";

/// Paths of PEM files.
pub(crate) struct Certificates {
    /// A directory as skopeo takes it: it holds `ca.crt`.
    pub(crate) directory: PathBuf,
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// Makes a new authority and a certificate for `127.0.0.1` and [`STRANGER`] below `directory`.
    pub(crate) fn make(directory: &Path) -> Self {
        let directory = directory.join("certificates");
        fs::create_dir(&directory).unwrap();

        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // OpenSSL finds an issuer by its name, so the two certificates need different ones.
        params
            .distinguished_name
            .push(DnType::CommonName, "entrepot test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();

        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned(), STRANGER.to_owned()])
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();

        let write = |name: &str, pem: String| {
            let path = directory.join(name);
            fs::write(&path, pem).unwrap();
            path
        };
        Self {
            authority: write("ca.crt", authority.pem()),
            certificate: write("server.pem", certificate.pem()),
            key: write("server-key.pem", key.serialize_pem()),
            directory,
        }
    }
}
