//! A proxy that leads whatever is asked for to one port of loopback, so that a registry of any name can be there.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

/// A proxy on loopback. Its threads end with the connections they serve, at the latest with the process.
pub(crate) struct Tunnel {
    port: u16,
}

impl Tunnel {
    /// A proxy to `port`.
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for client in listener.incoming() {
                // A connection that breaks here breaks for both ends, which is all there is to do.
                thread::spawn(move || carry(client?, port));
            }
        });
        Self { port: own }
    }

    /// The URL of the proxy.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Opens the tunnel that `client` asks for (RFC 9110 section 9.3.6), to `port`.
fn carry(mut client: TcpStream, port: u16) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"CONNECT "), "only tunnels are asked for");
    let server = TcpStream::connect(("127.0.0.1", port))?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        to_server.shutdown(Shutdown::Write)
    });
    let (mut from_server, mut to_client) = (server, client);
    std::io::copy(&mut from_server, &mut to_client)?;
    to_client.shutdown(Shutdown::Write)
}
