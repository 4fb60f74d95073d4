//! What the upstream answers: as a registry would, or as the script of a test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::harness::gate::Gate;
use crate::harness::secrets;

/// How much of a body goes out in one write, in bytes, unless it drips.
const STEP_BYTES: usize = 64 * 1024;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Closed, as after a last byte.
    Fin,
    /// Reset.
    Rst,
}

/// What the head says about the length of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// The truth.
    Truth,
    /// Something else.
    Bytes(u64),
    /// Nothing: the body ends with the connection.
    Nothing,
    /// Nothing: the body is chunked.
    Chunked,
}

/// A body and how it is sent.
#[derive(Debug, Clone)]
pub struct Body {
    pub(super) bytes: Bytes,
    pub(super) declared: Declared,
    pub(super) before: Option<Gate>,
    pub(super) stalls: Vec<(usize, Gate)>,
    pub(super) step: usize,
    pub(super) pace: Option<Duration>,
    pub(super) ranges: bool,
    pub(super) endless: bool,
    pub(super) headers: Vec<(String, String)>,
    wrong: Vec<usize>,
    cuts: Vec<Cut>,
}

#[derive(Debug, Clone)]
struct Cut {
    at: usize,
    end: End,
    left: Arc<AtomicUsize>,
}

impl Body {
    /// These bytes, sent at once and declared truly, whole or by ranges.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            declared: Declared::Truth,
            before: None,
            stalls: Vec::new(),
            step: STEP_BYTES,
            pace: None,
            ranges: true,
            endless: false,
            headers: Vec::new(),
            wrong: Vec::new(),
            cuts: Vec::new(),
        }
    }

    /// Not even the head before this gate is open.
    pub fn after(mut self, gate: &Gate) -> Self {
        self.before = Some(gate.clone());
        self
    }

    /// Many small writes of `bytes` each.
    pub fn drip(mut self, bytes: usize) -> Self {
        self.step = bytes;
        self
    }

    /// At most `bytes` in each of these spans of time on every connection, as some stores limit each.
    pub fn pace(mut self, bytes: usize, span: Duration) -> Self {
        (self.step, self.pace) = (bytes, Some(span));
        self
    }

    /// Silence at this offset until the gate is open.
    pub fn stall_at(mut self, offset: usize, gate: &Gate) -> Self {
        self.stalls.push((offset, gate.clone()));
        self
    }

    /// The connection ends at this offset, the first `times` times it is passed. There may be several such places.
    pub fn cut_at(mut self, offset: usize, end: End, times: usize) -> Self {
        let left = Arc::new(AtomicUsize::new(times));
        self.cuts.push(Cut {
            at: offset,
            end,
            left,
        });
        self
    }

    /// The byte at this offset has one bit turned.
    pub fn wrong_byte_at(mut self, offset: usize) -> Self {
        self.wrong.push(offset);
        self
    }

    /// The head says this of the length.
    pub fn declare(mut self, declared: Declared) -> Self {
        self.declared = declared;
        self
    }

    /// `Range` is ignored.
    pub fn without_ranges(mut self) -> Self {
        self.ranges = false;
        self
    }

    /// Sent again and again, without end.
    pub fn endlessly(mut self) -> Self {
        self.endless = true;
        self
    }

    /// A further header where this body is a blob.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The bytes from `from` to `to`, as they go out.
    pub(super) fn piece(&self, from: usize, to: usize) -> Bytes {
        let piece = self.bytes.slice(from..to);
        if !self.wrong.iter().any(|offset| (from..to).contains(offset)) {
            return piece;
        }
        let mut altered = piece.to_vec();
        for offset in self.wrong.iter().filter(|at| (from..to).contains(at)) {
            altered[offset - from] ^= 1;
        }
        altered.into()
    }

    /// Where a body that goes from `from` to `to` is cut this time. An answer that starts at the cut has passed it.
    pub(super) fn cut_within(&self, from: usize, to: usize) -> Option<(usize, End)> {
        let passes = |cut: &&Cut| (from..to).contains(&cut.at) && (cut.at > from || cut.at == 0);
        let spend = |left: usize| left.checked_sub(1);
        let mut cuts: Vec<&Cut> = self.cuts.iter().filter(passes).collect();
        cuts.sort_by_key(|cut| cut.at);
        let taken = cuts.into_iter().find(|cut| {
            let left = &cut.left;
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
                .is_ok()
        });
        taken.map(|cut| (cut.at, cut.end))
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::new(bytes)
    }
}

/// A status, headers and a body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Body,
    pub(super) raw: Option<Bytes>,
    pub(super) stays: bool,
    part: Option<(usize, usize)>,
}

impl Answer {
    /// A status, with an empty body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::new(Bytes::new()),
            raw: None,
            stays: false,
            part: None,
        }
    }

    /// 200 with a body of some type.
    pub fn ok(media_type: &str, body: impl Into<Body>) -> Self {
        Self::status(200)
            .header("Content-Type", media_type)
            .body(body)
    }

    /// An error as the specification has it.
    pub fn error(status: u16, code: &str) -> Self {
        let body = json!({ "errors": [{ "code": code, "message": "said by the upstream" }] });
        Self::status(status)
            .header("Content-Type", "application/json")
            .body(body.to_string())
    }

    /// A redirect.
    pub fn redirect(status: u16, location: &str) -> Self {
        secrets::plant_query(location);
        Self::status(status).header("Location", location)
    }

    /// These bytes in place of an answer, then the end of the connection. With an endless body, that follows.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        let mut answer = Self::status(200);
        answer.raw = Some(bytes.into());
        answer
    }

    /// The connection stays open behind raw bytes.
    pub fn and_stays(mut self) -> Self {
        self.stays = true;
        self
    }

    /// One more header line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// No line of that header.
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers
            .retain(|(header, _)| !header.eq_ignore_ascii_case(name));
        self
    }

    /// With this body.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Not before the gate is open.
    pub fn after(mut self, gate: &Gate) -> Self {
        self.body = self.body.after(gate);
        self
    }

    /// Only this part of the body.
    pub(super) fn part(mut self, from: usize, to: usize) -> Self {
        self.part = Some((from, to));
        self
    }

    /// From where to where the body goes.
    pub(super) fn window(&self) -> (usize, usize) {
        self.part.unwrap_or((0, self.body.bytes.len()))
    }

    /// What `Content-Length` says.
    pub(super) fn length(&self) -> Option<u64> {
        let (from, to) = self.window();
        match self.body.declared {
            Declared::Truth if self.body.endless => None,
            Declared::Truth => Some((to - from) as u64),
            // A lie about a blob is the same lie about its parts.
            Declared::Bytes(bytes) => Some(bytes.saturating_sub(from as u64)),
            Declared::Nothing | Declared::Chunked => None,
        }
    }
}
