//! Responses whose heads are mostly the same each time.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{AGE, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};

use super::Body;

/// A head that many responses have, put together once. Where a body has a length, it says so.
#[derive(Debug)]
pub struct PreparedHead {
    status: StatusCode,
    fields: HeaderMap,
    /// All of it as it goes out, but for the empty line at its end.
    written: Box<[u8]>,
}

/// A response that is at hand: its head may be put together already. Its body says how long it is.
#[derive(Debug)]
pub struct Reply {
    head: Head,
    body: Body,
}

#[derive(Debug)]
enum Head {
    Own(StatusCode, HeaderMap),
    Prepared(Arc<PreparedHead>, Option<Duration>),
}

impl PreparedHead {
    /// The head of `status` with these fields, among them no `Age` and no `Date`.
    pub fn new(status: StatusCode, fields: HeaderMap) -> Self {
        let mut written = Vec::new();
        write_head(status, &fields, &mut written);
        let written = written.into();
        Self {
            status,
            fields,
            written,
        }
    }

    /// The fields.
    pub fn fields(&self) -> &HeaderMap {
        &self.fields
    }
}

impl Reply {
    /// With this head, and an `Age` (RFC 9111 section 5.1) where there is one.
    pub fn prepared(head: Arc<PreparedHead>, age: Option<Duration>, body: Body) -> Self {
        let head = Head::Prepared(head, age);
        Self { head, body }
    }

    /// Its head, if it is a prepared one.
    pub fn prepared_head(&self) -> Option<&Arc<PreparedHead>> {
        match &self.head {
            Head::Own(..) => None,
            Head::Prepared(head, _) => Some(head),
        }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        match &self.head {
            Head::Own(status, _) => *status,
            Head::Prepared(head, _) => head.status,
        }
    }

    /// The same with what `change` makes of its body.
    #[must_use]
    pub fn map(self, change: impl FnOnce(Body) -> Body) -> Self {
        Self {
            head: self.head,
            body: change(self.body),
        }
    }

    /// Writes its head as it goes out, from the first line on, behind what is in `out`. The empty line at the end
    /// is still to come. Says whether the length of the body is among them.
    pub fn write_head(&self, out: &mut Vec<u8>) -> bool {
        match &self.head {
            Head::Own(status, fields) => {
                write_head(*status, fields, out);
                fields.contains_key(hyper::header::CONTENT_LENGTH)
            }
            Head::Prepared(head, age) => {
                out.extend_from_slice(&head.written);
                if let Some(age) = age {
                    let mut digits = itoa::Buffer::new();
                    let age = digits.format(age.as_secs());
                    write_field(AGE.as_str(), age.as_bytes(), out);
                }
                true
            }
        }
    }

    /// Its body.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Its body, of which the head says all there is to say.
    pub fn into_body(self) -> Body {
        self.body
    }
}

impl From<Response<Body>> for Reply {
    fn from(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let head = Head::Own(parts.status, parts.headers);
        Self { head, body }
    }
}

impl From<Reply> for Response<Body> {
    fn from(reply: Reply) -> Self {
        let mut response = Self::new(reply.body);
        let (status, fields) = match reply.head {
            Head::Own(status, fields) => (status, fields),
            Head::Prepared(head, age) => {
                let mut fields = head.fields.clone();
                if let Some(age) = age {
                    fields.insert(AGE, HeaderValue::from(age.as_secs()));
                }
                (head.status, fields)
            }
        };
        *response.status_mut() = status;
        *response.headers_mut() = fields;
        response
    }
}

fn write_head(status: StatusCode, fields: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let reason = status.canonical_reason().unwrap_or_default();
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in fields {
        write_field(name.as_str(), value.as_bytes(), out);
    }
}

/// Writes one field of a head.
pub fn write_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
