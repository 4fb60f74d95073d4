//! A client that speaks TLS, and says which certificate it was shown.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{Certificate, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::client::{Answer, Connection, Request};
use crate::harness::upstream::Authority;

/// How a client speaks TLS.
#[derive(Clone)]
pub struct TlsClient {
    config: ClientConfig,
}

/// A connection, and what was agreed on.
pub struct Agreed {
    /// The connection.
    pub connection: Connection,
    /// The server's certificate, as DER.
    pub certificate: Vec<u8>,
    /// The protocol above TLS.
    pub protocol: Option<Vec<u8>>,
}

impl TlsClient {
    /// One that believes `authority`, offers what Go's client offers, and has no certificate.
    pub fn new(authority: &Authority) -> Self {
        Self::build(authority, None)
    }

    /// The same with a certificate.
    pub fn with_certificate(authority: &Authority, identity: &(Certificate, KeyPair)) -> Self {
        Self::build(authority, Some(identity))
    }

    fn build(authority: &Authority, identity: Option<&(Certificate, KeyPair)>) -> Self {
        let mut roots = RootCertStore::empty();
        let pem = authority.pem().as_bytes();
        let root = CertificateDer::from_pem_slice(pem).expect("a certificate");
        roots.add(root).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider's versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
                let chain = vec![certificate.der().clone()];
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("the key of the certificate")
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { config }
    }

    /// Connects and asks for the host `name`. `None` where there is no handshake.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> Option<Agreed> {
        let stream = TcpStream::connect(address).await.expect("it listens");
        self.connect_over(stream, name).await
    }

    /// The same over a connection that is there.
    pub async fn connect_over(&self, stream: TcpStream, name: &str) -> Option<Agreed> {
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let stream = connector.connect(name, stream).await.ok()?;
        let (_, session) = stream.get_ref();
        let shown = session.peer_certificates()?.first()?.to_vec();
        let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
        Some(Agreed {
            connection: Connection::over(stream),
            certificate: shown,
            protocol,
        })
    }

    /// The answer to a request on a connection of its own; `None` where there is none.
    pub async fn send(&self, address: SocketAddr, name: &str, request: &Request) -> Option<Answer> {
        let agreed = self.connect(address, name).await?;
        let pull = agreed.connection.ask(request).await?;
        Some(pull.finish().await)
    }
}
