//! A service of files, and what its clients should get. No byte of its content is zero.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper::{Request, Response, StatusCode};
use tokio::sync::mpsc;

use crate::http::{Answer, Body, Caller, Chunk, End, Rejection, Reply, Segment, Service};

/// Bytes of the file.
pub const FILE_BYTES: u64 = 6 << 20;

/// Bytes of the body of `/endless`.
pub(in crate::server) const ENDLESS: u64 = 1 << 40;

/// How each body ended, with the bytes that were given of it.
pub type Ends = mpsc::UnboundedReceiver<(u64, End)>;

/// Answers by path: `/KIND/OFFSET/LENGTH`.
#[derive(Debug, Clone)]
pub struct Library {
    pub(in crate::server) file: Arc<File>,
    answered: Arc<AtomicUsize>,
    ends: mpsc::UnboundedSender<(u64, End)>,
}

/// The byte at `offset` of the file. Hardly any stretch occurs twice, and none has a zero.
fn byte(offset: u64) -> u8 {
    let mixed = (offset ^ (offset >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    u8::try_from(mixed % 255 + 1).unwrap()
}

static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| (0..FILE_BYTES).map(byte).collect());

/// The bytes of the file from `offset` on.
pub(in crate::server) fn content(offset: u64, length: u64) -> Vec<u8> {
    let range = offset..offset + length;
    CONTENT[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
}

impl Library {
    /// A library in `file`, which is empty.
    pub fn over(file: File) -> (Self, Ends) {
        file.write_all_at(&content(0, FILE_BYTES), 0).unwrap();
        let (ends, seen) = mpsc::unbounded_channel();
        let library = Self {
            file: Arc::new(file),
            answered: Arc::default(),
            ends,
        };
        (library, seen)
    }

    /// How many requests it has answered.
    pub(in crate::server) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    pub(in crate::server) fn segment(&self, offset: u64, length: u64) -> Segment {
        Segment {
            file: Arc::clone(&self.file),
            offset,
            length,
        }
    }

    /// The stretch in parts of all sizes, some from the file and some as bytes, as a fill gives it.
    fn parts(&self, offset: u64, length: u64) -> Vec<Chunk> {
        let mut parts = Vec::new();
        let (mut at, mut size) = (offset, 1);
        while at < offset + length {
            let part = self.segment(at, size.min(offset + length - at));
            at += part.length;
            parts.push(match parts.len() % 3 {
                0 => Bytes::from(content(part.offset, part.length)).into(),
                _ => part.into(),
            });
            size = size * 3 % 300_007 + 1;
        }
        parts
    }
}

impl Service for Library {
    fn at_hand(&self, request: &Arc<Request<()>>, _: &Arc<Caller>) -> Option<Reply> {
        let is_at_hand = |kind| request.uri().path()[1..].starts_with(kind);
        let at_hand = ["file", "parts", "memory", "unchanged", "beyond"];
        at_hand
            .into_iter()
            .any(is_at_hand)
            .then(|| self.answer(request).into())
    }

    fn call(&self, request: Arc<Request<()>>, _: Arc<Caller>) -> Answer {
        Answer::Here(self.answer(&request))
    }

    fn reject(&self, rejection: Rejection) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = rejection.status();
        response
    }
}

impl Library {
    fn answer(&self, request: &Request<()>) -> Response<Body> {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path().to_owned();
        let mut words = path.split('/').skip(1);
        let kind = words.next().unwrap();
        let mut number = || words.next().map_or(0, |word| word.parse().unwrap());
        let (offset, length): (u64, u64) = (number(), number());
        let once = |chunk: Chunk| stream::iter([Ok::<_, io::Error>(chunk)]);
        let whole = self.segment(offset, length).into();
        let body = match kind {
            "file" => Body::stream(once(whole), Some(length)),
            "chunked" => Body::stream(once(whole), None),
            "parts" => {
                let parts = self
                    .parts(offset, length)
                    .into_iter()
                    .map(Ok::<_, io::Error>);
                Body::stream(stream::iter(parts), Some(length))
            }
            "memory" => Body::full(content(offset, length)),
            "unchanged" => Body::empty(),
            // One byte more than there is: it reaches to the end.
            "beyond" => Body::stream(
                once(self.segment(offset, length + 1).into()),
                Some(length + 1),
            ),
            "endless" => {
                let segment = self.segment(0, FILE_BYTES);
                Body::stream(
                    stream::repeat(segment).map(Ok::<_, io::Error>),
                    Some(ENDLESS),
                )
            }
            other => panic!("no such kind: {other}"),
        };
        let ends = self.ends.clone();
        let mut response = Response::new(body.on_end(move |bytes, end| {
            let _ = ends.send((bytes, end));
        }));
        if kind == "unchanged" {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    }
}

/// What can be asked for of a library. The last one breaks the connection, since the file ends before the body.
pub const KINDS: [&str; 6] = ["file", "parts", "chunked", "memory", "unchanged", "beyond"];

/// One request, and what should come back.
#[derive(Debug, Clone)]
pub struct Ask {
    is_head: bool,
    kind: &'static str,
    offset: u64,
    length: u64,
}

/// How much of a response was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// All of it.
    Whole,
    /// Its beginning, and nothing after it.
    Cut,
}

impl Ask {
    /// A request for `length` bytes from `offset` on, which have to be there, or for the last ones.
    pub fn new(is_head: bool, kind: &'static str, offset: u64, length: u64) -> Self {
        let offset = match kind {
            "beyond" => FILE_BYTES - length,
            _ => offset,
        };
        Self {
            is_head,
            kind,
            offset,
            length,
        }
    }

    pub(in crate::server) fn get(kind: &'static str, offset: u64, length: u64) -> Self {
        Self::new(false, kind, offset, length)
    }

    /// One of all kinds that are answered to their end.
    pub(in crate::server) fn any(random: &mut fastrand::Rng) -> Self {
        let length = match random.u8(..8) {
            0 => random.u64(0..4),
            1..4 => random.u64(..70_000),
            4..7 => random.u64(..900_000),
            _ => random.u64(..3_000_000),
        };
        let kind = random
            .choice(["file", "file", "parts", "chunked", "memory", "unchanged"])
            .unwrap();
        let offset = random.u64(..FILE_BYTES - length);
        Self::new(random.u8(..8) == 0, kind, offset, length)
    }

    /// Whether the connection ends in the body of the response, because the file does.
    pub(in crate::server) fn breaks(&self) -> bool {
        self.kind == "beyond" && !self.is_head
    }

    /// The request on the wire.
    pub(in crate::server) fn request(&self, more: &str) -> String {
        let method = if self.is_head { "HEAD" } else { "GET" };
        let (kind, offset, length) = (self.kind, self.offset, self.length);
        format!("{method} /{kind}/{offset}/{length} HTTP/1.1\r\nHost: a.example\r\n{more}\r\n")
    }

    /// The bytes of the body, as far as there are any.
    fn body(&self) -> Vec<u8> {
        if self.is_head || self.kind == "unchanged" {
            return Vec::new();
        }
        content(self.offset, self.length)
    }

    /// Takes the response from the front of `answer`, which it must be, or begin with.
    #[track_caller]
    fn take(&self, answer: &mut &[u8]) -> Taken {
        let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            assert!(!answer.contains(&0), "{self:?}: no byte of a head");
            *answer = &[];
            return Taken::Cut;
        };
        let head = str::from_utf8(&answer[..end]).unwrap();
        *answer = &answer[end + 4..];
        let is_unchanged = self.kind == "unchanged";
        let status = if is_unchanged { "304" } else { "200" };
        assert_eq!(&head[9..12], status, "{self:?}: {head}");
        let length = self.length + u64::from(self.kind == "beyond");
        let has_length = head.contains(&format!("content-length: {length}"));
        assert!(
            is_unchanged || has_length != (self.kind == "chunked"),
            "{self:?}: {head}"
        );
        let expected = self.body();
        if self.kind == "chunked" && !self.is_head {
            let (found, taken) = unchunked(answer);
            let is_right = match taken {
                Taken::Whole => found == expected,
                Taken::Cut => expected.starts_with(&found),
            };
            assert!(is_right, "{self:?}: wrong bytes");
            return taken;
        }
        let length = expected.len().min(answer.len());
        assert!(
            answer[..length] == expected[..length],
            "{self:?}: wrong bytes"
        );
        *answer = &answer[length..];
        if length < expected.len() || self.breaks() {
            Taken::Cut
        } else {
            Taken::Whole
        }
    }
}

