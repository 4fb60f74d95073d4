//! The head of a response as it goes out, where hyper does not write it.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{CONTENT_LENGTH, DATE};
use hyper::{HeaderMap, StatusCode};

/// Room for a head of the usual size, in bytes.
const USUAL_BYTES: usize = 768;

/// Length of a date, which is always the same.
const DATE_BYTES: usize = 29;

/// The head of a response whose body has `length` bytes. Has the fields that hyper adds, too.
pub(super) fn written(status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> Vec<u8> {
    let mut head = Vec::with_capacity(USUAL_BYTES);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    let reason = status.canonical_reason().unwrap_or_default();
    head.extend_from_slice(reason.as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        field(&mut head, name.as_str(), value.as_bytes());
    }
    let has_length = status == StatusCode::NOT_MODIFIED || headers.contains_key(CONTENT_LENGTH);
    if let Some(length) = length.filter(|_| !has_length) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(length);
        field(&mut head, CONTENT_LENGTH.as_str(), digits.as_bytes());
    }
    if !headers.contains_key(DATE) {
        field(&mut head, DATE.as_str(), &date());
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// The date now (RFC 9110 section 6.6.1), put together once a second.
#[expect(
    clippy::disallowed_methods,
    reason = "as hyper has it: the date of the machine, whatever time a test has set"
)]
fn date() -> [u8; DATE_BYTES] {
    thread_local! {
        static LAST: Cell<(u64, [u8; DATE_BYTES])> = const { Cell::new((0, [b' '; DATE_BYTES])) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    let (last_second, last) = LAST.get();
    if second == last_second {
        return last;
    }
    let mut date = [b' '; DATE_BYTES];
    let text = httpdate::fmt_http_date(now);
    date.copy_from_slice(&text.as_bytes()[..DATE_BYTES]);
    LAST.set((second, date));
    date
}
