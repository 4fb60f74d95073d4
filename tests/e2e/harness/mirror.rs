//! The program under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::digest;
use super::process::{Daemon, accepts, command, free_port, outcome, run};

/// The built binary.
const BINARY: &str = env!("CARGO_BIN_EXE_entrepot");

/// A running mirror.
pub(crate) struct Mirror {
    daemon: Daemon,
    port: u16,
    cache: PathBuf,
}

impl Mirror {
    /// Starts the mirror with `flags` and its cache below `directory`. A second one there finds what the first has left.
    pub(crate) fn start(directory: &Path, flags: &[String]) -> Self {
        let port = free_port();
        let cache = directory.join("cache");
        let mut command = Command::new(BINARY);
        command
            .env_clear()
            .arg(format!("--cache-dir={}", cache.display()))
            .arg(format!("--port={port}"))
            .args(flags);
        let mut daemon = Daemon::start("mirror", &mut command, directory);
        daemon.wait_until(|| accepts(port) && is_ready(port));
        Self {
            daemon,
            port,
            cache,
        }
    }

    /// `127.0.0.1:<port>`, as clients write a registry.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All the mirror has written.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    /// Removes everything from the cache directory, as an administrator short of space may at any time.
    pub(crate) fn empty_cache(&self) {
        run(command("find")
            .arg(&self.cache)
            .args(["-mindepth", "1", "-delete"]));
    }

    /// SIGTERM, without waiting for what follows.
    pub(crate) fn ask_to_stop(&mut self) {
        self.daemon.ask_to_stop();
    }

    /// SIGTERM, then the status it ended with.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.daemon.stop()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Every file under a final name of the cache below `directory`, as a digest. Each is hashed on the way.
    pub(crate) fn stored_blobs(&self) -> Vec<String> {
        let mut stored = Vec::new();
        for shard in entries(&self.cache.join("v1/blobs/sha256")) {
            for file in entries(&shard) {
                let named = format!("sha256:{}", file.file_name().unwrap().display());
                assert_eq!(
                    digest::of_file(&file),
                    named,
                    "wrong bytes under a final name"
                );
                stored.push(named);
            }
        }
        stored
    }
}

/// The built binary for a run that ends by itself, with an environment that holds none of its variables.
pub(crate) fn entrepot() -> Command {
    let mut command = command(BINARY);
    command.env_clear();
    command
}

fn is_ready(port: u16) -> bool {
    let url = format!("http://127.0.0.1:{port}/readyz");
    outcome(command("curl").args(["--silent", "--fail", "--output", "/dev/null", &url]))
        .status
        .success()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => panic!("{}: {error}", directory.display()),
    }
}
