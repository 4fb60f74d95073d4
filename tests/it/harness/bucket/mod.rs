//! An object store in this process, with as much of the protocols as the mirror speaks: objects with ranges and
//! conditions, and uploads in parts. By default it is a correct one; a test scripts what is not.

mod protocol;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::gate::Gate;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status.
    Status(u16),
    /// It is answered with this status, and this code of S3 in the body.
    Code(u16, &'static str),
    /// It is never answered.
    Silence,
    /// The connection ends, and nothing is done.
    Reset,
    /// The object has another last byte.
    WrongBytes,
    /// The connection ends after half the object.
    Cut,
    /// It is answered with 200, and an error in the body.
    ErrorIn200,
    /// It is answered with this status, and XML of a million attributes.
    Attributes(u16),
    /// It does what it is asked, and the answer is lost.
    LostReply,
}

/// Decides about a request by its method and key.
type Rule = Box<dyn Fn(&str, &str) -> Option<Fault> + Send>;

/// Whose protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// S3.
    Amazon,
    /// The XML API of Cloud Storage: S3's, but for conditions.
    Google,
    /// Blob Storage.
    Azure,
}

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
    /// Blocks of Azure by the object they are to be a part of, and their names.
    blocks: Mutex<HashMap<String, HashMap<String, Bytes>>>,
    rule: Mutex<Option<Rule>>,
    /// Requests of this method wait at the gate.
    gate: Mutex<Option<(&'static str, Gate)>>,
    requests: Mutex<usize>,
    attribute_bytes: Mutex<usize>,
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

    /// What makes it the shared tier of a mirror by the protocol of `cloud`, as a YAML flow mapping.
    pub fn keys_of(&self, cloud: Cloud) -> String {
        let (scheme, keys) = match cloud {
            Cloud::Amazon => ("s3", ", access_key: key, secret_key: secret"),
            Cloud::Google => ("gs", ""),
            Cloud::Azure => ("az", ", access_key: account, secret_key: c2VjcmV0"),
        };
        let endpoint = format!("http://{}", self.address);
        format!("{{ url: \"{scheme}://bucket/team\", endpoint: \"{endpoint}\"{keys} }}")
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

    /// How many bytes of answers full of attributes went out.
    pub fn attribute_bytes(&self) -> usize {
        *lock(&self.shared.attribute_bytes)
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
            let service = service_fn(move |request| protocol::answer(Arc::clone(&shared), request));
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away is no failure.
            let _ = serving.await;
        });
    }
}
