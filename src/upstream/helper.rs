//! A program that knows a credential: `get` of Docker's credential helpers, which is how the registries of the large
//! clouds give theirs out, for some hours each.
//!
//! It is started without a shell and with hardly an environment, gets the registry on its standard input, and has some
//! seconds and some kilobytes to answer. One runs at a time; who comes meanwhile waits for it, or takes what it said
//! before while that is good.

use std::fmt;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::docker_file::sound;
use super::{Credential, Error, Secret};
use crate::clock::Clock;
use crate::oci::Namespace;

/// The longest a helper may take. Those of the clouds ask an interface over the network.
const HELPER_TIMEOUT: Duration = Duration::from_secs(10);

/// Most of its answer that is read, in bytes. Amazon's passwords have 2 KiB, tokens up to 8 KiB.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// How long before its end a credential is asked for anew.
const RENEWED_EARLY: Duration = Duration::from_mins(2);

/// How long a helper is left alone that failed, or whose credential was refused.
const PAUSE: Duration = Duration::from_secs(10);

/// What helpers say, with a failure, where they know nothing of the registry (docker-credential-helpers,
/// `errCredentialsNotFoundMessage`).
const NOT_FOUND: &str = "credentials not found in native keychain";

/// What helpers write in place of a name where the secret is an identity token.
const TOKEN: &str = "<token>";

/// A program that knows the credential of one registry.
pub struct Helper {
    command: Vec<String>,
    environment: Vec<(String, Secret)>,
    lifetime: Duration,
    said: Mutex<Option<Said>>,
    /// Held by the one who asks it.
    turn: tokio::sync::Mutex<()>,
}

/// What it said last.
#[derive(Clone)]
struct Said {
    outcome: Result<Option<Credential>, Error>,
    at: Instant,
    good_until: Instant,
}

