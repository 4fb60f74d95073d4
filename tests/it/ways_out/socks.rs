//! A SOCKS proxy (RFC 1928) in this process. It wants a name and a password (RFC 1929).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::proxy::{Proxy, Told};

/// One for those alone who say this name and password. Every name of a host leads it to this machine.
pub async fn socks(name: &'static str, password: &'static str) -> Proxy {
    Proxy::serving(move |stream, told| serve(stream, told, name, password)).await
}

async fn serve(mut client: TcpStream, told: Told, name: &str, password: &str) -> Option<()> {
    let version = client.read_u8().await.ok()?;
    let methods = text(&mut client).await?;
    if version != 5 || !methods.as_bytes().contains(&2) {
        told.push("no password\n");
        return client.write_all(&[5, 0xff]).await.ok();
    }
    client.write_all(&[5, 2]).await.ok()?;
    client.read_u8().await.ok()?;
    let shown = [text(&mut client).await?, text(&mut client).await?];
    told.push(&format!("{}:{}\n", shown[0], shown[1]));
    if shown != [name, password] {
        return client.write_all(&[1, 1]).await.ok();
    }
    client.write_all(&[1, 0]).await.ok()?;
    let mut request = [0; 4];
    client.read_exact(&mut request).await.ok()?;
    let host = match request[3] {
        1 => Ipv4Addr::from(client.read_u32().await.ok()?).to_string(),
        4 => Ipv6Addr::from(client.read_u128().await.ok()?).to_string(),
        _ => text(&mut client).await?,
    };
    let port = client.read_u16().await.ok()?;
    told.push(&format!("CONNECT {host}:{port} \n"));
    let address = host.parse().unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let server = TcpStream::connect((address, port)).await.ok()?;
    let reply = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    client.write_all(&reply).await.ok()?;
    relay(client, server, told).await
}

/// A text behind a byte that says how long it is.
async fn text(stream: &mut TcpStream) -> Option<String> {
    let length = stream.read_u8().await.ok()?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Carries bytes both ways, and writes down those of the client.
async fn relay(client: TcpStream, server: TcpStream, told: Told) -> Option<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        let mut buffer = vec![0; 4096];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            told.push(&String::from_utf8_lossy(&buffer[..n]));
            if to_server.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    let back = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        () = there => {}
        _ = back => {}
    }
    Some(())
}
