//! Whose certificate it is: ours by the name that a client asks for, and a client's by the name that stands in it.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

/// Longest name of a client that is taken, in bytes: a common name has at most 64 characters (RFC 5280, appendix A.1),
/// a DNS name 253 and a SPIFFE ID 2048.
const NAME_BYTES_MAX: usize = 2048;

/// The object identifier of a common name, `2.5.4.3`.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Tags of DER (X.690 section 8).
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
pub(super) const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// The certificates of a listener and their keys.
#[derive(Debug)]
pub(super) struct Certificates(Vec<Arc<CertifiedKey>>);

impl Certificates {
    /// In the order in which they count.
    pub(super) fn new(keys: Vec<CertifiedKey>) -> Self {
        Self(keys.into_iter().map(Arc::new).collect())
    }
}

impl ResolvesServerCert for Certificates {
    /// The first that has the name and a kind of key that the client knows, else the first.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        let schemes = hello.signature_schemes();
        let known = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let named = name.and_then(|name| {
            let mut known = self.0.iter().filter(known);
            known.find(|key| has_name(key, &name))
        });
        let fitting = named.or_else(|| self.0.iter().find(known));
        fitting.or(self.0.first()).cloned()
    }
}

fn has_name(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = key.cert.first();
    let parsed = certificate.and_then(|certificate| EndEntityCert::try_from(certificate).ok());
    parsed.is_some_and(|parsed| parsed.verify_is_valid_for_subject_name(name).is_ok())
}

/// Who a client is by its verified certificate: the common name of its subject, else the first DNS name, else the
/// first URI, as a SPIFFE ID is one. `None` where there is no name that can be written down.
pub(super) fn name_of(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    let name = match common_name(parsed.subject()) {
        Some(name) => name,
        None => parsed
            .valid_dns_names()
            .next()
            .or_else(|| parsed.valid_uri_names().next())?,
    };
    let is_sound =
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    is_sound.then(|| name.into())
}

/// The last common name in `names`, the contents of an `RDNSequence` (RFC 5280 section 4.1.2.4). The last one is the
/// most specific.
fn common_name(mut names: &[u8]) -> Option<&str> {
    let mut found = None;
    while let Some((SET, set, rest)) = element(names) {
        names = rest;
        let mut set = set;
        while let Some((SEQUENCE, pair, rest)) = element(set) {
            set = rest;
            if let Some((OBJECT_IDENTIFIER, COMMON_NAME, value)) = element(pair)
                && let Some((UTF8_STRING | PRINTABLE_STRING | IA5_STRING, text, [])) =
                    element(value)
            {
                found = std::str::from_utf8(text).ok();
            }
        }
    }
    found
}

/// The first element of `der`: its tag, its contents, and what follows it.
pub(super) fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        // The length itself, or how many bytes it has.
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn name(common: Option<&str>, names: Vec<SanType>) -> Option<String> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "An organisation");
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.subject_alt_names = names;
        let certificate = params.self_signed(&key).unwrap();
        name_of(certificate.der()).map(|name| name.to_string())
    }

    #[test]
    fn a_client_is_called_by_its_common_name_else_by_another() {
        let dns = || SanType::DnsName("ci.example".try_into().unwrap());
        let uri = || SanType::URI("spiffe://example/ci".try_into().unwrap());
        let check = |found: Option<String>, expected: Option<&str>| {
            assert_eq!(found.as_deref(), expected);
        };
        check(name(Some("ci"), vec![dns(), uri()]), Some("ci"));
        check(name(Some("grün"), vec![]), Some("grün"));
        check(name(None, vec![uri(), dns()]), Some("ci.example"));
        check(name(None, vec![uri()]), Some("spiffe://example/ci"));
        check(name(None, vec![]), None);
        check(name(Some("a\nb"), vec![]), None);
        check(
            name(Some(&"x".repeat(300)), vec![]),
            Some(&*"x".repeat(300)),
        );
    }

    #[test]
    fn what_is_no_name_has_none() {
        for der in [
            &b""[..],
            b"\x31",
            b"\x31\x80",
            b"\x31\x05\x30",
            b"\x31\x83\x01\x00\x00",
            b"\x31\x09\x30\x07\x06\x03\x55\x04\x03\x0c\xff",
            b"\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01\xff",
        ] {
            assert_eq!(common_name(der), None, "{der:?}");
        }
        let named = b"\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01a";
        assert_eq!(common_name(named), Some("a"));
    }
}
