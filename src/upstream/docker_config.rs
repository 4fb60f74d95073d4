//! Docker's `config.json`, as `docker login` writes it and as Kubernetes mounts a pull secret (`.dockerconfigjson`).
//!
//! It is looked at whenever a credential of it is needed, and read again when it has changed. What cannot be read any
//! more leaves what was read before: whoever replaces a file carelessly must not lock us out. An entry that makes no
//! sense is an error for its own registry, and for no other.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::config::covers;
use super::{Credential, Error, Secret};
use crate::oci::Namespace;

/// Longest file that is read, in bytes: what Kubernetes lets a secret have.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The name that goes with a token in place of a password. Azure's registries take it so; Docker's own helpers write
/// `<token>` for it.
const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";

/// Why a file is none of Docker's.
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is longer than anything that could be meant.
    #[error("is longer than {} KiB", FILE_BYTES_MAX / 1024)]
    TooLong,
    /// It is not what Docker writes.
    #[error("is not a config.json of Docker: it must be JSON with a mapping `auths`")]
    Malformed,
}

/// One such file. Its secrets are not printed.
#[derive(Debug)]
pub struct DockerConfig {
    path: PathBuf,
    read: Mutex<Version>,
    /// Held by the one who looks at the file.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Clone)]
struct Version {
    stamp: Option<Stamp>,
    entries: Arc<[Entry]>,
}

/// What tells one version of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// One key of `auths`.
#[derive(Debug)]
struct Entry {
    namespace: Namespace,
    prefix: String,
    /// `None` where it makes no sense.
    credential: Option<Credential>,
}

impl DockerConfig {
    /// Reads the file at `path`. Blocks.
    ///
    /// # Errors
    /// [`DockerConfigError`].
    pub fn load(path: PathBuf) -> Result<Self, DockerConfigError> {
        let stamp = stamp(&path);
        let entries = read(&path)?;
        let read = Mutex::new(Version { stamp, entries });
        Ok(Self {
            path,
            read,
            turn: Arc::default(),
        })
    }

    /// The name of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The credential for `repository` of `namespace`, by what is in the file now. `canonical` gives the one name of a
    /// registry.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// `Refused` where there is an entry that makes no sense.
    pub(super) async fn find(
        self: &Arc<Self>,
        namespace: &Namespace,
        repository: &str,
        canonical: &(dyn Fn(&Namespace) -> Namespace + Sync),
    ) -> Result<Option<Credential>, Error> {
        let file = Arc::clone(self);
        // An error is that of a runtime that shuts down.
        let _ = spawn_blocking(move || file.look()).await;
        match self.entry(namespace, repository, canonical) {
            None => Ok(None),
            Some(Some(credential)) => Ok(Some(credential)),
            Some(None) => Err(Error::Refused(format!(
                "the credential for {namespace} in {} makes no sense",
                self.path.display()
            ))),
        }
    }

    /// Whether there is an entry for `repository` of `namespace`, by what was read last. A look at the file begins, of
    /// which the next one hears.
    pub(super) fn has(
        self: &Arc<Self>,
        namespace: &Namespace,
        repository: &str,
        canonical: &(dyn Fn(&Namespace) -> Namespace + Sync),
    ) -> bool {
        let runtime = tokio::runtime::Handle::try_current();
        if let (Ok(runtime), Ok(turn)) = (runtime, Arc::clone(&self.turn).try_lock_owned()) {
            let file = Arc::clone(self);
            // Nobody waits for it.
            drop(runtime.spawn_blocking(move || {
                file.look();
                drop(turn);
            }));
        }
        self.entry(namespace, repository, canonical).is_some()
    }

