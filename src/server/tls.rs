//! What a listener needs to speak TLS: certificates chosen by the name that a client asks for, read again when their
//! files change.
//!
//! A handshake looks at the files first, which is three calls of stat(2) beside a thousandfold of arithmetic. So new
//! connections use what is there now, and those that exist go on with what they have. What cannot be used is told once,
//! and what was there before goes on.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::certificate::Certificates;
use super::validity;
use crate::clock::Clock;
use crate::stamp::Stamp;

/// Longest file that is read, in bytes. A bundle of every public authority is 220 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How long a handshake waits for a look at the files. A file system that takes longer is in trouble; the certificates
/// that are loaded are not.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// The one protocol that is spoken, as ALPN names it (RFC 7301). Clients that offer HTTP/2 as well take this.
const HTTP_1_1: &[u8] = b"http/1.1";

/// The files of a listener that speaks TLS, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates and their keys; never empty. The first is for clients that ask for no name, or for one that none
    /// of them has.
    pub certificates: Vec<CertificateFiles>,
    /// The authorities of client certificates; `None` asks for none.
    pub client_ca: Option<PathBuf>,
    /// Whether clients may come without a certificate, where there are authorities for them.
    pub client_certificate: ClientCertificate,
}

/// A certificate, followed by those that lead to its authority, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificates.
    pub certificate: PathBuf,
    /// The key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// Whether clients may come without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificate {
    /// They may not: there is no connection.
    #[default]
    Required,
    /// They may; whoever shows one shows a good one.
    Optional,
}

/// Why files are of no use for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificate.
    #[error("{0} holds no certificate; it must be a PEM file with -----BEGIN CERTIFICATE-----")]
    NoCertificate(PathBuf),
    /// A file holds a certificate that is none.
    #[error("{0} holds a certificate that cannot be read")]
    Certificate(PathBuf),
    /// A file holds no key that can be used.
    #[error(
        "{0} holds no key; it must be a PEM file with -----BEGIN PRIVATE KEY----- and no password"
    )]
    Key(PathBuf),
    /// The key is that of another certificate.
    #[error("{0} is not the key of the certificate")]
    OtherKey(PathBuf),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// TLS for a listener.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    loaded: Mutex<Loaded>,
    /// Held by the one who looks at the files.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// The files at the last look, whether they could be used or not.
    seen: Vec<Option<Stamp>>,
}

impl TlsFiles {
    /// Reads all files. Blocks.
    ///
    /// # Errors
    /// [`TlsError`], with the file.
    pub fn load(self) -> Result<Tls, TlsError> {
        // Before they are read, so that what changes meanwhile is seen by the next look.
        let seen = self.stamps();
        let config = Arc::new(self.config()?);
        Ok(Tls {
            loaded: Mutex::new(Loaded { config, seen }),
            files: self,
            turn: Arc::default(),
        })
    }

    /// What the operator should know of certificates that can be used. Blocks.
    pub fn warnings(&self, now: SystemTime) -> Vec<String> {
        let warning = |pair: &CertificateFiles| {
            let chain = certificates(&pair.certificate).ok()?;
            let objection = validity::objection(chain.first()?, now)?;
            let path = pair.certificate.display();
            Some(format!("the certificate {path} {objection}"))
        };
        self.certificates.iter().filter_map(warning).collect()
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        let pairs = self.certificates.iter();
        let files = pairs.flat_map(|pair| [&pair.certificate, &pair.key]);
        files
            .chain(&self.client_ca)
            .map(|it| Stamp::of(it))
            .collect()
    }

    fn config(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let keys = self.certificates.iter().map(CertificateFiles::read);
        let certificates = Certificates::new(keys.collect::<Result<_, _>>()?);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(setup)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => builder.with_client_cert_verifier(self.verifier(path)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(config)
    }

    fn verifier(&self, path: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            let added = roots.add(certificate);
            added.map_err(|_| TlsError::Certificate(path.to_owned()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = match self.client_certificate {
            ClientCertificate::Required => builder,
            ClientCertificate::Optional => builder.allow_unauthenticated(),
        };
        let built = builder.build();
        built.map_err(|error| TlsError::Setup(error.to_string()))
    }
}

impl CertificateFiles {
    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.certificate)?;
        let pem = read(&self.key)?;
        let no_key = |_| TlsError::Key(self.key.clone());
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(no_key)?;
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            if matches!(error, rustls::Error::InconsistentKeys(_)) {
                TlsError::OtherKey(self.key.clone())
            } else if matches!(error, rustls::Error::InvalidCertificate(_)) {
                TlsError::Certificate(self.certificate.clone())
            } else {
                // Of no kind that is known, or not what its label says.
                TlsError::Key(self.key.clone())
            }
        })
    }
}

/// The certificates in the file at `path`, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|_| TlsError::Certificate(path.to_owned()))?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        // Asked before it is opened: opening a pipe waits for its other end.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

// === impl Tls ===

impl Tls {
    /// What a handshake that begins now uses.
    ///
    /// Cancel-safe: a look at the files goes on.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<ServerConfig> {
        // Whoever comes while somebody looks takes what is there.
        if let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() {
            let tls = Arc::clone(self);
            let look = spawn_blocking(move || {
                tls.look();
                drop(turn);
            });
            if timeout(LOOK_TIMEOUT, look).await.is_err() {
                tracing::warn!("the file system of the certificates does not answer");
            }
        }
        Arc::clone(&self.lock().config)
    }

    /// Reads the files again if they have changed. Blocks.
    fn look(&self) {
        let seen = self.files.stamps();
        if self.lock().seen == seen {
            return;
        }
        let outcome = self.files.config();
        let mut loaded = self.lock();
        loaded.seen = seen;
        let certificate = self.files.certificates.first();
        let certificate = certificate.map(|pair| pair.certificate.display());
        match outcome {
            Ok(config) => {
                loaded.config = Arc::new(config);
                tracing::info!(
                    certificate = certificate.map(tracing::field::display),
                    "certificates were read again"
                );
                for warning in self.files.warnings(Clock::system().now()) {
                    tracing::warn!("{warning}");
                }
            }
            Err(error) => tracing::error!(
                certificate = certificate.map(tracing::field::display),
                %error,
                "the new certificates cannot be used; the old ones go on"
            ),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