/// Takes a chunked body from the front of `answer`, as far as there is one.
fn unchunked(answer: &mut &[u8]) -> (Vec<u8>, Taken) {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = answer.windows(2).position(|it| it == b"\r\n") else {
            assert!(!answer.contains(&0), "no byte of a size");
            *answer = &[];
            return (bytes, Taken::Cut);
        };
        let size = str::from_utf8(&answer[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        *answer = &answer[end + 2..];
        let there = size.min(answer.len());
        bytes.extend_from_slice(&answer[..there]);
        let Some(rest) = answer[there..].strip_prefix(b"\r\n") else {
            assert!(b"\r\n".starts_with(&answer[there..]), "no end of a chunk");
            *answer = &[];
            return (bytes, Taken::Cut);
        };
        *answer = rest;
        if size == 0 {
            return (bytes, Taken::Whole);
        }
    }
}

/// The requests one behind the other, after the last of which the server closes.
pub(in crate::server) fn requests(asks: &[Ask]) -> String {
    let (last, others) = asks.split_last().unwrap();
    let others = others.iter().map(|ask| ask.request(""));
    others
        .chain([last.request("Connection: close\r\n")])
        .collect()
}

/// Whether these are the responses to these requests, and nothing else.
#[track_caller]
pub(in crate::server) fn check_answers(asks: &[Ask], mut answer: &[u8]) {
    for ask in asks {
        let taken = ask.take(&mut answer);
        assert!(taken == Taken::Whole || ask.breaks(), "{ask:?}: cut short");
        if ask.breaks() {
            break;
        }
    }
    assert_eq!(answer, b"");
}

/// Whether these are the responses to these requests from the first on, up to some byte.
#[track_caller]
pub(in crate::server) fn check_beginning(asks: &[Ask], mut answer: &[u8]) {
    for ask in asks {
        if ask.take(&mut answer) == Taken::Cut {
            break;
        }
    }
    assert_eq!(answer, b"");
}
