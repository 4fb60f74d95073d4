//! Who may issue a token: the realm of a challenge is whatever the other side wrote, so it is held against rules
//! before anything is sent there (CVE-2026-33540 and its kin).

use reqwest::Url;

use super::challenge::Challenge;
use super::guard::host_of;
use super::table::Row;
use crate::oci::Namespace;

/// Longest realm that is followed, in bytes. Real ones stay below 200.
const REALM_BYTES_MAX: usize = 2048;

/// Longest service that is sent on, in bytes. Real ones are host names or a few words.
const SERVICE_BYTES_MAX: usize = 1024;

/// A token endpoint that may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Realm {
    /// Where to ask.
    pub(super) url: Url,
    /// Whether it may see the registry's credential.
    pub(super) sees_credentials: bool,
}

/// Hosts beside its own that may issue a registry's tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Issuers<'a> {
    /// What the table knows of the registry.
    pub(super) row: &'static Row,
    /// Hosts the operator named; they see the credential.
    pub(super) configured: &'a [Namespace],
}

/// The realm `written` in a challenge of the registry at `registry`.
///
/// # Errors
/// Why it must not be asked, without its path and query.
pub(super) fn decide(written: &str, registry: &Url, issuers: Issuers<'_>) -> Result<Realm, String> {
    if written.is_empty() || written.len() > REALM_BYTES_MAX {
        return Err("the token realm is empty or too long".to_owned());
    }
    let mut url = registry
        .join(written)
        .map_err(|error| format!("the token realm is not a URL: {error}"))?;
    url.set_fragment(None);
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the token realm holds user info".to_owned());
    }
    if url.query_pairs().any(|(name, _)| name == "scope") {
        // It would be asked for beside ours, and whoever wrote it would be shown the token.
        return Err("the token realm chooses what the token is for".to_owned());
    }
    let host = host_of(&url);
    let is_own_host = !host.is_empty() && host == host_of(registry);
    let is_secure = match (registry.scheme(), url.scheme()) {
        (_, "https") => true,
        // A registry that is configured to be reached over plain http has no more to lose on its own host.
        ("http", "http") => is_own_host,
        _ => false,
    };
    if !is_secure {
        return Err(format!(
            "the token realm on {host} is not reached over https"
        ));
    }
    let is_configured = issuers.configured.iter().any(|name| is_at(&url, name));
    if is_own_host || is_configured {
        return Ok(Realm {
            url,
            sees_credentials: true,
        });
    }
    let mut known = issuers.row.realms.iter();
    match known.find(|realm| realm.is(host) && url.port().is_none()) {
        Some(realm) => Ok(Realm {
            sees_credentials: realm.sees_credentials,
            url,
        }),
        None => Err(format!(
            "{host} is not known to issue tokens for {}",
            host_of(registry)
        )),
    }
}

/// The service that `challenge` names, where it is one.
pub(super) fn service(challenge: &Challenge) -> Option<String> {
    let service = challenge.parameter("service")?;
    (service.len() <= SERVICE_BYTES_MAX).then(|| service.to_owned())
}

/// Whether `url` is on the host and port that `name` says.
fn is_at(url: &Url, name: &Namespace) -> bool {
    host_of(url) == name.host() && url.port_or_known_default() == Some(name.port().unwrap_or(443))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::table::UNKNOWN;

    #[track_caller]
    fn check(registry: &str, configured: &str, written: &str, expected: Option<(&str, bool)>) {
        let registry: Url = registry.parse().expect("a URL");
        let configured: Vec<Namespace> = configured
            .split_whitespace()
            .map(|name| name.parse().expect("a namespace"))
            .collect();
        let issuers = Issuers {
            row: Row::find(host_of(&registry)).unwrap_or(&UNKNOWN),
            configured: &configured,
        };
        let realm = decide(written, &registry, issuers).ok();
        let realm = realm.map(|realm| (realm.url.to_string(), realm.sees_credentials));
        let expected = expected.map(|(url, sees)| (url.to_owned(), sees));
        assert_eq!(realm, expected, "{written}");
    }

    #[test]
    fn the_own_host_issues_tokens_at_any_port() {
        let own = "https://r.example/v2/a/manifests/b";
        check(
            own,
            "",
            "https://r.example/token",
            Some(("https://r.example/token", true)),
        );
        check(
            own,
            "",
            "https://r.example:8443/t",
            Some(("https://r.example:8443/t", true)),
        );
        check(
            own,
            "",
            "https://r.example:443/t",
            Some(("https://r.example/t", true)),
        );
        check(own, "", "/token2", Some(("https://r.example/token2", true)));
        check(
            own,
            "",
            "https://r.example/jwt?host=x",
            Some(("https://r.example/jwt?host=x", true)),
        );
    }

    #[test]
    fn another_host_must_be_known() {
        let hub = "https://registry-1.docker.io/v2/";
        check(
            hub,
            "",
            "https://auth.docker.io/token",
            Some(("https://auth.docker.io/token", true)),
        );
        check(hub, "", "https://auth.docker.io:8443/token", None);
        check(hub, "", "https://auth.docker.io.evil.example/token", None);
        let scarf = "https://lscr.io/v2/";
        check(
            scarf,
            "",
            "https://ghcr.io/token",
            Some(("https://ghcr.io/token", false)),
        );
        check(scarf, "", "https://quay.io/v2/auth", None);
        let own = "https://registry.corp.example/v2/";
        check(own, "", "https://gitlab.corp.example/jwt/auth", None);
        check(
            own,
            "gitlab.corp.example sso.example:8443",
            "https://gitlab.corp.example/jwt/auth",
            Some(("https://gitlab.corp.example/jwt/auth", true)),
        );
        check(
            own,
            "gitlab.corp.example",
            "https://gitlab.corp.example:444/jwt",
            None,
        );
        check(
            own,
            "sso.example:8443",
            "https://sso.example:8443/t",
            Some(("https://sso.example:8443/t", true)),
        );
        check(own, "sso.example", "http://sso.example/t", None);
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        let own = "https://r.example/v2/";
        for written in [
            "",
            "https://r.example:5002:5002/v2/token",
            "https://",
            "http://r.example/token",
            "http://169.254.169.254/latest",
            "https://evil.example/token",
            "//evil.example/token",
            "file:///etc/passwd",
            "data:text/plain,x",
            "https://user@r.example/token",
            "https://user:pw@r.example/token",
            "https://r.example@evil.example/token",
            "https://r.example/token?scope=repository:other/secret:pull",
            "https://r.example/token?x&%73cope=repository%3Aother%2Fsecret%3Apull",
        ] {
            check(own, "", written, None);
        }
        check(
            own,
            "",
            &format!("https://r.example/{}", "x".repeat(8192)),
            None,
        );
    }

    #[test]
    fn plain_http_stays_on_the_host_it_was_configured_for() {
        let plain = "http://r.example:5000/v2/";
        check(
            plain,
            "",
            "http://r.example:5001/t",
            Some(("http://r.example:5001/t", true)),
        );
        check(
            plain,
            "",
            "https://r.example/t",
            Some(("https://r.example/t", true)),
        );
        check(plain, "sso.example:80", "http://sso.example/t", None);
    }
}
