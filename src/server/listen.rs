//! Listening sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use tokio::net::TcpListener;

/// Connections the kernel keeps waiting while we are busy or full; `net.core.somaxconn` may lower it.
const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("cannot listen on {0}: another process already does")]
    InUse(SocketAddr),
    /// The port is below 1024 and we are not privileged.
    #[error("cannot listen on {0}: the port needs privileges, choose one from 1024 on")]
    NotPermitted(SocketAddr),
    /// The address is not one of this machine's.
    #[error("cannot listen on {0}: no network interface has that address")]
    NotOurs(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {address}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Listens on an address, for connections to be taken by [`serve`](super::serve). `[::]` takes IPv4 as well, whatever
/// the system's default for that is, and becomes `0.0.0.0` where IPv6 is off. Port 0 picks a free one.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
/// [`BindError`], with the address.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listener = match listen(address) {
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if is_any_ipv6(address) => {
            let any_ipv4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            tracing::info!(%address, instead = %any_ipv4, "IPv6 is off");
            listen(any_ipv4)
        }
        listener => listener,
    };
    let listener = listener.map_err(|errno| BindError::new(address, errno))?;
    TcpListener::from_std(listener.into()).map_err(|source| BindError::Other { address, source })
}

/// A listening socket that does not block.
fn listen(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match address.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = rustix::net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(ipproto::TCP),
    )?;
    // So that a restart need not wait for the old connections' TIME_WAIT. It does not let two processes share a port.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !is_any_ipv6(address))?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn is_any_ipv6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

// === impl BindError ===

impl BindError {
    fn new(address: SocketAddr, errno: Errno) -> Self {
        match errno {
            Errno::ADDRINUSE => Self::InUse(address),
            Errno::ACCESS => Self::NotPermitted(address),
            Errno::ADDRNOTAVAIL => Self::NotOurs(address),
            errno => Self::Other {
                address,
                source: errno.into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::net::TcpStream;

    use super::*;

    fn any(ip: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(ip.into(), 0)
    }

    #[tokio::test]
    async fn any_address_takes_ipv4_and_ipv6() {
        let listener = bind(any(Ipv6Addr::UNSPECIFIED)).unwrap();
        let address = listener.local_addr().unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, address.port()))
            .await
            .unwrap();
        listener.accept().await.unwrap();
        if address.is_ipv6() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, address.port()))
                .await
                .unwrap();
            listener.accept().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let first = bind(any(Ipv4Addr::LOCALHOST)).unwrap();
        let taken = first.local_addr().unwrap();
        let error = bind(taken).unwrap_err();
        assert!(matches!(error, BindError::InUse(address) if address == taken));
        assert!(error.to_string().contains(&taken.to_string()));
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_named() {
        // TEST-NET-1 of RFC 5737: never ours, and nothing is sent to it.
        let error = bind(any([192, 0, 2, 1])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot listen on 192.0.2.1:0: no network interface has that address"
        );
    }
}
