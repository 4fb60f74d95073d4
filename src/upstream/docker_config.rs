//! Docker's `config.json`, as `docker login` writes it and as Kubernetes mounts a pull secret (`.dockerconfigjson`).
//!
//! It is looked at whenever a credential of it is needed, and read again when it has changed. What cannot be read any
//! more leaves what was read before: whoever replaces a file carelessly must not lock us out. An entry that makes no
//! sense is an error for its own registry, and for no other.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::spawn_blocking;

use super::config::covers;
use super::docker_file::{Content, Entry, parse};
use super::{Credential, Error};
use crate::oci::Namespace;
use crate::stamp::Stamp;

/// Longest file that is read, in bytes: what Kubernetes lets a secret have.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

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
    unused: Vec<String>,
}

#[derive(Debug, Clone)]
struct Version {
    stamp: Option<Stamp>,
    entries: Arc<[Entry]>,
}

impl DockerConfig {
    /// Reads the file at `path`. Blocks.
    ///
    /// # Errors
    /// [`DockerConfigError`].
    pub fn load(path: PathBuf) -> Result<Self, DockerConfigError> {
        let stamp = Stamp::of(&path);
        let Content { entries, unused } = read(&path)?;
        let read = Mutex::new(Version { stamp, entries });
        Ok(Self {
            path,
            read,
            turn: Arc::default(),
            unused,
        })
    }

    /// What of the file is not used, as it was loaded: whoever wrote it may count on that. Names alone, no values.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Whether it says something of the registry `namespace`, by that name or a built-in one.
    pub(super) fn names(&self, namespace: &Namespace) -> bool {
        let entries = Arc::clone(&self.lock().entries);
        entries
            .iter()
            .any(|entry| super::canonical(&entry.namespace) == *namespace)
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
        let stamp = Stamp::of(&self.path);
        if self.lock().stamp == stamp {
            return;
        }
        let outcome = read(&self.path);
        let mut version = self.lock();
        version.stamp = stamp;
        let path = self.path.display();
        match outcome {
            Ok(Content { entries, unused }) => {
                version.entries = entries;
                tracing::info!(%path, "credentials were read again");
                for what in unused {
                    tracing::warn!(%path, "{what}");
                }
            }
            Err(error) => tracing::error!(%path, %error, "the credentials of before go on"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Version> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Result<Content, DockerConfigError> {
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
            Some(Some(("00000000-0000-0000-0000-000000000000", "t"))),
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
