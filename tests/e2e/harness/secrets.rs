//! What the whole run of the tests writes down, and what must not be in it: kept for the check at the end of `tests/run`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where `tests/run` wants it. Without, nothing is kept.
const DIRECTORY: &str = "ENTREPOT_TEST_LOGS";

/// How much a mirror says whose log is kept: every word of ours.
pub(crate) const LOG_LEVEL: &str = "ENTREPOT_LOG_LEVEL=info,entrepot=trace";

fn folder(name: &str) -> Option<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is no configuration of the mirror"
    )]
    let directory = std::env::var_os(DIRECTORY)?;
    let folder = Path::new(&directory).join(name);
    fs::create_dir_all(&folder).unwrap();
    Some(folder)
}

/// Whether anything is kept.
pub(crate) fn are_looked_for() -> bool {
    folder("logs").is_some()
}

/// Keeps the log of a mirror.
pub(crate) fn keep_log(log: &Path) {
    static KEPT: AtomicUsize = AtomicUsize::new(0);
    if let Some(folder) = folder("logs") {
        let n = KEPT.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e-{}-{n}", process::id());
        // A test may have taken its directory away.
        let _ = fs::copy(log, folder.join(name));
    }
}

/// Takes down that `secret`, which comes out of a file, was planted.
pub(crate) fn plant(secret: &str) {
    if let Some(folder) = folder("planted") {
        let path = folder.join(format!("e2e-{}", process::id()));
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        writeln!(file, "file\t{secret}").unwrap();
    }
}
