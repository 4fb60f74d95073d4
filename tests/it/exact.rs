//! Hits, byte by byte, through the whole mirror: hundreds of answers of all kinds over few connections, with and without
//! TLS, for clients of all kinds.

use std::fs::File;

use bytes::Bytes;
use fastrand::Rng;
use futures_util::future::{join, join_all};
use tokio::net::TcpSocket;

use crate::harness::client::{Answer, Connection, Ending, Pull, Request};
use crate::harness::content::{Image, MIB, bytes, sha256};
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Authority, Upstream};
use crate::harness::world::REGISTRY;
use crate::tls::client::TlsClient;
use crate::tls::{files, listening, pair};

const HOST: &str = "mirror.test";

/// Lengths of the blobs: below, at and above what is sent, read and looked at at once.
const LENGTHS: [usize; 7] = [1, 4096, 70_001, 262_145, 524_288, 524_289, 2 * MIB + 7];

/// What a connection runs over.
#[derive(Debug, Clone, Copy)]
enum Wire {
    Plain,
    Tls,
}

const WIRES: [Wire; 2] = [Wire::Plain, Wire::Tls];

/// A mirror that has everything.
struct Warm {
    mirror: Mirror,
    client: TlsClient,
    blobs: Vec<(String, Bytes)>,
    image: Image,
    upstream: Upstream,
}

