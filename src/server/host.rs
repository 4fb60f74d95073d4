//! Which host a request is for, and whether it says so in one voice. Pure.

use std::str::FromStr as _;
use std::sync::OnceLock;

use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Uri, Version};

/// The port that an `http` target without one means.
const HTTP_PORT: u16 = 80;

/// Whether the request names its host as RFC 9112 section 3.2 demands: with HTTP/1.1 exactly one `Host`, never more, a
/// well-formed one, and where the target has an authority too, the same. An empty one is refused as well, since an
/// `http` URI with an empty host is invalid (RFC 9110 section 4.2.1). The RFC would let the target win over `Host`; two
/// that differ are refused, since no honest client sends them and a proxy before us may have judged by the other one.
///
/// `known` is a well-formed `Host` that was seen before on the same connection, which nearly always repeats it.
pub(super) fn is_sound(
    version: Version,
    target: &Uri,
    headers: &HeaderMap,
    known: &OnceLock<HeaderValue>,
) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let written = match (hosts.next(), hosts.next()) {
        (None, _) => return version < Version::HTTP_11,
        (Some(_), Some(_)) => return false,
        (Some(host), None) => host,
    };
    if target.authority().is_none() && known.get() == Some(written) {
        return true;
    }
    let Some(host) = written.to_str().ok().and_then(Host::parse) else {
        return false;
    };
    // A clone of its own: the header is a part of all that was read with it.
    known.get_or_init(|| HeaderValue::from_bytes(written.as_bytes()).unwrap_or(written.clone()));
    target
        .authority()
        .is_none_or(|authority| Host::parse(authority.as_str()) == Some(host))
}

/// A host as it is compared.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    name: String,
    port: u16,
}

impl Host {
    /// Takes no user information, which has no place in a request (RFC 9110 section 4.2.4).
    fn parse(text: &str) -> Option<Self> {
        let authority = Authority::from_str(text).ok()?;
        let (name, port) = text.split_at_checked(authority.host().len())?;
        let port = match port.strip_prefix(':') {
            None | Some("") => HTTP_PORT,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok()?
            }
            Some(_) => return None,
        };
        let sound = !name.is_empty() && !text.contains('@');
        sound.then(|| Self {
            name: name.to_ascii_lowercase(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(version: Version, target: &str, hosts: &[&str]) -> bool {
        let headers = hosts
            .iter()
            .map(|host| (HOST, host.parse().unwrap()))
            .collect();
        let (target, known) = (target.parse().unwrap(), OnceLock::new());
        let first = is_sound(version, &target, &headers, &known);
        let again = is_sound(version, &target, &headers, &known);
        assert_eq!(first, again, "{target} {hosts:?}");
        first
    }

    #[track_caller]
    fn check(target: &str, hosts: &[&str], expected: bool) {
        assert_eq!(
            sound(Version::HTTP_11, target, hosts),
            expected,
            "{target} {hosts:?}"
        );
    }

    #[test]
    fn one_host_is_asked_for() {
        check("/v2/", &["registry.example.com"], true);
        check("/v2/", &["registry.example.com:3000"], true);
        check("/v2/", &["[::1]:3000"], true);
        check("/v2/", &["127.0.0.1"], true);
        check("/v2/", &[], false);
        check("/v2/", &["a.example", "b.example"], false);
        check("/v2/", &["a.example", "a.example"], false);
    }

    #[test]
    fn what_is_known_of_one_host_says_nothing_of_another() {
        let known = OnceLock::new();
        let sound = |target: &str, host: &str| {
            let headers = [(HOST, host.parse().unwrap())].into_iter().collect();
            is_sound(Version::HTTP_11, &target.parse().unwrap(), &headers, &known)
        };
        assert!(sound("/v2/", "a.example"));
        assert!(sound("/v2/", "a.example"));
        assert!(!sound("http://b.example/v2/", "a.example"));
        assert!(!sound("/v2/", "a b"));
        assert!(sound("/v2/", "b.example"));
    }

    #[test]
    fn an_old_request_may_name_none() {
        assert!(sound(Version::HTTP_10, "/v2/", &[]));
        assert!(!sound(
            Version::HTTP_10,
            "/v2/",
            &["a.example", "b.example"]
        ));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        check("/v2/", &[""], false);
        check("/v2/", &["a b"], false);
        check("/v2/", &["a/b"], false);
        check("/v2/", &["user@a.example"], false);
        check("/v2/", &["a.example:99999"], false);
        check("/v2/", &["a.example:x"], false);
        check("/v2/", &[":3000"], false);
    }

    #[test]
    fn a_target_with_another_host_is_refused() {
        check("http://a.example/v2/", &["a.example"], true);
        check("http://A.example:80/v2/", &["a.EXAMPLE"], true);
        check("http://a.example/v2/", &["b.example"], false);
        check("http://a.example:81/v2/", &["a.example"], false);
        check("http://user@a.example/v2/", &["a.example"], false);
    }
}
