//! What it answers, in the words of S3, Google and Azure.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED, RANGE,
};
use hyper::{Method, Request, Response};

use super::{Fault, Shared, lock};
use crate::harness::content::sha256;

type Body = BoxBody<Bytes, std::io::Error>;

pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let method = request.method().clone();
    let key = request
        .uri()
        .path()
        .trim_start_matches("/bucket/")
        // Where an upload to Google ends, its name is one part of the path.
        .replace("%2F", "/");
    *lock(&shared.requests) += 1;
    let gate = lock(&shared.gate).clone();
    if let Some((held, gate)) = gate
        && method == held
    {
        gate.pass().await;
    }
    let fault = lock(&shared.rule)
        .as_ref()
        .and_then(|rule| rule(method.as_str(), &key));
    match fault {
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Reset) => return Err(std::io::Error::other("it is scripted to end")),
        Some(Fault::Status(status)) => return Ok(error(status, "Scripted")),
        Some(Fault::Code(status, code)) => return Ok(error(status, code)),
        Some(Fault::Attributes(status)) => return Ok(attributes(status, &shared)),
        Some(Fault::ErrorIn200) => {
            return Ok(text(
                200,
                "<Error><Code>InternalError</Code><Message>no</Message></Error>",
            ));
        }
        Some(Fault::WrongBytes | Fault::Cut | Fault::LostReply) | None => {}
    }
    let answer = match method {
        Method::GET | Method::HEAD => get(&shared, &request, &key, fault),
        Method::PUT => put(&shared, request, key).await,
        Method::POST => post(&shared, &request, key),
        Method::DELETE => delete(&shared, &request, &key),
        _ => error(405, "Scripted"),
    };
    if fault == Some(Fault::LostReply) {
        return Err(std::io::Error::other("the reply is lost"));
    }
    Ok(answer)
}

