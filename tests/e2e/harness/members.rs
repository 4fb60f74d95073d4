//! A registry that shows its images to members alone, by tokens that a service of its own issues: what Debian's
//! `docker-registry` does only for who signs tokens.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{digest, secrets};

/// The only member, and the word that lets it in. Its token is always the same, as those of GitHub's registry are.
pub(crate) const MEMBER: &str = "alice:canary-password";
const TOKEN: &str = "canary-token";

/// Base64 of [`MEMBER`].
const MEMBER_ENCODED: &str = "YWxpY2U6Y2FuYXJ5LXBhc3N3b3Jk";

/// A running registry and its token service, both on loopback without TLS.
pub(crate) struct Members {
    registry: Server,
    /// Kept running with the registry stopped: it is another service.
    _tokens: Server,
}

impl Members {
    /// Starts a registry over `storage`, which a `docker-registry` has filled.
    pub(crate) fn start(storage: &Path) -> Self {
        for secret in ["canary-password", TOKEN, MEMBER_ENCODED] {
            secrets::plant(secret);
        }
        let tokens = Server::start(|head| match head.authorization() {
            _ if head.method != "GET" => Reply::status(405),
            Some(given) if given == format!("Basic {MEMBER_ENCODED}") => Reply::json(
                200,
                &serde_json::json!({ "token": TOKEN, "expires_in": 3600 }),
            ),
            Some(_) | None => Reply::status(401),
        });
        let (storage, realm) = (storage.to_owned(), format!("{}/token", tokens.url()));
        let registry = Server::start(move |head| {
            if head.authorization() != Some(&format!("Bearer {TOKEN}")) {
                let challenge = format!(r#"Bearer realm="{realm}",service="members""#);
                return Reply::status(401).header("WWW-Authenticate", &challenge);
            }
            content(&storage, &head.path).unwrap_or_else(|| Reply::status(404))
        });
        Self {
            registry,
            _tokens: tokens,
        }
    }

    /// Where the registry is.
    pub(crate) fn url(&self) -> String {
        self.registry.url()
    }

    /// Stops the registry. Its token service goes on.
    pub(crate) fn stop(&mut self) {
        self.registry.stop();
    }
}

/// What is stored for a path of the registry protocol.
fn content(storage: &Path, path: &str) -> Option<Reply> {
    let root = storage.join("docker/registry/v2");
    let path = path.strip_prefix("/v2/")?;
    let data = |name: &str| -> PathBuf {
        let hex = digest::hex(name);
        root.join("blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    };
    if let Some((_, blob)) = path.split_once("/blobs/") {
        let bytes = fs::read(data(blob)).ok()?;
        return Some(Reply::new(200, bytes, "application/octet-stream"));
    }
    let (name, reference) = path.split_once("/manifests/")?;
    let name = if reference.starts_with("sha256:") {
        reference.to_owned()
    } else {
        let tags = root.join("repositories").join(name).join("_manifests/tags");
        fs::read_to_string(tags.join(reference).join("current/link")).ok()?
    };
    let bytes = fs::read(data(&name)).ok()?;
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let media_type = manifest["mediaType"].as_str()?.to_owned();
    Some(Reply::new(200, bytes, &media_type).header("Docker-Content-Digest", &name))
}

/// The head of a request.
struct Head {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let line = lines.next()?;
        let mut parts = line.split(' ');
        let (method, target) = (parts.next()?.to_owned(), parts.next()?);
        let path = target.split('?').next()?.to_owned();
        let headers = lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_ascii_lowercase(), value.trim().to_owned()))
            });
        Some(Self {
            method,
            path,
            headers: headers.collect(),
        })
    }

    fn authorization(&self) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(name, _)| name == "authorization")?;
        Some(value)
    }
}

/// A whole answer.
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: u16, body: Vec<u8>, media_type: &str) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), media_type.to_owned())],
            body,
        }
    }

    fn status(status: u16) -> Self {
        Self::json(status, &serde_json::json!({ "errors": [] }))
    }

    fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status, body.to_string().into_bytes(), "application/json")
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn write(&self, stream: &mut TcpStream, has_body: bool) -> std::io::Result<()> {
        let mut head = format!(
            "HTTP/1.1 {} Said\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.status,
            self.body.len()
        );
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        if has_body {
            stream.write_all(&self.body)?;
        }
        Ok(())
    }
}

/// A port of loopback that answers one request per connection. Ends when it is dropped.
struct Server {
    port: u16,
    stopped: Arc<AtomicBool>,
}

impl Server {
    fn start(answer: impl Fn(&Head) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stopped = Arc::new(AtomicBool::new(false));
        let (answer, is_over) = (Arc::new(answer), Arc::clone(&stopped));
        thread::spawn(move || {
            for client in listener.incoming() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let (answer, mut client) = (Arc::clone(&answer), client.unwrap());
                thread::spawn(move || {
                    if let Some(head) = Head::read(&client) {
                        let reply = answer(&head);
                        // The other side may have left.
                        let _ = reply.write(&mut client, head.method != "HEAD");
                    }
                });
            }
        });
        Self { port, stopped }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn stop(&mut self) {
        if !self.stopped.swap(true, Ordering::Relaxed) {
            // Wakes the thread, which then closes the port.
            let _ = TcpStream::connect(("127.0.0.1", self.port));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
