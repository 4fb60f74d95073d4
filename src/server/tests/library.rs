//! A service of files, and what its clients should get. No byte of its content is zero.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::LazyLock;

use hyper::StatusCode;

use super::*;
use crate::http::{Chunk, Segment};

/// Bytes of the file.
pub(super) const FILE_BYTES: u64 = 6 << 20;

/// Answers by path: `/KIND/OFFSET/LENGTH`.
#[derive(Clone)]
pub(super) struct Library {
    pub(super) file: Arc<File>,
    ends: mpsc::UnboundedSender<(u64, End)>,
}

/// The byte at `offset` of the file. Hardly any stretch occurs twice, and none has a zero.
fn byte(offset: u64) -> u8 {
    let mixed = (offset ^ (offset >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    u8::try_from(mixed % 255 + 1).unwrap()
}

static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| (0..FILE_BYTES).map(byte).collect());

/// The bytes of the file from `offset` on.
pub(super) fn content(offset: u64, length: u64) -> Vec<u8> {
    let range = offset..offset + length;
    CONTENT[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
}

impl Library {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<(u64, End)>) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&content(0, FILE_BYTES), 0).unwrap();
        let (ends, seen) = mpsc::unbounded_channel();
        let file = Arc::new(file);
        (Self { file, ends }, seen)
    }

    pub(super) fn segment(&self, offset: u64, length: u64) -> Segment {
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
    async fn call(&self, request: Request<()>, _: Caller) -> Response<Body> {
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

    fn reject(&self, rejection: Rejection) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = rejection.status();
        response
    }
}

/// One request, and what should come back.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    is_head: bool,
    kind: &'static str,
    offset: u64,
    length: u64,
}

impl Ask {
    pub(super) fn get(kind: &'static str, offset: u64, length: u64) -> Self {
        Self {
            is_head: false,
            kind,
            offset,
            length,
        }
    }

    /// One of all kinds there are.
    pub(super) fn any(random: &mut fastrand::Rng) -> Self {
        let length = match random.u8(..8) {
            0 => random.u64(0..4),
            1..4 => random.u64(..70_000),
            4..7 => random.u64(..900_000),
            _ => random.u64(..3_000_000),
        };
        Self {
            is_head: random.u8(..8) == 0,
            kind: random
                .choice(["file", "file", "parts", "chunked", "memory", "unchanged"])
                .unwrap(),
            offset: random.u64(..FILE_BYTES - length),
            length,
        }
    }

    /// The request on the wire.
    pub(super) fn request(&self, more: &str) -> String {
        let method = if self.is_head { "HEAD" } else { "GET" };
        let (kind, offset, length) = (self.kind, self.offset, self.length);
        format!("{method} /{kind}/{offset}/{length} HTTP/1.1\r\nHost: a.example\r\n{more}\r\n")
    }

    /// Takes the response from the front of `answer`, which it must be.
    #[track_caller]
    pub(super) fn take(&self, answer: &mut &[u8]) {
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{self:?}: no head"));
        let head = str::from_utf8(&answer[..end]).unwrap();
        *answer = &answer[end + 4..];
        let is_unchanged = self.kind == "unchanged";
        let status = if is_unchanged { "304" } else { "200" };
        assert_eq!(&head[9..12], status, "{self:?}: {head}");
        let has_length = head.contains(&format!("content-length: {}", self.length));
        assert!(
            is_unchanged || has_length != (self.kind == "chunked"),
            "{self:?}: {head}"
        );
        if self.is_head || is_unchanged {
            return;
        }
        let expected = content(self.offset, self.length);
        if self.kind == "chunked" {
            assert!(unchunked(answer) == expected, "{self:?}: wrong bytes");
            return;
        }
        let length = expected.len();
        assert!(answer.len() >= length, "{self:?}: {} bytes", answer.len());
        assert!(answer[..length] == expected, "{self:?}: wrong bytes");
        *answer = &answer[length..];
    }
}

/// Takes a chunked body from the front of `answer`.
fn unchunked(answer: &mut &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let end = answer.windows(2).position(|it| it == b"\r\n").unwrap();
        let size = str::from_utf8(&answer[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        bytes.extend_from_slice(&answer[end + 2..end + 2 + size]);
        assert_eq!(&answer[end + 2 + size..][..2], b"\r\n");
        *answer = &answer[end + 2 + size + 2..];
        if size == 0 {
            return bytes;
        }
    }
}

/// The requests one behind the other, after the last of which the server closes.
pub(super) fn requests(asks: &[Ask]) -> String {
    let (last, others) = asks.split_last().unwrap();
    let others = others.iter().map(|ask| ask.request(""));
    others
        .chain([last.request("Connection: close\r\n")])
        .collect()
}

/// Whether these are the responses to these requests, and nothing else.
#[track_caller]
pub(super) fn check_answers(asks: &[Ask], mut answer: &[u8]) {
    for ask in asks {
        ask.take(&mut answer);
    }
    assert_eq!(answer, b"");
}
