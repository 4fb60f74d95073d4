//! Reading small files that an operator names.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Longest file that is read, in bytes. A bundle of every public CA is 220 KiB; what is longer was named by mistake,
/// such as a device that never ends.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a file cannot be used, as the end of a sentence about the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It cannot be opened or read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is a directory, device or pipe.
    #[error("is not a regular file")]
    NotAFile,
    /// It is longer than anything that could be meant.
    #[error("is longer than {} KiB", FILE_BYTES_MAX / 1024)]
    TooLong,
    /// It is not text.
    #[error("is not UTF-8 text")]
    NotText,
}

/// Who else may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Its owner, and perhaps its group.
    Restricted,
    /// Everybody on this machine.
    World,
}

/// The bytes of a regular file, and who may read it.
pub(super) fn read_bytes(path: &Path) -> Result<(Vec<u8>, Access), FileError> {
    // Asked before it is opened: opening a pipe waits for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(FileError::NotAFile);
    }
    let file = File::open(path)?;
    let access = match file.metadata()?.permissions().mode() & 0o004 {
        0 => Access::Restricted,
        _ => Access::World,
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLong);
    }
    Ok((bytes, access))
}

/// The text that `bytes` are, without a byte order mark.
pub(super) fn text_of(bytes: Vec<u8>) -> Result<String, FileError> {
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotText)?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(text) => text.to_owned(),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(path: &Path) -> Result<String, FileError> {
        text_of(read_bytes(path)?.0)
    }

    #[test]
    fn what_is_no_small_text_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            path
        };
        let refused = |path: &Path| read_text(path).expect_err("refused").to_string();
        assert!(refused(&directory.path().join("missing")).starts_with("cannot be read: "));
        assert_eq!(refused(directory.path()), "is not a regular file");
        assert_eq!(refused(Path::new("/dev/zero")), "is not a regular file");
        assert_eq!(refused(&path("binary", b"\xff\xfe")), "is not UTF-8 text");
        assert_eq!(
            refused(&path("long", &vec![b'x'; 1024 * 1024 + 1])),
            "is longer than 1024 KiB"
        );
        let marked = read_text(&path("marked", b"\xef\xbb\xbfa: b")).expect("text");
        assert_eq!(marked, "a: b");
    }
}
