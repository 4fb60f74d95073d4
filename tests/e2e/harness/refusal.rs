//! A registry that answers everything with the same status, over TLS, or nothing at all, at the port of one that was
//! stopped.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::certificates::Certificates;

/// Longest wait for a request, and for whoever asked to take the answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A listener on loopback. Its threads end with the process.
pub(crate) struct Refusal(Arc<AtomicU16>);

impl Refusal {
    /// Instead of a status: not a byte, not even of TLS, to those who come.
    pub(crate) const SILENCE: u16 = 0;

    /// Answers with `status` at these ports.
    pub(crate) fn start(ports: &[u16], certificates: &Certificates, status: u16) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = CertificateDer::from_pem_file(&certificates.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(&certificates.key).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        let refusal = Self(Arc::new(AtomicU16::new(status)));
        for port in ports {
            let listener = TcpListener::bind(("127.0.0.1", *port)).unwrap();
            let (status, config) = (Arc::clone(&refusal.0), Arc::clone(&config));
            thread::spawn(move || {
                for client in listener.incoming() {
                    let (status, config) = (Arc::clone(&status), Arc::clone(&config));
                    // Whoever goes away needs no answer.
                    thread::spawn(move || refuse(client?, config, &status));
                }
            });
        }
        refusal
    }

    /// Answers with `status` from now on.
    pub(crate) fn answer(&self, status: u16) {
        self.0.store(status, Ordering::Relaxed);
    }
}

/// Answers one request and closes the connection, or only listens until whoever called gives up.
fn refuse(client: TcpStream, config: Arc<ServerConfig>, status: &AtomicU16) -> std::io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    if status.load(Ordering::Relaxed) == Refusal::SILENCE {
        return std::io::copy(&mut &client, &mut std::io::sink()).map(drop);
    }
    let session = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(session, client);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let status = status.load(Ordering::Relaxed);
    let answer =
        format!("HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}
