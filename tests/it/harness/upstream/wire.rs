//! HTTP/1.1 by hand: an upstream that misbehaves says what no HTTP library would.

use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Interval, MissedTickBehavior};

use super::answer::{Answer, Declared, End};
use crate::harness::secrets;

/// Largest request head taken, in bytes: more than any the mirror should send.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A request that the upstream has seen.
#[derive(Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query, as they stood in the request line.
    pub target: String,
    /// The header lines, in order.
    pub headers: Vec<(String, String)>,
    /// The body that `Content-Length` declares.
    pub body: Vec<u8>,
    /// How many bytes of body went out in answer.
    pub(super) sent: AtomicU64,
}

impl Seen {
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The values of one query parameter, decoded.
    pub fn query(&self, name: &str) -> Vec<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes())
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .collect()
    }

    /// The value of one field of a form in the body, decoded.
    pub fn field(&self, name: &str) -> Option<String> {
        let mut fields = form_urlencoded::parse(&self.body);
        let (_, value) = fields.find(|(key, _)| key == name)?;
        Some(value.into_owned())
    }

    /// The value of a header that stands there at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| &**value);
        assert!(values.next().is_none(), "{name} stands once: {self:?}");
        value
    }

    /// How many bytes of body went out in answer so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// `(name, kind, reference)` of `/v2/<name>/<kind>/<reference>`.
    pub fn parts(&self) -> Option<(&str, &str, &str)> {
        let (rest, reference) = self.path().strip_prefix("/v2/")?.rsplit_once('/')?;
        let (name, kind) = rest.rsplit_once('/')?;
        Some((name, kind, reference))
    }
}

/// The next request of a connection; `None` when the other side has closed it.
pub async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Seen>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if buffer.len() > HEAD_BYTES_MAX || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<u8> = buffer.drain(..end).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (method, target) = (word(), word());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    for (name, value) in &headers {
        secrets::plant_header(name, value);
    }
    let mut request = Seen {
        method,
        target,
        headers,
        body: Vec::new(),
        sent: AtomicU64::new(0),
    };
    let length = request.header("Content-Length").map(str::parse::<usize>);
    let length = length.map_or(0, |length| length.expect("a length"));
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    request.body = buffer.drain(..length).collect();
    Ok(Some(request))
}

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The next request may come.
    Open,
    /// It is closed in this way.
    Closed(End),
}

/// Writes `answer` as its script says.
pub async fn write_answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &Seen,
    answer: &Answer,
) -> io::Result<After> {
    let body = &answer.body;
    if let Some(gate) = &body.before {
        gate.pass().await;
    }
    if let Some(raw) = &answer.raw {
        stream.write_all(raw).await?;
        if body.endless {
            // Until the other side has had enough.
            let mut pace = body.pace.map(tokio::time::interval);
            loop {
                if let Some(pace) = &mut pace {
                    next_span(stream, pace).await?;
                }
                stream.write_all(&body.bytes).await?;
            }
        }
        stream.flush().await?;
        return Ok(if answer.stays {
            After::Open
        } else {
            After::Closed(End::Fin)
        });
    }
    let length = answer.length();
    stream.write_all(head(answer, length).as_bytes()).await?;
    if request.method == "HEAD" || matches!(answer.status, 204 | 304) {
        stream.flush().await?;
        return Ok(After::Open);
    }
    if let Some(end) = write_body(stream, request, answer).await? {
        return Ok(After::Closed(end));
    }
    let (from, to) = answer.window();
    let whole = length == Some((to - from) as u64);
    Ok(if whole {
        After::Open
    } else {
        After::Closed(End::Fin)
    })
}

fn head(answer: &Answer, length: Option<u64>) -> String {
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    // What a real registry adds, and nobody wants to see passed on.
    head.push_str("Set-Cookie: session=of-the-upstream\r\nX-Of-Upstream: yes\r\n");
    for (name, value) in &answer.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    match (answer.body.declared, length) {
        (Declared::Chunked, _) => head.push_str("Transfer-Encoding: chunked\r\n"),
        (_, Some(length)) if !matches!(answer.status, 204 | 304) => {
            let _ = write!(head, "Content-Length: {length}\r\n");
        }
        _ => {}
    }
    head.push_str("\r\n");
    head
}

/// Writes the body; gives how the connection ends where the script cuts it.
async fn write_body<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &Seen,
    answer: &Answer,
) -> io::Result<Option<End>> {
    let body = &answer.body;
    let chunked = body.declared == Declared::Chunked;
    let (from, to) = answer.window();
    let cut = body.cut_within(from, to);
    let stop = cut.map_or(to, |(at, _)| at);
    let mut at = from;
    let mut pace = body.pace.map(tokio::time::interval);
    if let Some(pace) = &mut pace {
        // A late span is not made up for: that would be a burst.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        for (_, gate) in body.stalls.iter().filter(|(offset, _)| *offset == at) {
            stream.flush().await?;
            gate.pass().await;
        }
        if at == stop {
            if body.endless {
                at = from;
                continue;
            }
            break;
        }
        if let Some(pace) = &mut pace {
            next_span(stream, pace).await?;
        }
        let next = body
            .stalls
            .iter()
            .map(|(offset, _)| *offset)
            .filter(|offset| *offset > at)
            .fold(stop, usize::min)
            .min(at + body.step);
        let piece = body.piece(at, next);
        if chunked {
            let size = format!("{:x}\r\n", piece.len());
            stream.write_all(size.as_bytes()).await?;
        }
        stream.write_all(&piece).await?;
        if chunked {
            stream.write_all(b"\r\n").await?;
        }
        stream.flush().await?;
        let bytes = (next - at) as u64;
        request.sent.fetch_add(bytes, Ordering::Relaxed);
        at = next;
        // So that many answers go on side by side.
        tokio::task::yield_now().await;
    }
    if let Some((_, end)) = cut {
        return Ok(Some(end));
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").await?;
        stream.flush().await?;
        return Ok(Some(End::Fin));
    }
    Ok(None)
}

/// Waits for the next span of time, or notices that the other side has had enough: it sends nothing meanwhile.
async fn next_span<S: AsyncRead + Unpin>(stream: &mut S, pace: &mut Interval) -> io::Result<()> {
    tokio::select! {
        biased;
        _ = stream.read_u8() => Err(io::ErrorKind::ConnectionAborted.into()),
        _ = pace.tick() => Ok(()),
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Other",
    }
}
