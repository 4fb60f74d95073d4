//! A registry of images made of numbers, as many and as large as a test wants: nothing of them is kept anywhere.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::digest;

/// Layers are made in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

/// The type of their manifests.
const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// One image: a configuration, and one layer.
#[derive(Clone)]
pub(crate) struct NumberedImage {
    pub(crate) tag: String,
    pub(crate) manifest: String,
    pub(crate) config: String,
    pub(crate) layer_digest: String,
    pub(crate) layer_bytes: u64,
    seed: u64,
}

/// A registry of one repository, `numbers`, without TLS.
pub(crate) struct Numbers {
    port: u16,
    state: Arc<State>,
}

struct State {
    images: Vec<NumberedImage>,
    body_bytes: AtomicU64,
    is_up: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl NumberedImage {
    fn new(seed: u64, layer_bytes: u64) -> Self {
        let mut hash = digest::Running::new();
        for piece in pieces(seed, 0..layer_bytes) {
            hash.update(&piece);
        }
        let layer_digest = hash.finish();
        let config = format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"seed\":{seed}}}");
        let manifest = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_IMAGE}\",\
             \"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"{}\",\"size\":{}}},\
             \"layers\":[{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"{layer_digest}\",\
             \"size\":{layer_bytes}}}]}}",
            digest::of_bytes(config.as_bytes()),
            config.len()
        );
        Self {
            tag: format!("v{seed}"),
            manifest,
            config,
            layer_digest,
            layer_bytes,
            seed,
        }
    }
}

/// The bytes of a layer that lie in `range`, a piece at a time.
fn pieces(seed: u64, range: std::ops::Range<u64>) -> impl Iterator<Item = Vec<u8>> {
    let first = range.start / PIECE_BYTES;
    let last = range.end.div_ceil(PIECE_BYTES);
    (first..last).map(move |n| {
        let mut piece = vec![0; usize::try_from(PIECE_BYTES).unwrap()];
        fastrand::Rng::with_seed(seed << 32 | n).fill(&mut piece);
        let within = |at: u64| {
            let at = at.clamp(n * PIECE_BYTES, (n + 1) * PIECE_BYTES) - n * PIECE_BYTES;
            usize::try_from(at).unwrap()
        };
        piece[within(range.start)..within(range.end)].to_vec()
    })
}

impl Numbers {
    /// A registry of `n` images with layers of so many bytes.
    pub(crate) fn start(n: u64, layer_bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let images = (1..=n).map(|seed| NumberedImage::new(seed, layer_bytes));
        let state = Arc::new(State {
            images: images.collect(),
            body_bytes: AtomicU64::new(0),
            is_up: AtomicBool::new(true),
            open: Mutex::default(),
        });
        let port = listener.local_addr().unwrap().port();
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&serving);
                if state.is_up.load(Ordering::SeqCst) {
                    state.open.lock().unwrap().push(stream.try_clone().unwrap());
                    // A client that goes away is no failure.
                    thread::spawn(move || drop(state.serve(stream)));
                }
            }
        });
        Self { port, state }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn images(&self) -> &[NumberedImage] {
        &self.state.images
    }

    /// How many bytes of layers and configurations it has sent.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.state.body_bytes.load(Ordering::SeqCst)
    }

    /// Closes every connection, and each new one at once.
    pub(crate) fn stop(&self) {
        self.state.is_up.store(false, Ordering::SeqCst);
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Answers again.
    pub(crate) fn resume(&self) {
        self.state.is_up.store(true, Ordering::SeqCst);
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let (mut request, mut range) = (String::new(), None);
            if reader.read_line(&mut request)? == 0 {
                return Ok(());
            }
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                let line = line.trim_end().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.strip_prefix("range: bytes=") {
                    range = value.split_once('-').map(|(start, end)| {
                        let end = end.parse::<u64>().map_or(u64::MAX, |last| last + 1);
                        start.parse::<u64>().unwrap()..end
                    });
                }
            }
            let mut words = request.split_whitespace();
            let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            self.answer(&mut stream, method == "HEAD", target, range.as_ref())?;
        }
    }

    fn answer(
        &self,
        stream: &mut TcpStream,
        is_head: bool,
        target: &str,
        range: Option<&std::ops::Range<u64>>,
    ) -> std::io::Result<()> {
        let target = target.split('?').next().unwrap_or_default();
        let name = target.rsplit('/').next().unwrap_or_default();
        for image in &self.images {
            let manifest = digest::of_bytes(image.manifest.as_bytes());
            if target.contains("/manifests/") && (name == image.tag || name == manifest) {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {OCI_IMAGE}\r\nDocker-Content-Digest: {manifest}\r\nContent-Length: {}\r\n\r\n",
                    image.manifest.len()
                );
                stream.write_all(head.as_bytes())?;
                return if is_head {
                    Ok(())
                } else {
                    stream.write_all(image.manifest.as_bytes())
                };
            }
            if name == image.layer_digest {
                return self.layer(stream, is_head, image, range);
            }
            if name == digest::of_bytes(image.config.as_bytes()) {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                    image.config.len()
                );
                stream.write_all(head.as_bytes())?;
                return if is_head {
                    Ok(())
                } else {
                    self.send(stream, image.config.as_bytes())
                };
            }
        }
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    }

    fn layer(
        &self,
        stream: &mut TcpStream,
        is_head: bool,
        image: &NumberedImage,
        range: Option<&std::ops::Range<u64>>,
    ) -> std::io::Result<()> {
        let total = image.layer_bytes;
        let wanted = match range {
            Some(range) => range.start..range.end.min(total),
            None => 0..total,
        };
        let head = match range {
            Some(_) => format!(
                "206 Partial Content\r\nContent-Range: bytes {}-{}/{total}",
                wanted.start,
                wanted.end - 1
            ),
            None => "200 OK\r\nAccept-Ranges: bytes".to_owned(),
        };
        let length = wanted.end - wanted.start;
        let head = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        if is_head {
            return Ok(());
        }
        for piece in pieces(image.seed, wanted) {
            self.send(stream, &piece)?;
        }
        Ok(())
    }

    fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        // Before they go: who has them all finds them all counted.
        self.body_bytes
            .fetch_add(bytes.len() as u64, Ordering::SeqCst);
        stream.write_all(bytes)
    }
}
