//! What stands in Docker's `config.json`, and what of it is of no use here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::{Credential, Secret};
use crate::oci::Namespace;

/// Most of a key that is shown, in characters: longer than any host name.
const KEY_SHOWN_MAX: usize = 300;

/// What is in a file.
#[derive(Debug)]
pub(super) struct Content {
    /// Those with the longest prefix first.
    pub(super) entries: Arc<[Entry]>,
    /// What of it is not used, in words for the operator.
    pub(super) unused: Vec<String>,
}

/// One key of `auths`.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) namespace: Namespace,
    pub(super) prefix: String,
    /// `None` where it makes no sense.
    pub(super) credential: Option<Credential>,
}

#[derive(Deserialize)]
struct Raw {
    // In the order of their names, so that what is said of them is said in the same order every time.
    auths: BTreeMap<String, RawEntry>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct RawEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// What is in a file. Keys that name no registry are passed over, as those with wildcards are: a credential is for one
/// registry.
pub(super) fn parse(bytes: &[u8]) -> Option<Content> {
    let raw: Raw = serde_json::from_slice(bytes).ok()?;
    let mut unused = unused_keys(&raw);
    let entries = raw.auths.iter().filter_map(|(key, raw)| {
        let Some((namespace, prefix)) = registry_and_prefix(key) else {
            unused.push(format!("{} of `auths` names no registry", shown(key)));
            return None;
        };
        // Docker leaves an empty one where a helper keeps the secret.
        if raw.is_empty() {
            let empty =
                "has nothing to log in with; perhaps a store keeps it, which `exec` can ask";
            unused.push(format!("{} of `auths` {empty}", shown(key)));
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
    Some(Content {
        entries: entries.into(),
        unused,
    })
}

/// The keys beside those that are read, as far as there is something behind them.
fn unused_keys(raw: &Raw) -> Vec<String> {
    let is_there = |(_, value): &(&String, &serde_json::Value)| match value {
        serde_json::Value::Null => false,
        serde_json::Value::String(text) => !text.is_empty(),
        serde_json::Value::Array(list) => !list.is_empty(),
        serde_json::Value::Object(fields) => !fields.is_empty(),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) => true,
    };
    let top = raw.others.iter().filter(is_there);
    let top = top.map(|(key, _)| {
        let hint = match &**key {
            "credsStore" | "credHelpers" => "; name the helper under `exec`",
            _ => "",
        };
        format!("{} is not used{hint}", shown(key))
    });
    let entries = raw.auths.values();
    let within = entries.flat_map(|entry| entry.others.iter().filter(is_there));
    // Clients of old wrote an address nobody asks for any more.
    let within = within.filter(|(key, _)| !matches!(&***key, "email" | "serveraddress"));
    let within: BTreeSet<_> = within.map(|(key, _)| key).collect();
    let within = within.iter();
    top.chain(within.map(|key| format!("{} below `auths` is not used", shown(key))))
        .collect()
}

/// A key as it may be shown: not where it could hold a password, and never whole where it is long.
fn shown(key: &str) -> String {
    if key.contains('@') {
        return "a key with an `@`".to_owned();
    }
    let start: String = key.chars().take(KEY_SHOWN_MAX).collect();
    format!("{start:?}")
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
            return sound(Credential::identity(token));
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

    #[test]
    fn what_is_not_used_of_a_file_is_told_without_its_values() {
        let json = r#"{"auths":{
            "ghcr.io": {"auth":"dTpwOnE=","email":"a@b","extra":"hunter2"},
            "quay.io": {},
            "*.azurecr.io": {"auth":"dTpwOnE="},
            "u:hunter2@evil.example": {"auth":"dTpwOnE="}},
            "credsStore":"","credHelpers":{"gcr.io":"gcloud"},"HttpHeaders":{"X":"hunter2"},"psFormat":null}"#;
        let unused = parse(json.as_bytes()).unwrap().unused;
        let expected = [
            r#""HttpHeaders" is not used"#,
            r#""credHelpers" is not used; name the helper under `exec`"#,
            r#""extra" below `auths` is not used"#,
            r#""*.azurecr.io" of `auths` names no registry"#,
            r#""quay.io" of `auths` has nothing to log in with; perhaps a store keeps it, which `exec` can ask"#,
            "a key with an `@` of `auths` names no registry",
        ];
        assert_eq!(unused, expected);
        let usual = br#"{"auths":{"ghcr.io":{"auth":"dTpwOnE="}}}"#;
        assert!(parse(usual).unwrap().unused.is_empty());
    }
}
