//! Clients that are only in the way: they rest, drip heads and read slowly, by the thousand, from addresses of their own.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// Clients with one address: half of what a mirror with 20 000 connections lets one client have, or less.
const PER_ADDRESS: usize = 2500;

/// Between two bytes of a head, and between two reads of a body: slow, but not so slow as to be cut off for it.
const PACE: Duration = Duration::from_secs(1);

/// Parts of the crowd that do so one after the other: real ones are not in step.
const PARTS: usize = 250;

/// What a slow reader reads at once, and about what its kernel holds for it.
const SIP_BYTES: usize = 4096;

/// A head that never ends.
const HEAD: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: mirror\r\nX-Filler: ";

/// Clients that rest after one request, and nothing more.
pub(crate) struct Idle(Vec<TcpStream>);

/// Clients that take their time. They end when this is dropped.
pub(crate) struct Slow {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    is_over: AtomicBool,
    /// Drippers that were closed.
    closed: AtomicUsize,
    /// The shortest and the longest life of one of those, in milliseconds.
    shortest: AtomicUsize,
    longest: AtomicUsize,
    /// Readers that got an end.
    ended: AtomicUsize,
    /// Bytes that were read.
    read: AtomicUsize,
}

/// A client that sends a head, byte by byte.
struct Dripper {
    stream: TcpStream,
    since: Instant,
    dripped: usize,
}

/// A connection from one of the addresses of loopback to `port`.
fn connect(from: Ipv4Addr, port: u16, receive_bytes: Option<usize>) -> TcpStream {
    let socket: OwnedFd = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        Some(ipproto::TCP),
    )
    .unwrap();
    if let Some(bytes) = receive_bytes {
        sockopt::set_socket_recv_buffer_size(&socket, bytes).unwrap();
    }
    rustix::net::bind(&socket, &SocketAddrV4::new(from, 0)).unwrap();
    rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.into()
}

/// The address of the client with this number, none of which is the usual one.
fn address(block: u8, n: usize) -> Ipv4Addr {
    let part = u8::try_from(n / PER_ADDRESS + 1).unwrap();
    Ipv4Addr::new(127, block, 0, part)
}

impl Idle {
    /// So many clients of the mirror at `port`.
    pub(crate) fn come(port: u16, n: usize) -> Self {
        let client = |n| {
            let mut stream = connect(address(1, n), port, None);
            assert!(ask(&mut stream, "/livez").starts_with("HTTP/1.1 200 "));
            stream
        };
        Self((0..n).map(client).collect())
    }

    /// How many of them are still connected.
    pub(crate) fn connected(&self) -> usize {
        let is_connected = |stream: &&TcpStream| would_block(stream);
        self.0.iter().filter(is_connected).count()
    }

    /// What the mirror answers one of them.
    pub(crate) fn ask(&mut self, path: &str) -> String {
        ask(&mut self.0[0], path)
    }
}

/// The whole answer to a request on a connection that is kept.
fn ask(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: mirror\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let head = str::from_utf8(&answer).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.parse().unwrap())
    });
    let mut body = vec![0; length.unwrap()];
    stream.read_exact(&mut body).unwrap();
    answer.extend(body);
    String::from_utf8(answer).unwrap()
}

/// Whether nothing has come, the end included.
fn would_block(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl Slow {
    /// So many clients that drip heads, each again when it is closed, and as many that read what is at `target`.
    pub(crate) fn come(port: u16, n: usize, target: &str) -> Self {
        let counts = Arc::new(Counts {
            shortest: AtomicUsize::new(usize::MAX),
            ..Counts::default()
        });
        let shared = Arc::clone(&counts);
        let mut drippers: Vec<_> = (0..n).map(|n| Dripper::come(port, n)).collect();
        let reader = |n| {
            let mut stream = connect(address(3, n), port, Some(SIP_BYTES));
            let request = format!("GET {target} HTTP/1.1\r\nHost: mirror\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            stream.set_nonblocking(true).unwrap();
            Some(stream)
        };
        let mut readers: Vec<_> = (0..n).map(reader).collect();
        let thread = thread::spawn(move || {
            for part in (0..PARTS).cycle() {
                if shared.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let start = Instant::now();
                for n in (part..n).step_by(PARTS) {
                    if !drippers[n].drip() {
                        shared.closed(drippers[n].since.elapsed());
                        drippers[n] = Dripper::come(port, n);
                    }
                    readers[n].take_if(|stream| !shared.sip(stream));
                }
                let pause = PACE / u32::try_from(PARTS).unwrap();
                thread::sleep(pause.saturating_sub(start.elapsed()));
            }
        });
        Self {
            counts,
            thread: Some(thread),
        }
    }

    /// How many heads were not waited for any longer.
    pub(crate) fn closed(&self) -> usize {
        self.counts.closed.load(Ordering::Relaxed)
    }

    /// The shortest and the longest time that the mirror waited for a head.
    pub(crate) fn waits(&self) -> (Duration, Duration) {
        let of = |millis: &AtomicUsize| {
            Duration::from_millis(millis.load(Ordering::Relaxed).try_into().unwrap())
        };
        (of(&self.counts.shortest), of(&self.counts.longest))
    }

    /// How many readers have come to an end, and how many bytes all have read.
    pub(crate) fn read(&self) -> (usize, usize) {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (of(&self.counts.ended), of(&self.counts.read))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.counts.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

impl Counts {
    fn closed(&self, after: Duration) {
        let millis = usize::try_from(after.as_millis()).unwrap();
        self.closed.fetch_add(1, Ordering::Relaxed);
        self.shortest.fetch_min(millis, Ordering::Relaxed);
        self.longest.fetch_max(millis, Ordering::Relaxed);
    }

    /// Reads a little. Gives whether there may be more.
    fn sip(&self, stream: &mut TcpStream) -> bool {
        match stream.read(&mut [0; SIP_BYTES]) {
            Ok(n @ 1..) => {
                self.read.fetch_add(n, Ordering::Relaxed);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Ok(0) | Err(_) => {
                self.ended.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }
}

impl Dripper {
    fn come(port: u16, n: usize) -> Self {
        let stream = connect(address(2, n), port, None);
        stream.set_nonblocking(true).unwrap();
        Self {
            stream,
            since: Instant::now(),
            dripped: 0,
        }
    }

    /// Sends the next byte. Gives whether it is still connected.
    fn drip(&mut self) -> bool {
        let byte = HEAD.get(self.dripped).copied().unwrap_or(b'x');
        self.dripped += 1;
        let is_open = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.stream.read(&mut [0]).is_err_and(is_open) && self.stream.write(&[byte]).is_ok()
    }
}
