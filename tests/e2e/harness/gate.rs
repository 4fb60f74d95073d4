//! A relay in front of the upstream that holds the bytes back after so many, until it is opened: a download can be
//! caught in its middle without a clock.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Longest wait for the bytes that are let through. They come from loopback, as fast as the mirror takes them.
const REACHED_WITHIN: Duration = Duration::from_mins(1);

/// Bytes passed on at once.
const CHUNK_BYTES: usize = 64 << 10;

/// A relay on a port of its own. Its threads end with the connections they serve, at the latest with the process.
pub(crate) struct Gate {
    port: u16,
    passage: Arc<Passage>,
}

/// What all connections of a gate share.
struct Passage {
    /// Bytes from upstream that may still pass; `None` once the gate is open.
    left: Mutex<Option<u64>>,
    changed: Condvar,
}

impl Gate {
    /// A relay to `upstream`, a port of loopback, that lets `bytes` of its answers through.
    pub(crate) fn start(upstream: u16, bytes: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let passage = Arc::new(Passage {
            left: Mutex::new(Some(bytes)),
            changed: Condvar::new(),
        });
        let shared = passage.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                relay(client.unwrap(), upstream, &shared);
            }
        });
        Self { port, passage }
    }

    /// The URL that stands for the upstream.
    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Waits until all bytes that may pass have passed.
    pub(crate) fn wait_until_reached(&self) {
        let left = self.passage.left.lock().unwrap();
        let (_left, waited) = self
            .passage
            .changed
            .wait_timeout_while(left, REACHED_WITHIN, |left| *left != Some(0))
            .unwrap();
        assert!(
            !waited.timed_out(),
            "the mirror did not take the bytes it was offered"
        );
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        *self.passage.left.lock().unwrap() = None;
        self.passage.changed.notify_all();
    }
}

impl Passage {
    /// Waits until bytes may pass, and takes at most `wanted` of them.
    fn take(&self, wanted: usize) -> usize {
        let left = self.left.lock().unwrap();
        let mut left = self
            .changed
            .wait_while(left, |left| *left == Some(0))
            .unwrap();
        let Some(bytes) = left.as_mut() else {
            return wanted;
        };
        let taken = wanted.min(usize::try_from(*bytes).unwrap_or(usize::MAX));
        *bytes -= taken as u64;
        self.changed.notify_all();
        taken
    }
}

/// Carries one connection in two threads. Either side's end is passed on as it is.
fn relay(client: TcpStream, upstream: u16, passage: &Arc<Passage>) {
    let upstream = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
    let (mut client_in, mut upstream_out) =
        (client.try_clone().unwrap(), upstream.try_clone().unwrap());
    thread::spawn(move || {
        // A connection that breaks here breaks for both ends, which is all there is to do.
        let _ = std::io::copy(&mut client_in, &mut upstream_out);
        let _ = upstream_out.shutdown(Shutdown::Write);
    });
    let passage = passage.clone();
    thread::spawn(move || {
        let _ = pass(&upstream, &client, &passage);
        let _ = client.shutdown(Shutdown::Both);
        let _ = upstream.shutdown(Shutdown::Both);
    });
}

fn pass(
    mut upstream: &TcpStream,
    mut client: &TcpStream,
    passage: &Passage,
) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let n_bytes = upstream.read(&mut buffer)?;
        if n_bytes == 0 {
            return Ok(());
        }
        let mut passed = 0;
        while passed < n_bytes {
            let taken = passage.take(n_bytes - passed);
            client.write_all(&buffer[passed..passed + taken])?;
            passed += taken;
        }
    }
}