    #[expect(
        clippy::option_option,
        reason = "no entry, anonymous, and a credential are three things"
    )]
    fn entry(
        &self,
        namespace: &Namespace,
        repository: &str,
        canonical: &(dyn Fn(&Namespace) -> Namespace + Sync),
    ) -> Option<Option<Credential>> {
        let entries = Arc::clone(&self.lock().entries);
        let mut fitting = entries.iter().filter(|entry| {
            covers(&entry.prefix, repository) && canonical(&entry.namespace) == *namespace
        });
        fitting.next().map(|entry| entry.credential.clone())
    }

    /// Reads the file again if it has changed. Blocks.
    fn look(&self) {
        let stamp = stamp(&self.path);
        if self.lock().stamp == stamp {
            return;
        }
        let outcome = read(&self.path);
        let mut version = self.lock();
        version.stamp = stamp;
        let path = self.path.display();
        match outcome {
            Ok(entries) => {
                version.entries = entries;
                tracing::info!(%path, "credentials were read again");
            }
            Err(error) => tracing::error!(%path, %error, "the credentials of before go on"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Version> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn read(path: &Path) -> Result<Arc<[Entry]>, DockerConfigError> {
    // Asked before it is opened: opening a pipe waits for its other end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file").into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(DockerConfigError::TooLong);
    }
    parse(&bytes).ok_or(DockerConfigError::Malformed)
}

#[derive(Deserialize)]
struct Raw {
    auths: HashMap<String, RawEntry>,
}

#[derive(Deserialize)]
struct RawEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// The entries of a file, those with the longest prefix first. Keys that name no registry are passed over, as those
/// with wildcards are: a credential is for one registry.
fn parse(bytes: &[u8]) -> Option<Arc<[Entry]>> {
    let raw: Raw = serde_json::from_slice(bytes).ok()?;
    let entries = raw.auths.iter().filter_map(|(key, raw)| {
        let (namespace, prefix) = registry_and_prefix(key)?;
        // Docker leaves an empty one where a helper keeps the secret.
        if raw.is_empty() {
            return None;
        }
        let credential = raw.credential();
        Some(Entry {
            namespace,
            prefix,
            credential,
        })
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.prefix.len()));
    Some(entries.into())
}

/// The registry and the repositories of a key: `ghcr.io`, `ghcr.io/team`, `https://ghcr.io`,
/// `https://index.docker.io/v1/`.
fn registry_and_prefix(key: &str) -> Option<(Namespace, String)> {
    let bare = key.strip_prefix("https://").unwrap_or(key);
    let bare = bare.strip_prefix("http://").unwrap_or(bare);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = path.trim_end_matches('/');
    let is_interface = bare.len() < key.len() && matches!(path, "v1" | "v2");
    let prefix = if is_interface { "" } else { path };
    Some((host.parse().ok()?, prefix.to_owned()))
}

impl RawEntry {
    fn texts(&self) -> [Option<&str>; 5] {
        let texts = [
            &self.auth,
            &self.username,
            &self.password,
            &self.identitytoken,
            &self.registrytoken,
        ];
        texts.map(|text| text.as_deref().filter(|text| !text.is_empty()))
    }

    fn is_empty(&self) -> bool {
        self.texts().iter().all(Option::is_none)
    }

    fn credential(&self) -> Option<Credential> {
        let [auth, username, password, identity, registry] = self.texts();
        if let Some(token) = registry {
            return sound(Credential::token(token));
        }
        if let Some(token) = identity {
            return sound(with_token(token));
        }
        if let (Some(username), Some(password)) = (username, password) {
            return sound(Credential::password(username, Secret::new(password)));
        }
        let decoded = BASE64_STANDARD.decode(auth?.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (username, password) = text.split_once(':')?;
        // Docker for Windows once padded them.
        let password = password.trim_end_matches('\0');
        sound(Credential::password(username, Secret::new(password)))
    }
}

/// What a name that stands for a token comes to, as Docker writes it.
pub(super) fn with_token(token: &str) -> Credential {
    Credential::password(TOKEN_USER, Secret::new(token))
}

/// The credential, unless it would say something else on the wire than it says here.
pub(super) fn sound(credential: Credential) -> Option<Credential> {
    let is_text = |text: &str| !text.chars().any(char::is_control);
    let is_sound = is_text(&credential.username)
        && is_text(credential.password.expose())
        && !credential.username.contains(':')
        && !credential.password.expose().is_empty();
    is_sound.then_some(credential)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::option_option,
        reason = "no entry, anonymous, and a credential are three things"
    )]
    fn found(json: &str, namespace: &str, repository: &str) -> Option<Option<(String, String)>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, json).unwrap();
        let file = DockerConfig::load(path).unwrap();
        let namespace = namespace.parse().unwrap();
        let canonical = |name: &Namespace| crate::upstream::canonical(name);
        let entry = file.entry(&namespace, repository, &canonical);
        entry.map(|entry| entry.map(|it| (it.username, it.password.expose().to_owned())))
    }

    #[track_caller]
    #[expect(
        clippy::option_option,
        reason = "no entry, anonymous, and a credential are three things"
    )]
    fn check(json: &str, namespace: &str, expected: Option<Option<(&str, &str)>>) {
        let expected = expected.map(|it| it.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(found(json, namespace, "team/app"), expected, "{json}");
    }

    #[test]
    fn all_forms_of_an_entry_are_read() {
        let up = Some(Some(("u", "p:q")));
        check(
            r#"{"auths":{"ghcr.io":{"auth":"dTpwOnE="}}}"#,
            "ghcr.io",
            up,
        );
        check(
            r#"{"auths":{"https://ghcr.io/v2/":{"auth":"dTpwOnE="}}}"#,
            "ghcr.io",
            up,
        );
        check(
            r#"{"auths":{"https://index.docker.io/v1/":{"username":"u","password":"p:q"}}}"#,
            "docker.io",
            up,
        );
        check(
            r#"{"auths":{"a.azurecr.io":{"auth":"eDo=","identitytoken":"t"}}}"#,
            "a.azurecr.io",
            Some(Some((TOKEN_USER, "t"))),
        );
        check(
            r#"{"auths":{"r.example":{"registrytoken":"t"}},"credsStore":"x","HttpHeaders":{}}"#,
            "r.example",
            Some(Some(("", "t"))),
        );
    }

    #[test]
    fn the_longest_prefix_counts_and_other_registries_do_not() {
        let json = r#"{"auths":{
            "ghcr.io": {"username":"all","password":"p"},
            "ghcr.io/team": {"username":"team","password":"p"},
            "ghcr.io/te": {"username":"te","password":"p"},
            "*.ghcr.io": {"username":"wild","password":"p"},
            "user@evil.example": {"username":"x","password":"p"},
            "": {"username":"x","password":"p"}}}"#;
        check(json, "ghcr.io", Some(Some(("team", "p"))));
        check(json, "evil.example", None);
        check(json, "x.ghcr.io", None);
    }

    #[test]
    fn an_entry_that_makes_no_sense_is_no_anonymous_one() {
        for entry in [
            r#"{"auth":"not base64!"}"#,
            r#"{"auth":"dQ=="}"#,
            r#"{"auth":"dTo="}"#,
            r#"{"username":"u"}"#,
            r#"{"password":"p"}"#,
            r#"{"username":"u\r\nX: y","password":"p"}"#,
            r#"{"username":"a:b","password":"p"}"#,
            r#"{"registrytoken":"a\nb"}"#,
        ] {
            check(
                &format!(r#"{{"auths":{{"ghcr.io":{entry}}}}}"#),
                "ghcr.io",
                Some(None),
            );
        }
        check(r#"{"auths":{"ghcr.io":{}}}"#, "ghcr.io", None);
    }

    #[test]
    fn what_docker_does_not_write_is_refused_and_not_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        for text in [
            "",
            "hunter2",
            "[]",
            "{}",
            r#"{"auths":[]}"#,
            r#"{"auths":{"a":"hunter2"}}"#,
        ] {
            fs::write(&path, text).unwrap();
            let error = DockerConfig::load(path.clone()).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(DockerConfig::load(directory.path().join("missing")).is_err());
        assert!(DockerConfig::load(directory.path().to_owned()).is_err());
    }
}
