//! Many clients, and clients that leave: what they cost the process while they are there, and that nothing of them
//! stays.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::images::Layer;
use crate::harness::mirror::Mirror;
use crate::harness::process::{command, run};
use crate::harness::registry::blob_bytes;
use crate::harness::upstream::{EXAMPLE, Upstream};

/// How many clients come at once.
const CLIENTS: usize = 1000;

/// What they may cost, in bytes of memory above those of the idle process.
const MEMORY_MAX: u64 = 64 << 20;

/// Stack of a client, in bytes: a thousand of them are threads of this process.
const STACK_BYTES: usize = 256 << 10;

/// Asks for a layer, and gives the connection.
fn ask(mirror: &Mirror, repository: &str, layer: &Layer) -> TcpStream {
    let mut stream = TcpStream::connect(mirror.host()).unwrap();
    let digest = &layer.digest;
    let request = format!(
        "GET /v2/{repository}/blobs/{digest}?ns={EXAMPLE} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Reads the head of an answer, byte by byte. Gives the status line.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    head.lines().next().unwrap_or_default().to_owned()
}

/// Reads the body to its end, and holds it against `content`.
fn is_exact(stream: &mut TcpStream, content: &[u8]) -> bool {
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return at == content.len(),
            Ok(n) if content.get(at..at + n) == Some(&buffer[..n]) => at += n,
            Ok(_) | Err(_) => return false,
        }
    }
}

#[test]
fn a_thousand_clients_of_one_cold_blob_cost_one_body_and_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let layer = upstream.catalogue.oci.image.layers[0].clone();
    let file = directory.path().join("content");
    run(command("curl")
        .args(["--silent", "--fail", "--location", "--insecure", "--output"])
        .arg(&file)
        .arg(format!(
            "{}/v2/team/oci/blobs/{}",
            upstream.example().url(),
            layer.digest
        )));
    let content = std::fs::read(&file).unwrap();
    upstream.restart();
    let mut mirror = upstream.mirror(directory.path());
    let idle = mirror.memory("VmRSS");
    let exact = std::thread::scope(|scope| {
        let client = || {
            let mut stream = ask(&mirror, "team/oci", &layer);
            head(&mut stream).contains(" 200 ") && is_exact(&mut stream, &content)
        };
        let spawn = |_| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, client).unwrap()
        };
        let clients: Vec<_> = (0..CLIENTS).map(spawn).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .filter(|exact| *exact)
            .count()
    });
    assert_eq!(exact, CLIENTS);
    let most = mirror.memory("VmHWM");
    assert!(most < idle + MEMORY_MAX, "{most} bytes, {idle} when idle");
    mirror.wait_until_idle();
    assert_eq!(mirror.stop().code(), Some(0));
    let sent = blob_bytes(&upstream.stop().example, &layer.digest);
    assert!(sent * 100 <= layer.size * 101, "{sent} of {}", layer.size);
}

#[test]
fn clients_that_leave_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let layer = &upstream.catalogue.oci.image.layers[0];
    let mut mirror = upstream.mirror(directory.path());
    // What it has open once and for all, the connections to the upstream that it keeps, and the blob.
    let pull = |mirror: &Mirror| mirror.fetch(directory.path(), "team/oci", layer);
    for _ in 0..2 {
        // The second time it is a hit, and stays open.
        assert_eq!(pull(&mirror).as_ref(), Some(&layer.digest));
        mirror.wait_until_idle();
    }
    let (resting, memory) = (mirror.descriptors(), mirror.memory("VmRSS"));
    let size = usize::try_from(layer.size).unwrap();
    for is_cold in [true, false] {
        if is_cold {
            mirror.empty_cache();
        }
        for read in [None, Some(0), Some(size / 100), Some(size * 99 / 100)] {
            for _ in 0..25 {
                let mut stream = ask(&mirror, "team/oci", layer);
                let Some(read) = read else {
                    continue;
                };
                assert!(head(&mut stream).contains(" 200 "));
                let mut body = stream.take(read as u64);
                std::io::copy(&mut body, &mut std::io::sink()).unwrap();
            }
        }
        mirror.wait_until_idle();
        mirror.wait_until(|mirror| mirror.descriptors() <= resting);
    }
    let grown = mirror.memory("VmRSS").saturating_sub(memory);
    assert!(grown < MEMORY_MAX / 4, "{grown} bytes");
    assert_eq!(pull(&mirror).as_ref(), Some(&layer.digest));
}
