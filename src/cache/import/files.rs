//! The files of a source, be it a directory or an archive, which is not unpacked for that.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::ImportError;

/// Longest document that is read whole, in bytes: an index of thousands of images is some MiB.
const DOCUMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How many links of an archive are followed from one to the next: `docker save` makes one.
const LINKS_MAX: usize = 8;

/// Files by name.
pub(super) enum Files {
    /// Below a directory.
    Directory(PathBuf),
    /// In an archive.
    Archive {
        file: Arc<File>,
        entries: HashMap<String, Entry>,
    },
}

/// What an archive has under a name.
pub(super) enum Entry {
    /// Some bytes of it.
    Content { offset: u64, size: u64 },
    /// What it has under another name.
    Link(String),
}

/// The content of one file, to be read from its beginning.
pub(super) enum Content {
    /// A stretch of a file.
    Stretch {
        file: Arc<File>,
        offset: u64,
        left: u64,
    },
    /// Bytes that were made here.
    Made(Bytes),
}

impl Files {
    pub(super) const fn directory(path: PathBuf) -> Self {
        Self::Directory(path)
    }

    /// A directory, or an archive, whose list of contents is read now.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let file = File::open(path)?;
        let entries = list(&file)?;
        Ok(Self::Archive {
            file: Arc::new(file),
            entries,
        })
    }

    /// The content of the file `name`, if there is one.
    pub(super) fn content(&self, name: &str) -> Result<Option<Content>, ImportError> {
        match self {
            Self::Directory(directory) => {
                // Names that the source itself makes up never lead out of it.
                let path = directory.join(plain(name));
                open_file(&path).map_err(|source| ImportError::Source { path, source })
            }
            Self::Archive { file, entries } => {
                Ok(find(entries, name).map(|(offset, left)| Content::Stretch {
                    file: Arc::clone(file),
                    offset,
                    left,
                }))
            }
        }
    }

    /// The whole of the document `name`, if there is one.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ImportError> {
        let Some(content) = self.content(name)? else {
            return Ok(None);
        };
        let mut document = Vec::new();
        let read = content.take(DOCUMENT_BYTES_MAX).read_to_end(&mut document);
        read.map_err(|source| ImportError::Source {
            path: name.into(),
            source,
        })?;
        Ok(Some(document))
    }
}

fn open_file(path: &Path) -> io::Result<Option<Content>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then(|| Content::Stretch {
        left: metadata.len(),
        file: Arc::new(file),
        offset: 0,
    }))
}

/// Where what in an archive is. Names are looked up and never become paths.
fn list(file: &File) -> io::Result<HashMap<String, Entry>> {
    let mut entries = HashMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = plain(&String::from_utf8_lossy(&entry.path_bytes()));
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let (offset, size) = (entry.raw_file_position(), entry.size());
            entries.insert(name, Entry::Content { offset, size });
        } else if let Some(target) = entry.link_name_bytes() {
            let target = String::from_utf8_lossy(&target).into_owned();
            let target = if kind.is_symlink() {
                let (folder, _) = name.rsplit_once('/').unwrap_or_default();
                plain(&format!("{folder}/{target}"))
            } else {
                plain(&target)
            };
            entries.insert(name, Entry::Link(target));
        }
    }
    Ok(entries)
}

/// A name without `.`, `..` and empty parts.
fn plain(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn find(entries: &HashMap<String, Entry>, name: &str) -> Option<(u64, u64)> {
    let mut entry = entries.get(&plain(name))?;
    for _ in 0..LINKS_MAX {
        match entry {
            Entry::Content { offset, size } => return Some((*offset, *size)),
            Entry::Link(target) => entry = entries.get(target)?,
        }
    }
    None
}

impl Content {
    pub(super) const fn made(bytes: Bytes) -> Self {
        Self::Made(bytes)
    }

    /// How many bytes are left to be read.
    pub(super) fn left(&self) -> u64 {
        match self {
            Self::Stretch { left, .. } => *left,
            Self::Made(bytes) => bytes.len() as u64,
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stretch { file, offset, left } => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX);
                let wanted = wanted.min(buffer.len());
                let read = file.read_at(&mut buffer[..wanted], *offset)?;
                *offset += read as u64;
                *left -= read as u64;
                Ok(read)
            }
            Self::Made(bytes) => {
                let taken = bytes.split_to(bytes.len().min(buffer.len()));
                buffer[..taken.len()].copy_from_slice(&taken);
                Ok(taken.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> File {
        use std::io::Seek as _;

        let mut builder = tar::Builder::new(tempfile::tempfile().expect("a file"));
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        builder
            .append_data(&mut header.clone(), "./a/layer.tar", &b"layer"[..])
            .expect("written");
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Symlink);
        builder
            .append_link(&mut header, "b/layer.tar", "../a/layer.tar")
            .expect("written");
        builder
            .append_link(&mut header, "c/layer.tar", "layer.tar")
            .expect("written");
        let mut file = builder.into_inner().expect("written");
        file.rewind().expect("a file");
        file
    }

    #[test]
    fn a_name_never_leads_out_of_a_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let inside = directory.path().join("inside");
        std::fs::create_dir(&inside).expect("made");
        std::fs::write(directory.path().join("secret"), b"secret").expect("written");
        std::fs::write(inside.join("layer"), b"layer").expect("written");
        let files = Files::directory(inside);
        let read = |name: &str| files.read(name).expect("readable");
        assert_eq!(read("layer").as_deref(), Some(&b"layer"[..]));
        let outside = directory.path().join("secret");
        for name in ["../secret", "a/../../secret", &*outside.to_string_lossy()] {
            assert_eq!(read(name), None, "{name}");
        }
    }

    #[test]
    fn an_archive_is_read_where_it_lies() {
        let file = archive();
        let entries = list(&file).expect("an archive");
        let files = Files::Archive {
            file: Arc::new(file),
            entries,
        };
        let read = |name| files.read(name).expect("readable");
        for name in ["a/layer.tar", "b/layer.tar", "/b/../a/./layer.tar"] {
            assert_eq!(read(name).as_deref(), Some(&b"layer"[..]), "{name}");
        }
        assert_eq!(read("c/layer.tar"), None, "it leads to itself");
        assert_eq!(read("d"), None);
    }
}