/// The value of `name` in the query.
fn query(request: &Request<Incoming>, name: &str) -> Option<String> {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let mut pairs = form_urlencoded::parse(query);
    pairs
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn header(request: &Request<Incoming>, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

fn etag(content: &Bytes) -> String {
    format!("\"{}\"", &sha256(content)[7..39])
}

/// What Google tells one object from the next in its place by.
fn generation(content: &Bytes) -> String {
    let digits = sha256(content);
    let number = u64::from_str_radix(&digits[7..19], 16).expect("hex");
    number.to_string()
}

fn get(
    shared: &Shared,
    request: &Request<Incoming>,
    key: &str,
    fault: Option<Fault>,
) -> Response<Body> {
    let Some(mut content) = lock(&shared.objects).get(key).cloned() else {
        return error(404, "Scripted");
    };
    let tag = etag(&content);
    if header(request, IF_MATCH).is_some_and(|wanted| wanted != tag) {
        return error(412, "Scripted");
    }
    if fault == Some(Fault::WrongBytes) {
        let mut changed = content.to_vec();
        if let Some(last) = changed.last_mut() {
            *last ^= 1;
        }
        content = changed.into();
    }
    let total = content.len();
    let mut answer = Response::builder()
        .header(ETAG, tag)
        .header("x-goog-generation", generation(&content))
        .header(LAST_MODIFIED, "Wed, 21 Oct 2015 07:28:00 GMT");
    if let Some(range) = header(request, RANGE) {
        let (start, end) = range
            .trim_start_matches("bytes=")
            .split_once('-')
            .expect("a range");
        let start: usize = start.parse().expect("a number");
        let end = end
            .parse::<usize>()
            .map_or(total, |last| total.min(last + 1));
        if start >= end {
            return error(416, "Scripted");
        }
        content = content.slice(start..end);
        let range = format!("bytes {start}-{}/{total}", end - 1);
        answer = answer.status(206).header(CONTENT_RANGE, range);
    }
    answer = answer.header(CONTENT_LENGTH, content.len());
    let body = if request.method() == Method::HEAD {
        full(Bytes::new())
    } else if fault == Some(Fault::Cut) {
        let half = content.slice(..content.len() / 2);
        let chunks = [
            Ok(Frame::data(half)),
            Err(std::io::Error::other("the connection is cut")),
        ];
        // What was given is sent before the connection ends.
        let chunks = stream::iter(chunks).then(|chunk| async move {
            tokio::task::yield_now().await;
            chunk
        });
        BodyExt::boxed(StreamBody::new(chunks))
    } else {
        full(content)
    };
    answer.body(body).expect("an answer")
}

async fn put(shared: &Shared, request: Request<Incoming>, key: String) -> Response<Body> {
    let (upload, part) = (query(&request, "uploadId"), query(&request, "partNumber"));
    let (comp, block) = (query(&request, "comp"), query(&request, "blockid"));
    let condition = Condition::of(&request);
    let is_azure = request.headers().contains_key("x-ms-version");
    let Ok(content) = request.into_body().collect().await else {
        return error(400, "Scripted");
    };
    let content = content.to_bytes();
    let (tag, generation) = (etag(&content), generation(&content));
    if let Some(block) = block {
        let mut blocks = lock(&shared.blocks);
        blocks.entry(key).or_default().insert(block, content);
    } else if comp.as_deref() == Some("blocklist") {
        let Some(content) = listed(shared, &key, &content) else {
            return error(400, "InvalidBlockList");
        };
        lock(&shared.objects).insert(key, content);
    } else if let (Some(upload), Some(part)) = (upload, part) {
        let mut uploads = lock(&shared.uploads);
        let Some(parts) = uploads.get_mut(&upload) else {
            return error(404, "Scripted");
        };
        parts.insert(part.parse().expect("a number"), content);
    } else {
        let mut objects = lock(&shared.objects);
        match (objects.get(&key), condition) {
            (Some(_), Condition::IsNew) if is_azure => return error(409, "BlobAlreadyExists"),
            (Some(_), Condition::IsNew) => return error(412, "PreconditionFailed"),
            (there, condition) if !condition.holds(there) => {
                return error(412, "PreconditionFailed");
            }
            _ => {}
        }
        objects.insert(key, content);
    }
    Response::builder()
        .header(ETAG, tag)
        .header("x-goog-generation", generation)
        .body(full(Bytes::new()))
        .expect("an answer")
}

/// When an object is to be put in its place.
enum Condition {
    Always,
    IsNew,
    HasTag(String),
    HasGeneration(String),
}

impl Condition {
    fn of(request: &Request<Incoming>) -> Self {
        let generation = HeaderName::from_static("x-goog-if-generation-match");
        match (header(request, IF_MATCH), header(request, generation)) {
            _ if header(request, IF_NONE_MATCH).is_some() => Self::IsNew,
            (_, Some("0")) => Self::IsNew,
            (_, Some(generation)) => Self::HasGeneration(generation.to_owned()),
            (Some(tag), None) => Self::HasTag(tag.to_owned()),
            (None, None) => Self::Always,
        }
    }

    fn holds(&self, there: Option<&Bytes>) -> bool {
        match self {
            Self::Always => true,
            Self::IsNew => there.is_none(),
            Self::HasTag(tag) => there.is_some_and(|there| etag(there) == *tag),
            Self::HasGeneration(wanted) => there.is_some_and(|there| generation(there) == *wanted),
        }
    }
}

/// The blocks that a list of Azure names, in its order.
fn listed(shared: &Shared, key: &str, list: &Bytes) -> Option<Bytes> {
    let blocks = lock(&shared.blocks).remove(key)?;
    let list = String::from_utf8(list.to_vec()).ok()?;
    let names = list.split("<Uncommitted>").skip(1);
    let names = names.map(|rest| rest.split('<').next().unwrap_or_default());
    let content: Option<Vec<&[u8]>> = names.map(|name| Some(&**blocks.get(name)?)).collect();
    Some(Bytes::from(content?.concat()))
}

fn post(shared: &Shared, request: &Request<Incoming>, key: String) -> Response<Body> {
    let mut uploads = lock(&shared.uploads);
    let Some(upload) = query(request, "uploadId") else {
        let upload = format!("upload-{}", fastrand::u64(..));
        uploads.insert(upload.clone(), BTreeMap::new());
        return text(
            200,
            &format!(
                "<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>{key}</Key><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            ),
        );
    };
    let Some(parts) = uploads.remove(&upload) else {
        return error(404, "Scripted");
    };
    let content: Vec<u8> = parts.values().flatten().copied().collect();
    let content = Bytes::from(content);
    let (tag, generation) = (etag(&content), generation(&content));
    lock(&shared.objects).insert(key, content);
    let mut answer = text(
        200,
        &format!(
            "<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
        ),
    );
    let generation = generation.parse().expect("a number is a header value");
    answer.headers_mut().insert("x-goog-generation", generation);
    answer
}

fn delete(shared: &Shared, request: &Request<Incoming>, key: &str) -> Response<Body> {
    match query(request, "uploadId") {
        Some(upload) => drop(lock(&shared.uploads).remove(&upload)),
        None => drop(lock(&shared.objects).remove(key)),
    }
    text(204, "")
}

/// How many attributes are in one piece of a body.
const ATTRIBUTES_AT_ONCE: usize = 1000;

/// XML of a million attributes, none twice; counts the bytes that go out.
fn attributes(status: u16, shared: &Arc<Shared>) -> Response<Body> {
    let shared = Arc::clone(shared);
    let pieces = (0..1_000_000 / ATTRIBUTES_AT_ONCE).map(move |piece| {
        let first = piece * ATTRIBUTES_AT_ONCE;
        let names = first..first + ATTRIBUTES_AT_ONCE;
        let attributes =
            names.map(|n| format!(" xmlns:n{n}=\"http://a-name-space-of-its-own.example/{n}\""));
        let text = attributes.collect::<Vec<_>>().concat();
        let start = if piece == 0 { "<Error" } else { "" };
        let text = format!("{start}{text}");
        *lock(&shared.attribute_bytes) += text.len();
        Ok(Frame::data(Bytes::from(text)))
    });
    // Only as fast as they are read.
    let pieces = stream::iter(pieces).then(|piece| async move {
        tokio::task::yield_now().await;
        piece
    });
    let body = BodyExt::boxed(StreamBody::new(pieces));
    Response::builder()
        .status(status)
        .body(body)
        .expect("an answer")
}

fn error(status: u16, code: &str) -> Response<Body> {
    let body = format!("<Error><Code>{code}</Code><Message>so it was scripted</Message></Error>");
    text(status, &body)
}

fn text(status: u16, text: &str) -> Response<Body> {
    let body = full(Bytes::copy_from_slice(text.as_bytes()));
    Response::builder()
        .status(status)
        .body(body)
        .expect("an answer")
}

fn full(content: Bytes) -> Body {
    let never = |never: Infallible| match never {};
    BodyExt::boxed(Full::new(content).map_err(never))
}
