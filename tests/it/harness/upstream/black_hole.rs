//! A host that does not exist, as far as anybody can tell.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A port of loopback where packets vanish: whoever connects hears nothing, not even a refusal.
pub struct BlackHole {
    address: SocketAddr,
    /// Never accepts: its queue is full, and the kernel drops what does not fit.
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    /// One on a free port.
    pub async fn open() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(([127, 0, 0, 1], 0).into())
            .expect("a free port");
        // A queue for none holds one.
        let listener = socket.listen(0).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let queued = TcpStream::connect(address).await.expect("the first fits");
        Self {
            address,
            _listener: listener,
            _queued: vec![queued],
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
