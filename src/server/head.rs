//! The head of a response as it goes out, where hyper does not write it.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, DATE};

use crate::http::{Reply, write_field};

/// Room for a head of the usual size, in bytes.
const USUAL_BYTES: usize = 768;

/// The head of `reply`, whose body has `length` bytes, with the fields that hyper adds.
pub(super) fn written(reply: &Reply, length: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(USUAL_BYTES);
    let has_length = reply.write_head(&mut head) || reply.status() == StatusCode::NOT_MODIFIED;
    if !has_length {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(length);
        write_field(CONTENT_LENGTH.as_str(), digits.as_bytes(), &mut head);
    }
    write_date_and_end(&mut head);
    head
}

/// Writes the date now (RFC 9110 section 6.6.1), put together once a second, and the empty line.
#[expect(
    clippy::disallowed_methods,
    reason = "as hyper has it: the date of the machine, whatever time a test has set"
)]
fn write_date_and_end(head: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, Vec<u8>)> = const { RefCell::new((0, Vec::new())) };
    }
    // A clock that was never set is no reason to stop.
    let now = SystemTime::now().max(UNIX_EPOCH);
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    LAST.with_borrow_mut(|(of, last)| {
        if *of != second || last.is_empty() {
            let date = httpdate::fmt_http_date(now);
            last.clear();
            write_field(DATE.as_str(), date.as_bytes(), last);
            last.extend_from_slice(b"\r\n");
            *of = second;
        }
        head.extend_from_slice(last);
    });
}