/// What has to come back.
#[derive(Debug)]
struct Expected {
    status: u16,
    /// `None` where only its length matters.
    body: Option<Bytes>,
    headers: Vec<(&'static str, String)>,
}

impl Expected {
    fn of(status: u16, body: impl Into<Option<Bytes>>) -> Self {
        Self {
            status,
            body: body.into(),
            headers: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    #[track_caller]
    fn check(&self, request: &Request, answer: &Answer) {
        let seen = (answer.status, answer.ending);
        assert_eq!(seen, (self.status, Ending::Complete), "{request:?}");
        for (name, value) in &self.headers {
            assert_eq!(answer.header(name), Some(&**value), "{request:?}: {name}");
        }
        let is_right = self.body.as_ref().is_none_or(|body| *body == answer.body);
        assert!(is_right, "{request:?}: wrong bytes");
    }
}

impl Warm {
    async fn start() -> Self {
        let (authority, upstream) = (Authority::new(), Upstream::start().await);
        let setup = Setup::new().upstream(REGISTRY, &upstream);
        let own = files(&setup, "own", &authority.certify(&[HOST]));
        let mirror = listening(setup, &pair(&own)).start().await;
        let image = Image::new(1);
        upstream.put_image("team/app", "v1", &image);
        mirror
            .pull(|rest| format!("/v2/{rest}"), "team/app", "v1", &image)
            .await;
        let mut blobs = Vec::new();
        for (seed, length) in (100..).zip(LENGTHS) {
            let content = bytes(seed, length);
            let digest = upstream.put_blob("team/app", content.clone());
            let answer = mirror.get(&blob(&digest)).await;
            assert_eq!(answer.expect(200), content);
            mirror.wait_until_stored(&digest).await;
            blobs.push((digest, content));
        }
        upstream.forget();
        Self {
            mirror,
            client: TlsClient::new(&authority),
            blobs,
            image,
            upstream,
        }
    }

    async fn connect(&self, wire: Wire) -> Connection {
        self.connect_by(wire, TcpSocket::new_v4().expect("a socket"))
            .await
    }

    /// A connection that takes little before it is read.
    async fn connect_narrow(&self, wire: Wire) -> Connection {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(50_000).expect("a socket");
        self.connect_by(wire, socket).await
    }

    async fn connect_by(&self, wire: Wire, socket: TcpSocket) -> Connection {
        let address = match wire {
            Wire::Plain => self.mirror.addresses[0],
            Wire::Tls => self.mirror.addresses[1],
        };
        let stream = socket.connect(address).await.expect("it listens");
        match wire {
            Wire::Plain => Connection::over(stream),
            Wire::Tls => {
                let agreed = self.client.connect_over(stream, HOST).await;
                agreed.expect("a handshake").connection
            }
        }
    }

    /// Something that may be asked for, and what is to come of it.
    fn any(&self, random: &mut Rng) -> (Request, Expected) {
        let (digest, content) = random.choice(&self.blobs).expect("there are some");
        let target = blob(digest);
        let manifest = &self.image.manifest;
        let tag = "/v2/team/app/manifests/v1";
        let length = content.len();
        match random.u8(..12) {
            0 => (
                Request::get(tag),
                Expected::of(200, manifest.bytes.clone())
                    .with("Docker-Content-Digest", manifest.digest()),
            ),
            1 => (
                Request::head(tag),
                Expected::of(200, Bytes::new())
                    .with("Content-Length", manifest.bytes.len().to_string()),
            ),
            2 => (
                Request::get(tag).header("If-None-Match", format!("\"{}\"", manifest.digest())),
                Expected::of(304, Bytes::new()),
            ),
            3 => (
                Request::head(&target),
                Expected::of(200, Bytes::new()).with("Content-Length", length.to_string()),
            ),
            4 => (
                Request::get(&target).header("If-None-Match", format!("\"{digest}\"")),
                Expected::of(304, Bytes::new()),
            ),
            5 => (
                Request::get(&target).header("Range", format!("bytes={length}-")),
                Expected::of(416, None).with("Content-Range", format!("bytes */{length}")),
            ),
            6 => (
                Request::get("/v2/team/app/nothing"),
                Expected::of(404, None),
            ),
            7 => (Request::get(&target), Expected::of(200, content.clone())),
            _ => {
                let start = random.usize(..length);
                let end = random.usize(start + 1..=length);
                let (range, part) = match random.u8(..3) {
                    0 => (format!("{start}-{}", end - 1), start..end),
                    1 => (format!("{start}-"), start..length),
                    _ => (format!("-{end}"), length - end..length),
                };
                let sent = format!("bytes {}-{}/{length}", part.start, part.end - 1);
                (
                    Request::get(&target).header("Range", format!("bytes={range}")),
                    Expected::of(206, content.slice(part)).with("Content-Range", sent),
                )
            }
        }
    }

    fn some(&self, random: &mut Rng, n: usize) -> Vec<(Request, Expected)> {
        (0..n).map(|_| self.any(random)).collect()
    }

    /// Nothing of it was asked upstream.
    async fn is_alone(&self) {
        assert_eq!(self.upstream.log().len(), 0);
        let open = "\nentrepot_connections 1\n";
        while !self.mirror.metrics().await.contains(open) {
            tokio::task::yield_now().await;
        }
    }
}

fn blob(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

async fn next(connection: Connection, request: &Request) -> Pull {
    let pull = connection.pull(request.method()).await;
    pull.unwrap_or_else(|| panic!("an answer to {request:?}"))
}

#[tokio::test]
async fn hundreds_of_answers_on_few_connections_are_exact() {
    let warm = Warm::start().await;
    for wire in WIRES {
        let mut random = Rng::with_seed(1);
        for _ in 0..4 {
            let mut connection = warm.connect(wire).await;
            for (request, expected) in warm.some(&mut random, 40) {
                connection.write(&request.to_bytes()).await;
                let pull = next(connection, &request).await;
                let (answer, kept) = pull.finish_and_keep().await;
                expected.check(&request, &answer);
                connection = kept;
            }
        }
    }
    warm.is_alone().await;
}

#[tokio::test]
async fn answers_to_twenty_four_requests_at_once_are_exact() {
    let warm = Warm::start().await;
    for wire in WIRES {
        let mut random = Rng::with_seed(2);
        for _ in 0..8 {
            let asked = warm.some(&mut random, 24);
            let requests: Vec<u8> = asked.iter().flat_map(|(it, _)| it.to_bytes()).collect();
            let mut connection = warm.connect(wire).await;
            connection.write(&requests).await;
            for (request, expected) in asked {
                let pull = next(connection, &request).await;
                let (answer, kept) = pull.finish_and_keep().await;
                expected.check(&request, &answer);
                connection = kept;
            }
        }
    }
    warm.is_alone().await;
}

#[tokio::test]
async fn slow_readers_and_fast_ones_get_the_same() {
    let warm = Warm::start().await;
    let (digest, content) = warm.blobs.last().expect("the largest");
    let request = Request::get(&blob(digest));
    let slow = async |mut connection: Connection, sip: usize| {
        connection.write(&request.to_bytes()).await;
        let mut pull = next(connection, &request).await;
        let mut read = 0;
        while read < content.len() {
            let some = pull.read(sip.min(content.len() - read)).await;
            assert!(!some.is_empty() && content[read..].starts_with(&some));
            read += some.len();
            tokio::task::yield_now().await;
        }
    };
    let fast = async |wire| {
        let mut random = Rng::with_seed(3);
        for (request, expected) in warm.some(&mut random, 30) {
            let connection = warm.connect(wire).await;
            let pull = connection.ask(&request).await.expect("an answer");
            expected.check(&request, &pull.finish().await);
        }
    };
    let mut narrow = Vec::new();
    for sip in [4096, 9973, 65_537] {
        for wire in WIRES {
            narrow.push(slow(warm.connect_narrow(wire).await, sip));
        }
    }
    let all = join_all(WIRES.map(fast));
    join(join_all(narrow), all).await;
    warm.is_alone().await;
}

#[tokio::test]
async fn two_hundred_clients_that_leave_in_the_middle_harm_nobody() {
    let warm = Warm::start().await;
    let mut random = Rng::with_seed(4);
    for n in 0..200 {
        let wire = WIRES[n % 2];
        let mut requests = Vec::new();
        for (request, _) in warm.some(&mut random, 3) {
            requests.extend(request.to_bytes());
        }
        requests.extend(
            Request::get("/livez")
                .header("Connection", "close")
                .to_bytes(),
        );
        let mut connection = warm.connect(wire).await;
        connection.write(&requests).await;
        let mut pull = connection.pull("GET").await.expect("an answer");
        // Not a byte of some, all of others.
        pull.read(random.usize(..200_000)).await;
        drop(pull);
        if n % 20 == 0 {
            let (request, expected) = warm.any(&mut random);
            let connection = warm.connect(wire).await;
            let pull = connection.ask(&request).await.expect("an answer");
            expected.check(&request, &pull.finish().await);
        }
    }
    warm.is_alone().await;
}

#[tokio::test]
async fn a_file_that_is_emptied_under_a_reader_is_a_short_body_and_comes_again() {
    for wire in WIRES {
        let (authority, upstream) = (Authority::new(), Upstream::start().await);
        let setup = Setup::new().upstream(REGISTRY, &upstream);
        let own = files(&setup, "own", &authority.certify(&[HOST]));
        let mirror = listening(setup, &pair(&own)).start().await;
        // More than lies on its way in the kernel.
        let content = bytes(9, 16 * MIB);
        let digest = upstream.put_blob("team/app", content.clone());
        assert_eq!(
            sha256(&mirror.get(&blob(&digest)).await.expect(200)),
            digest
        );
        mirror.wait_until_stored(&digest).await;
        let warm = Warm {
            mirror,
            client: TlsClient::new(&authority),
            blobs: Vec::new(),
            image: Image::new(1),
            upstream,
        };
        let request = Request::get(&blob(&digest));
        let connection = warm.connect_narrow(wire).await;
        let mut pull = connection.ask(&request).await.expect("an answer");
        let first = pull.read(MIB).await;
        assert_eq!(first, content[..MIB]);
        let file = File::options()
            .write(true)
            .open(warm.mirror.path_of(&digest));
        file.expect("it is ours").set_len(0).expect("it is ours");
        let rest = pull.finish().await;
        assert_eq!(rest.ending, Ending::Short, "{wire:?}");
        assert!(
            content[MIB..].starts_with(&rest.body),
            "{wire:?}: wrong bytes"
        );
        let again = warm.mirror.get(&blob(&digest)).await;
        assert_eq!(sha256(&again.expect(200)), digest);
    }
}
