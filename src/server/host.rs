//! Which host a request is for, and whether it says so in one voice. Pure.

use std::str::FromStr as _;

use hyper::header::{HOST, HeaderMap};
use hyper::http::uri::Authority;
use hyper::{Method, Uri, Version};

/// The port that an `http` target without one means.
const HTTP_PORT: u16 = 80;

/// Whether the request names its host as RFC 9112 section 3.2 demands: with HTTP/1.1 exactly one `Host`, never more, a
/// well-formed one, and where the target has an authority too, the same. An empty one is refused as well, since an
/// `http` URI with an empty host is invalid (RFC 9110 section 4.2.1). The RFC would let the target win over `Host`; two
/// that differ are refused, since no honest client sends them and a proxy before us may have judged by the other one.
pub(super) fn is_sound(
    version: Version,
    method: &Method,
    target: &Uri,
    headers: &HeaderMap,
) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => return version < Version::HTTP_11,
        (Some(_), Some(_)) => return false,
        (Some(host), None) => host.to_str().ok().and_then(parse),
    };
    let Some(host) = host else { return false };
    match target.authority() {
        None => true,
        Some(_) if method == Method::CONNECT => true,
        Some(authority) => parse(authority.as_str()).is_some_and(|named| same(&named, &host)),
    }
}

/// An authority without user information, which has no place in either (RFC 9110 section 4.2.4).
fn parse(text: &str) -> Option<Authority> {
    let authority = Authority::from_str(text).ok()?;
    let sound = !text.contains('@')
        && !authority.host().is_empty()
        && (authority.port().is_none() == authority.port_u16().is_none());
    sound.then_some(authority)
}

fn same(one: &Authority, other: &Authority) -> bool {
    let port = |authority: &Authority| authority.port_u16().unwrap_or(HTTP_PORT);
    one.host().eq_ignore_ascii_case(other.host()) && port(one) == port(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(version: Version, target: &str, hosts: &[&str]) -> bool {
        let headers = hosts
            .iter()
            .map(|host| (HOST, host.parse().unwrap()))
            .collect();
        is_sound(version, &Method::GET, &target.parse().unwrap(), &headers)
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
