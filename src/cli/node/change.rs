//! A step from what is on a node to what shall be, that is done whole or not at all.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Who may read a file that replaces none: everybody, as those that containerd's packages bring.
const MODE: u32 = 0o644;

/// Who may read it until it is in its place: it may have the passwords of the file it replaces.
const MODE_WHILE_WRITTEN: u32 = 0o600;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Make a folder, and those above it.
    Make(PathBuf),
    /// Give a file its second name.
    Keep { file: PathBuf, backup: PathBuf },
    /// Put a text in the place of a file, or where none is.
    Write { file: PathBuf, text: String },
    /// Put a file back from its second name.
    Restore { backup: PathBuf, file: PathBuf },
    /// Remove a file.
    Remove(PathBuf),
    /// Remove a folder, if nobody put anything into it.
    RemoveFolder(PathBuf),
}

impl Change {
    /// Takes the step.
    ///
    /// # Errors
    ///
    /// The file system does not let it. Nothing is half changed then.
    pub(super) fn apply(&self) -> io::Result<()> {
        match self {
            Self::Make(folder) => fs::create_dir_all(folder),
            // The very file, so that its times, mode and owner are kept, too.
            Self::Keep { file, backup } => {
                remove_if_there(backup)?;
                fs::hard_link(file, backup)?;
                sync_folder(backup)
            }
            Self::Write { file, text } => replace(file, text),
            Self::Restore { backup, file } => {
                fs::rename(backup, file)?;
                sync_folder(file)
            }
            Self::Remove(file) => {
                remove_if_there(file)?;
                sync_folder(file)
            }
            Self::RemoveFolder(folder) => match fs::remove_dir(folder) {
                Err(error) if is_in_use(&error) => Ok(()),
                outcome => outcome,
            },
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make(folder) => write!(out, "make {}", folder.display()),
            Self::Keep { file, backup } => {
                write!(out, "keep {} as {}", file.display(), backup.display())
            }
            Self::Write { file, .. } => write!(out, "write {}", file.display()),
            Self::Restore { backup, file } => {
                write!(out, "restore {} from {}", file.display(), backup.display())
            }
            Self::Remove(file) => write!(out, "remove {}", file.display()),
            Self::RemoveFolder(folder) => write!(out, "remove {} if it is empty", folder.display()),
        }
    }
}

/// Somebody else put something into a folder, mounted something there, or removed it.
fn is_in_use(error: &io::Error) -> bool {
    [
        io::ErrorKind::DirectoryNotEmpty,
        io::ErrorKind::ResourceBusy,
        io::ErrorKind::NotFound,
    ]
    .contains(&error.kind())
}

fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Puts `text` in the place of `file`, with its mode: whoever reads meanwhile sees the old file or the new one.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let mode = match fs::metadata(file) {
        Ok(metadata) => metadata.permissions(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Permissions::from_mode(MODE),
        Err(error) => return Err(error),
    };
    let new = file.with_extension("toml.entrepot-new");
    // What an install left that was ended.
    remove_if_there(&new)?;
    let outcome = write(&new, text, mode).and_then(|()| fs::rename(&new, file));
    if outcome.is_err() {
        // The error that counts is the first.
        drop(remove_if_there(&new));
    }
    outcome.and_then(|()| sync_folder(file))
}

fn write(path: &Path, text: &str, mode: Permissions) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE_WHILE_WRITTEN)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(mode)?;
    file.sync_all()
}

/// Makes what happened to the name of `file` last.
fn sync_folder(file: &Path) -> io::Result<()> {
    file.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
