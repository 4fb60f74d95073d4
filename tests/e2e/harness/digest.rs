//! Digests as clients and registries write them. Apart from the code under test, so as to check it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Bytes read at once: large enough for the hash to be the slow part.
const READ_BYTES: usize = 1 << 20;

/// `sha256:<hex>` of `bytes`.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    written(&Sha256::digest(bytes))
}

/// `sha256:<hex>` of the file at `path`.
pub(crate) fn of_file(path: &Path) -> String {
    of_reader(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// `sha256:<hex>` of all that `reader` gives.
pub(crate) fn of_reader(mut reader: impl Read) -> String {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let n_bytes = reader.read(&mut buffer).unwrap();
        if n_bytes == 0 {
            return written(&hasher.finalize());
        }
        hasher.update(&buffer[..n_bytes]);
    }
}

/// A digest of bytes that come one after the other.
pub(crate) struct Running(Sha256);

impl Running {
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// `sha256:<hex>` of all of them.
    pub(crate) fn finish(self) -> String {
        written(&self.0.finalize())
    }
}

/// The hexadecimal part of `sha256:<hex>`.
pub(crate) fn hex(digest: &str) -> &str {
    digest
        .strip_prefix("sha256:")
        .unwrap_or_else(|| panic!("{digest} is not a sha256 digest"))
}

fn written(hash: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut text = String::from("sha256:");
    for byte in hash {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}