impl Helper {
    /// The program `command` with its arguments, `get` aside. It sees `environment` alone, and what it says is good for
    /// `lifetime` where it does not say itself.
    pub fn new(
        command: Vec<String>,
        environment: Vec<(String, Secret)>,
        lifetime: Duration,
    ) -> Self {
        Self {
            command,
            environment,
            lifetime,
            said: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The program.
    pub(super) fn program(&self) -> &str {
        self.command.first().map_or("", |program| program)
    }

    /// The credential for `registry`, always the same one; `None` is anonymous.
    ///
    /// Cancel-safe: a program that is running for the caller alone is ended.
    ///
    /// # Errors
    /// `Unavailable` when the program fails, and nothing it said before is good any more.
    pub(super) async fn lend(
        &self,
        registry: &Namespace,
        clock: &Clock,
    ) -> Result<Option<Credential>, Error> {
        let now = Instant::now();
        let said = self.lock().clone();
        if let Some(said) = &said {
            if now + said.margin() < said.good_until {
                return said.outcome.clone();
            }
            // It is being renewed, and is good still.
            if now < said.good_until
                && let Err(_busy) = self.turn.try_lock()
            {
                return said.outcome.clone();
            }
        }
        self.renewed(registry, said.as_ref(), clock).await
    }

    /// Another credential than `refused`, where there is one.
    ///
    /// Cancel-safe, as [`lend`](Self::lend) is.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn renew(
        &self,
        registry: &Namespace,
        refused: Option<&Credential>,
        clock: &Clock,
    ) -> Result<Option<Credential>, Error> {
        let said = self.lock().clone();
        let is_recent = |said: &Said| Instant::now() < said.at + PAUSE;
        let anew = match &said {
            Some(said) if is_recent(said) => said.outcome.clone(),
            Some(_) | None => self.renewed(registry, said.as_ref(), clock).await,
        }?;
        Ok(anew.filter(|anew| Some(anew) != refused))
    }

    /// What the program says now, or said to somebody else since it had said `before`.
    async fn renewed(
        &self,
        registry: &Namespace,
        before: Option<&Said>,
        clock: &Clock,
    ) -> Result<Option<Credential>, Error> {
        let _turn = self.turn.lock().await;
        if let Some(said) = &*self.lock()
            && before.is_none_or(|before| before.at < said.at)
        {
            return said.outcome.clone();
        }
        let outcome = match timeout(HELPER_TIMEOUT, self.run(registry)).await {
            Ok(outcome) => outcome,
            Err(_) => Err("takes too long".to_owned()),
        };
        let now = Instant::now();
        let said = match outcome {
            Ok(answer) => {
                let lifetime = answer.lifetime(clock.now()).unwrap_or(self.lifetime);
                let outcome = Ok(answer.credential);
                let (at, good_until) = (now, now + lifetime);
                Said {
                    outcome,
                    at,
                    good_until,
                }
            }
            Err(reason) => {
                let program = self.command.first();
                tracing::error!(program, %registry, reason, "a credential helper failed");
                // Never without a credential, where there should be one.
                let error = Error::unavailable(format!("the credential helper {reason}"));
                let outcome = match before {
                    Some(before) if now < before.good_until => before.outcome.clone(),
                    Some(_) | None => Err(error),
                };
                let (at, good_until) = (now, now + PAUSE);
                Said {
                    outcome,
                    at,
                    good_until,
                }
            }
        };
        *self.lock() = Some(said.clone());
        said.outcome
    }

    /// Runs the program once.
    async fn run(&self, registry: &Namespace) -> Result<Answer, String> {
        // What Docker itself asks its helpers about.
        let registry = match registry.as_str() {
            "docker.io" => "https://index.docker.io/v1/",
            other => other,
        };
        let (program, arguments) = self.command.split_first().ok_or("is not named")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg("get")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It may hold anything, secrets included.
            .stderr(Stdio::null())
            // So that what it starts can be ended with it.
            .process_group(0)
            .kill_on_drop(true);
        for (name, value) in &self.environment {
            command.env(name, value.expose());
        }
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot be started: {error}"))?;
        let group = Group::of(child.id());
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
            return Err("has no input or output".to_owned());
        };
        // One that does not care what it is asked may be gone already.
        let _ = stdin.write_all(registry.as_bytes()).await;
        drop(stdin);
        let mut answer = Vec::new();
        let mut stdout = stdout.take(ANSWER_BYTES_MAX + 1);
        let read = stdout.read_to_end(&mut answer).await;
        read.map_err(|error| format!("cannot be heard: {error}"))?;
        if answer.len() as u64 > ANSWER_BYTES_MAX {
            return Err("says too much".to_owned());
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        group.ended();
        if status.success() {
            return Answer::read(&answer);
        }
        if answer.trim_ascii() == NOT_FOUND.as_bytes() {
            return Ok(Answer::default());
        }
        Err(format!("ends with {status}"))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helper")
            .field("program", &self.command.first())
            .finish_non_exhaustive()
    }
}

impl Said {
    /// How long before its end it is asked for anew: never more than a tenth of its life.
    fn margin(&self) -> Duration {
        RENEWED_EARLY.min((self.good_until - self.at) / 10)
    }
}

/// The processes of a helper. They are ended with it where it has not ended by itself.
struct Group(Option<Pid>);

impl Group {
    fn of(id: Option<u32>) -> Self {
        let id = id.and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// Its number may be somebody else's from now on.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended in this moment.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The answer of a helper.
#[derive(Debug, Default)]
struct Answer {
    credential: Option<Credential>,
    expires: Option<SystemTime>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(rename = "Username")]
            username: String,
            #[serde(rename = "Secret")]
            secret: String,
            /// Not in Docker's protocol: some helpers know.
            #[serde(default, alias = "Expires", alias = "expiration", alias = "Expiration")]
            expires: Option<String>,
        }
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|_| "does not answer with JSON that has Username and Secret")?;
        let expires = raw.expires.map(|text| {
            let parsed = humantime::parse_rfc3339_weak(&text);
            parsed.map_err(|_| "says of no time of RFC 3339 when the credential ends")
        });
        let credential = match (&*raw.username, &*raw.secret) {
            ("", "") => None,
            (TOKEN, secret) => Some(Credential::identity(secret)),
            (username, secret) => Some(Credential::password(username, Secret::new(secret))),
        };
        let makes_no_sense = "gives a credential that makes no sense";
        Ok(Self {
            credential: match credential {
                Some(credential) => Some(sound(credential).ok_or(makes_no_sense)?),
                None => None,
            },
            expires: expires.transpose()?,
        })
    }

    fn lifetime(&self, now: SystemTime) -> Option<Duration> {
        let left = self.expires?.duration_since(now);
        Some(left.unwrap_or_default())
    }
}
