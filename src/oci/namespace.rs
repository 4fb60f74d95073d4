//! The registry an image comes from, as the host in its name (`ns`, distribution-spec "Registry Proxying").

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest namespace, in bytes: a DNS name has at most 253, a port five and a colon.
const NAMESPACE_BYTES_MAX: usize = 259;

/// A registry host, with a port unless it is 443: `docker.io`, `registry.example.com:5000`, `[2001:db8::1]:5000`.
///
/// Always in one canonical form, so it can be a cache key and a credential key: lower case, no trailing dot, no
/// `:443`. Never anything that could change the meaning of a URL it is put into.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

/// Why a text is not a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a registry is written as a host name with an optional port, such as ghcr.io or registry.example.com:5000"
)]
pub struct NamespaceError;

impl Namespace {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and port, the port only where one is written. An IPv6 literal is without its brackets.
    fn split(&self) -> (&str, Option<u16>) {
        let (host, port) = match self.0.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (&*self.0, None),
        };
        (host.trim_start_matches('[').trim_end_matches(']'), port)
    }

    /// The host without the port, an IPv6 literal without its brackets.
    pub fn host(&self) -> &str {
        self.split().0
    }

    /// The port, where one is written.
    pub fn port(&self) -> Option<u16> {
        self.split().1
    }

    /// The host as an address, where it is a literal one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }
}

fn is_dns_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    // `1.2.3`, `0x7f.1` and the like are neither names nor addresses to us, but are addresses to some resolvers:
    // a name whose last label could be a number is refused (WHATWG URL, "ends in a number").
    let last = host.rsplit('.').next().unwrap_or_default();
    let ends_in_number = last.bytes().all(|c| c.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|hex| hex.bytes().all(|c| c.is_ascii_hexdigit()));
    host.len() <= 253 && host.split('.').all(is_label) && !ends_in_number
}

impl FromStr for Namespace {
    type Err = NamespaceError;

    fn from_str(text: &str) -> Result<Self, NamespaceError> {
        if text.is_empty() || text.len() > NAMESPACE_BYTES_MAX || !text.is_ascii() {
            return Err(NamespaceError);
        }
        // Nearly all are written as they are called: those are not copied before the end.
        let text: Cow<'_, str> = if text.bytes().any(|c| c.is_ascii_uppercase()) {
            text.to_ascii_lowercase().into()
        } else {
            text.into()
        };
        let (host, port): (Cow<'_, str>, _) = if let Some(bracketed) = text.strip_prefix('[') {
            let (literal, rest) = bracketed.split_once(']').ok_or(NamespaceError)?;
            let literal: Ipv6Addr = literal.parse().map_err(|_| NamespaceError)?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':').ok_or(NamespaceError)?),
            };
            (format!("[{literal}]").into(), port)
        } else {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (&*text, None),
            };
            let host = host.strip_suffix('.').unwrap_or(host);
            let is_ipv4 = host.parse::<std::net::Ipv4Addr>().is_ok();
            if !is_ipv4 && !is_dns_name(host) {
                return Err(NamespaceError);
            }
            (host.into(), port)
        };
        let canonical = match port {
            None => host,
            Some(digits) => {
                let written = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
                match digits.parse::<u16>() {
                    Ok(443) if written => host,
                    Ok(port) if written && port != 0 => format!("{host}:{port}").into(),
                    _ => return Err(NamespaceError),
                }
            }
        };
        Ok(Self((*canonical).into()))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Namespace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let found = text.parse::<Namespace>().ok();
        assert_eq!(found.as_ref().map(Namespace::as_str), expected, "{text:?}");
    }

    #[test]
    fn one_registry_has_one_canonical_form() {
        check("docker.io", Some("docker.io"));
        check("DOCKER.IO", Some("docker.io"));
        check("docker.io.", Some("docker.io"));
        check("docker.io:443", Some("docker.io"));
        check("myregistry.io:5000", Some("myregistry.io:5000"));
        check("localhost", Some("localhost"));
        check("localhost:05000", Some("localhost:5000"));
        check("127.0.0.1:6443", Some("127.0.0.1:6443"));
        check("[::1]", Some("[::1]"));
        check("[0:0::1]:5000", Some("[::1]:5000"));
        check("xn--bcher-kva.example", Some("xn--bcher-kva.example"));
    }

    #[test]
    fn what_could_change_a_url_is_no_namespace() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            "user:pw@host",
            "host/path",
            "host#x",
            "host?x",
            "a b",
            "a\r\nb",
            "a%0d",
            "host:",
            "host:0",
            "host:65536",
            "host:+5",
            "host:5:5",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:",
            "[fe80::1%eth0]",
            "-a.io",
            "a-.io",
            "bücher.example",
            "0x7f.1",
            "0x7f.0x1",
            "1.2.3",
            "256.1.1.1",
            "1",
        ] {
            check(text, None);
        }
        check(&"a.".repeat(200), None);
        check(&"a".repeat(64), None);
    }

    #[test]
    fn host_and_port_come_apart_again() {
        let parts = |text: &str| {
            let namespace: Namespace = text.parse().expect("well-formed");
            (namespace.host().to_owned(), namespace.port())
        };
        assert_eq!(parts("ghcr.io"), ("ghcr.io".to_owned(), None));
        assert_eq!(parts("ghcr.io:5000"), ("ghcr.io".to_owned(), Some(5000)));
        assert_eq!(parts("[::1]"), ("::1".to_owned(), None));
        assert_eq!(parts("[::1]:5000"), ("::1".to_owned(), Some(5000)));
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_its_own(text in "[a-zA-Z0-9.:_\\[\\]-]{0,20}") {
            if let Ok(namespace) = text.parse::<Namespace>() {
                let again = namespace.as_str().parse::<Namespace>();
                prop_assert_eq!(again.as_ref(), Ok(&namespace));
            }
        }
    }
}
