//! What to log in with: a name and a password, a token, Docker's file, or a program that knows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::problem::{Findings, Place, Problem, Rule};
use super::reader::Section;
use super::tls::warn_of_readers;
use super::value;
use super::written::Written;
use crate::upstream::{Credential, CredentialSource, DockerConfig, Helper, Secret};

/// How long what a helper says is believed where neither it nor the operator says: less than any cloud gives, and long
/// enough that hardly a pull waits for one.
const HELPER_LIFETIME: Duration = Duration::from_mins(15);

/// Where helpers are looked for, and look for programs themselves.
const HELPER_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The keys of a credential as they were written.
pub(super) struct RawCredential {
    place: Place,
    username: Option<Written>,
    password: Option<Written>,
    token: Option<Written>,
    docker_config: Option<Written>,
    helper: Option<RawHelper>,
}

/// `exec`, and the keys beside it.
struct RawHelper {
    command: Vec<Written>,
    environment: Vec<Written>,
    lifetime: Option<Written>,
}

impl RawCredential {
    /// Takes the keys of a credential.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let command = section.texts("exec");
        let environment = section.texts("environment").unwrap_or_default();
        let environment = environment.into_iter().map(Written::into_secret);
        let environment = environment.collect();
        let lifetime = section.text("lifetime");
        Self {
            place: section.place(),
            // People mix the two up, so neither is shown.
            username: section.text("username").map(Written::into_secret),
            password: section.secret("password"),
            token: section.secret("token"),
            docker_config: section.path("docker_config"),
            helper: command.map(|command| RawHelper {
                command,
                environment,
                lifetime,
            }),
        }
    }

    /// Where it was written.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Where the credential comes from; `Some(None)` is anonymous, and `None` follows a problem: a credential that
    /// cannot be used is never taken for none.
    #[expect(
        clippy::option_option,
        reason = "a problem, anonymous, and a credential are three things"
    )]
    pub(super) fn check(&self, findings: &Findings) -> Option<Option<CredentialSource>> {
        let has_pair = self.username.is_some() || self.password.is_some();
        let ways = [
            has_pair,
            self.token.is_some(),
            self.docker_config.is_some(),
            self.helper.is_some(),
        ];
        if ways.iter().filter(|&&is_there| is_there).count() > 1 {
            return self.wrong(
                "has more than one of username and password, token, docker_config and exec",
                findings,
            );
        }
        if let Some(token) = &self.token {
            let token = findings.parse(token, token_text)?;
            return Some(Some(CredentialSource::Fixed(token)));
        }
        if let Some(path) = &self.docker_config {
            let file = docker_config(path, findings)?;
            return Some(Some(CredentialSource::DockerConfig(file)));
        }
        if let Some(helper) = &self.helper {
            let helper = helper.check(&self.place, findings)?;
            return Some(Some(CredentialSource::Helper(Arc::new(helper))));
        }
        self.pair(findings)
    }

    fn wrong<T>(&self, rule: impl Into<Rule>, findings: &Findings) -> Option<T> {
        findings.problem(Problem::of_place(self.place.clone(), rule));
        None
    }

    #[expect(
        clippy::option_option,
        reason = "a problem, anonymous, and a credential are three things"
    )]
    fn pair(&self, findings: &Findings) -> Option<Option<CredentialSource>> {
        let rule = match (&self.username, &self.password) {
            (Some(username), Some(password)) => match (username.text(), password.text()) {
                ("", "") => return Some(None),
                ("", _) => "has an empty username, but a password",
                (_, "") => "has an empty password, but a username",
                (username, password) => {
                    let credential = Credential::password(username, Secret::new(password));
                    return Some(Some(CredentialSource::Fixed(credential)));
                }
            },
            (None, None) => "has neither username nor password; write '' for both to be anonymous",
            (None, Some(_)) => "has no username",
            (Some(_), None) => "has no password",
        };
        self.wrong(rule, findings)
    }
}

impl RawHelper {
    fn check(&self, place: &Place, findings: &Findings) -> Option<Helper> {
        let command: Vec<_> = self.command.iter().map(|it| it.text().to_owned()).collect();
        if command.first().is_none_or(String::is_empty) {
            let rule = "must name a program, such as [docker-credential-ecr-login]";
            findings.problem(Problem::of_place(place.clone(), rule));
            return None;
        }
        let environment = self.environment.iter();
        let mut environment: Vec<_> = environment
            .filter_map(|written| findings.parse(written, variable))
            .collect();
        if !environment.iter().any(|(name, _)| name == "PATH") {
            environment.push(("PATH".to_owned(), Secret::new(HELPER_PATH)));
        }
        let lifetime = match &self.lifetime {
            Some(written) => findings.parse(written, lifetime)?,
            None => HELPER_LIFETIME,
        };
        Some(Helper::new(command, environment, lifetime))
    }
}

/// Docker's file at the path that is written.
pub(super) fn docker_config(written: &Written, findings: &Findings) -> Option<Arc<DockerConfig>> {
    let path: PathBuf = findings.parse(written, value::path)?;
    warn_of_readers("credentials file", &path, findings);
    let load = |_: &str| Ok(DockerConfig::load(path).map_err(|error| error.to_string())?);
    let file = findings.parse(written, load).map(Arc::new)?;
    for what in file.unused() {
        findings.warning(format!("{}: {what}", file.path().display()));
    }
    Some(file)
}

fn token_text(text: &str) -> Result<Credential, Rule> {
    // What may stand behind `Bearer` (RFC 6750 section 2.1), and a little more, which registries may like.
    let is_sound = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_sound {
        return Err("must be a token: visible ASCII without spaces".into());
    }
    Ok(Credential::token(text))
}

fn variable(text: &str) -> Result<(String, Secret), Rule> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !name.contains('\0') && !value.contains('\0'))
        .ok_or("must be NAME=value, such as AWS_REGION=${AWS_REGION}")?;
    Ok((name.to_owned(), Secret::new(value)))
}

fn lifetime(text: &str) -> Result<Duration, Rule> {
    let lifetime = value::duration(text)?;
    if lifetime < Duration::from_secs(1) {
        return Err("must be a second at least: a helper is not started for every request".into());
    }
    Ok(lifetime)
}
