//! An S3 server in this process, with as much of the protocol as the mirror speaks: objects with ranges and conditions,
//! and uploads in parts. By default it is a correct one; a test scripts what is not.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED, RANGE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::gate::Gate;

type Body = BoxBody<Bytes, std::io::Error>;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status.
    Status(u16),
    /// It is never answered.
    Silence,
    /// The object has another last byte.
    WrongBytes,
    /// The connection ends after half the object.
    Cut,
    /// It is answered with 200, and an error in the body.
    ErrorIn200,
    /// It does what it is asked, and the answer is lost.
    LostReply,
}

/// Decides about a request by its method and key.
type Rule = Box<dyn Fn(&str, &str) -> Option<Fault> + Send>;

/// A bucket on loopback. It ends when it is dropped.
pub struct Bucket {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    objects: Mutex<BTreeMap<String, Bytes>>,
    uploads: Mutex<HashMap<String, BTreeMap<u32, Bytes>>>,
    rule: Mutex<Option<Rule>>,
    /// Requests of this method wait at the gate.
    gate: Mutex<Option<(&'static str, Gate)>>,
    requests: Mutex<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with a lock in hand")
}

impl Bucket {
    /// An empty bucket.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut bucket = Self {
            shared: Arc::default(),
            address: listener.local_addr().expect("an address"),
            serving: JoinSet::new(),
        };
        bucket
            .serving
            .spawn(serve(listener, Arc::clone(&bucket.shared)));
        bucket
    }

    /// Closes the port and every connection.
    pub async fn stop(&mut self) {
        self.serving.shutdown().await;
    }

    /// Opens the same port again.
    pub async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("its own port");
        self.serving
            .spawn(serve(listener, Arc::clone(&self.shared)));
    }

    /// What makes it the shared tier of a mirror, as a YAML flow mapping.
    pub fn keys(&self) -> String {
        format!(
            "{{ url: \"s3://bucket/team\", endpoint: \"http://{}\", access_key: key, secret_key: secret }}",
            self.address
        )
    }

    /// From now on `rule` says what goes wrong, by method and key.
    pub fn rule(&self, rule: impl Fn(&str, &str) -> Option<Fault> + Send + 'static) {
        *lock(&self.shared.rule) = Some(Box::new(rule));
    }

    /// From now on requests of `method` wait at `gate`.
    pub fn hold(&self, method: &'static str, gate: &Gate) {
        *lock(&self.shared.gate) = Some((method, gate.clone()));
    }

    /// The keys there are, without the prefix.
    pub fn objects(&self) -> Vec<String> {
        let objects = lock(&self.shared.objects);
        let keys = objects.keys();
        keys.map(|key| key.trim_start_matches("team/").to_owned())
            .collect()
    }

    /// What is under `key`.
    pub fn object(&self, key: &str) -> Option<Bytes> {
        lock(&self.shared.objects)
            .get(&format!("team/{key}"))
            .cloned()
    }

    /// Puts something there.
    pub fn put(&self, key: &str, content: impl Into<Bytes>) {
        lock(&self.shared.objects).insert(format!("team/{key}"), content.into());
    }

    /// How many uploads in parts were begun and neither ended nor given up.
    pub fn unfinished(&self) -> usize {
        lock(&self.shared.uploads).len()
    }

    /// How many requests there were so far.
    pub fn requests(&self) -> usize {
        *lock(&self.shared.requests)
    }

    /// Waits until there are `n` objects of the kind that lies in `v1/<shelf>`.
    pub async fn wait_for(&self, shelf: &str, n: usize) {
        let shelf = format!("v1/{shelf}/");
        while self
            .objects()
            .iter()
            .filter(|key| key.starts_with(&shelf))
            .count()
            < n
        {
            tokio::task::yield_now().await;
        }
    }
}

/// Where a blob of everybody's lies.
pub fn blob_key(digest: &str) -> String {
    let hex = digest.trim_start_matches("sha256:");
    format!("v1/blobs/sha256/{}/{hex}", &hex[..2])
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away is no failure.
            let _ = serving.await;
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let method = request.method().clone();
    let key = request
        .uri()
        .path()
        .trim_start_matches("/bucket/")
        .to_owned();
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
        Some(Fault::Status(status)) => return Ok(error(status)),
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
        _ => error(405),
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

fn header(request: &Request<Incoming>, name: hyper::header::HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

fn etag(content: &Bytes) -> String {
    format!("\"{}\"", &super::content::sha256(content)[7..39])
}

fn get(
    shared: &Shared,
    request: &Request<Incoming>,
    key: &str,
    fault: Option<Fault>,
) -> Response<Body> {
    let Some(mut content) = lock(&shared.objects).get(key).cloned() else {
        return error(404);
    };
    let tag = etag(&content);
    if header(request, IF_MATCH).is_some_and(|wanted| wanted != tag) {
        return error(412);
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
            return error(416);
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
    let none_match = header(&request, IF_NONE_MATCH).is_some();
    let wanted = header(&request, IF_MATCH).map(str::to_owned);
    let Ok(content) = request.into_body().collect().await else {
        return error(400);
    };
    let content = content.to_bytes();
    let tag = etag(&content);
    if let (Some(upload), Some(part)) = (upload, part) {
        let mut uploads = lock(&shared.uploads);
        let Some(parts) = uploads.get_mut(&upload) else {
            return error(404);
        };
        parts.insert(part.parse().expect("a number"), content);
    } else {
        let mut objects = lock(&shared.objects);
        let there = objects.get(&key).map(etag);
        if (none_match && there.is_some()) || wanted.is_some_and(|wanted| there != Some(wanted)) {
            return error(412);
        }
        objects.insert(key, content);
    }
    Response::builder()
        .header(ETAG, tag)
        .body(full(Bytes::new()))
        .expect("an answer")
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
        return error(404);
    };
    let content: Vec<u8> = parts.values().flatten().copied().collect();
    let content = Bytes::from(content);
    let tag = etag(&content);
    lock(&shared.objects).insert(key, content);
    text(
        200,
        &format!(
            "<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
        ),
    )
}

fn delete(shared: &Shared, request: &Request<Incoming>, key: &str) -> Response<Body> {
    match query(request, "uploadId") {
        Some(upload) => drop(lock(&shared.uploads).remove(&upload)),
        None => drop(lock(&shared.objects).remove(key)),
    }
    text(204, "")
}

fn error(status: u16) -> Response<Body> {
    text(
        status,
        "<Error><Code>Scripted</Code><Message>so it was scripted</Message></Error>",
    )
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
