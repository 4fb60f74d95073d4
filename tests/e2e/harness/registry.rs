//! Debian's `docker-registry` over TLS, and what it was asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::certificates::Certificates;
use super::process::{Daemon, accepts, free_port};

/// A running registry.
pub(crate) struct Registry {
    daemon: Daemon,
    port: u16,
    name: String,
    directory: PathBuf,
}

/// One line of the registry's access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// The request target, with its query.
    pub(crate) target: String,
    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
}

/// Whom a registry serves.
pub(crate) enum Audience {
    /// Anybody, pushes included.
    Makers,
    /// Anybody who pulls. Registries like this may share a storage.
    Readers,
    /// Whoever is in this file of Apache's `htpasswd` format, to pull.
    Members(PathBuf),
}

impl Registry {
    /// Starts a registry over `storage`.
    pub(crate) fn start(
        name: &str,
        directory: &Path,
        storage: &Path,
        certificates: &Certificates,
        audience: &Audience,
    ) -> Self {
        let port = free_port();
        let mut configuration = serde_json::json!({
            "version": "0.1",
            "log": { "level": "warn", "accesslog": { "disabled": false } },
            "storage": {
                "filesystem": { "rootdirectory": storage },
                "maintenance": { "readonly": { "enabled": !matches!(audience, Audience::Makers) } },
            },
            "http": {
                "addr": format!("127.0.0.1:{port}"),
                "tls": { "certificate": certificates.certificate, "key": certificates.key },
            },
        });
        if let Audience::Members(file) = audience {
            configuration["auth"] =
                serde_json::json!({ "htpasswd": { "realm": "members", "path": file } });
        }
        let file = directory.join(format!("{name}.yml"));
        fs::write(&file, configuration.to_string()).unwrap();

        Self {
            daemon: serve(name, directory, port),
            port,
            name: name.to_owned(),
            directory: directory.to_owned(),
        }
    }

    /// Starts a registry that is itself a mirror, of the registry at `url`, over `storage`.
    pub(crate) fn start_as_mirror(
        name: &str,
        directory: &Path,
        storage: &Path,
        certificates: &Certificates,
        url: &str,
    ) -> Self {
        let port = free_port();
        let configuration = serde_json::json!({
            "version": "0.1",
            "log": { "level": "warn" },
            "storage": { "filesystem": { "rootdirectory": storage } },
            "http": { "addr": format!("127.0.0.1:{port}") },
            "proxy": { "remoteurl": url },
        });
        let file = directory.join(format!("{name}.yml"));
        fs::write(&file, configuration.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command
            .env("SSL_CERT_FILE", &certificates.authority)
            .arg("serve")
            .arg(file);
        let mut daemon = Daemon::start(name, &mut command, directory);
        daemon.wait_until(|| accepts(port));
        Self {
            daemon,
            port,
            name: name.to_owned(),
            directory: directory.to_owned(),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Stops the registry and returns all it was ever asked. A line is written once its answer has ended, so only a
    /// stopped registry's log is sure to be whole.
    pub(crate) fn stop(&mut self) -> Vec<Asked> {
        self.daemon.stop();
        self.daemon.log().lines().filter_map(asked).collect()
    }

    /// Returns all the registry was asked so far, and starts it again, at the same port, with an empty log.
    pub(crate) fn restart(&mut self) -> Vec<Asked> {
        let asked = self.stop();
        self.daemon.forget_log();
        self.daemon = serve(&self.name, &self.directory, self.port);
        asked
    }
}

/// Runs a registry with the configuration `<directory>/<name>.yml`.
fn serve(name: &str, directory: &Path, port: u16) -> Daemon {
    let configuration = directory.join(format!("{name}.yml"));
    let mut command = Command::new("docker-registry");
    let mut daemon = Daemon::start(name, command.arg("serve").arg(configuration), directory);
    daemon.wait_until(|| accepts(port));
    daemon
}

/// Reads a line in Apache's combined format, as in
/// `127.0.0.1 - - [22/Nov/2026:06:41:20 +0000] "GET /v2/ HTTP/1.1" 200 2 "" "curl/7.88.1"`; others are not of the
/// access log.
fn asked(line: &str) -> Option<Asked> {
    let mut parts = line.split('"');
    parts.next().filter(|client| client.ends_with("] "))?;
    let mut request = parts.next()?.split(' ');
    let mut answer = parts.next()?.split_whitespace();
    Some(Asked {
        method: request.next()?.to_owned(),
        target: request.next()?.to_owned(),
        status: answer.next()?.parse().ok()?,
        body_bytes: answer.next()?.parse().ok()?,
    })
}

/// Bytes of the blob `digest` that went out. As many as the blob has: it was fetched once.
pub(crate) fn blob_bytes(asked: &[Asked], digest: &str) -> u64 {
    let blob = format!("/blobs/{digest}");
    asked
        .iter()
        .filter(|asked| asked.method == "GET" && asked.target.contains(&blob))
        .map(|asked| asked.body_bytes)
        .sum()
}
