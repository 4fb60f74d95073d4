//! The way to an upstream: proxies, certificates, and mirrors in front of it.

use std::sync::Arc;

use ipnet::IpNet;
use reqwest::Url;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::problem::{Findings, Rule};
use super::reader::Section;
use super::tls::warn_of_readers;
use super::value;
use super::written::Written;
use crate::upstream::{ClientIdentity, Secret, Way};

/// Schemes of proxies: what the HTTP client speaks to one.
const PROXY_SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

/// The keys of an upstream that are about the way to it, as they were written.
pub(super) struct RawWay {
    proxy: Option<Written>,
    no_proxy: Vec<Written>,
    client_certificate: Option<Written>,
    client_key: Option<Written>,
    skip_verify: Option<Written>,
    mirrors: Vec<Written>,
    credentials_over_http: Option<Written>,
}

impl RawWay {
    /// Takes the keys.
    pub(super) fn read(upstream: &mut Section<'_>) -> Self {
        Self {
            // It may hold a password.
            proxy: upstream.secret_if("proxy", |raw| raw.contains('@')),
            no_proxy: upstream.texts("no_proxy").unwrap_or_default(),
            client_certificate: upstream.path("client_certificate"),
            client_key: upstream.path("client_key"),
            skip_verify: upstream.text("skip_verify"),
            mirrors: upstream.texts("mirrors").unwrap_or_default(),
            credentials_over_http: upstream.text("credentials_over_http"),
        }
    }

    /// The way, as far as it is right.
    pub(super) fn check(&self, name: &Written, findings: &Findings) -> Way {
        let proxy = self.proxy.as_ref();
        let no_proxy = self.no_proxy.iter();
        let boolean = |written: &Option<Written>| {
            let written = written.as_ref()?;
            findings.parse(written, value::boolean)
        };
        let skip_verify = boolean(&self.skip_verify).unwrap_or_default();
        if skip_verify {
            findings.warning(format!(
                "whoever answers for {} is believed: its certificates are not verified",
                name.text()
            ));
        }
        let mirrors = self.mirrors.iter();
        Way {
            proxy: proxy.and_then(|written| findings.parse(written, proxy_url)),
            no_proxy: no_proxy
                .filter_map(|written| findings.parse(written, direct))
                .collect(),
            client_certificate: self.identity(findings),
            skip_verify,
            mirrors: mirrors
                .filter_map(|written| findings.parse(written, value::endpoint))
                .collect(),
            credentials_over_http: boolean(&self.credentials_over_http),
        }
    }

    fn identity(&self, findings: &Findings) -> Option<ClientIdentity> {
        let (certificate, key) = match (&self.client_certificate, &self.client_key) {
            (None, None) => return None,
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(written), None) => {
                findings.problem(written.problem("has no client_key beside it"));
                return None;
            }
            (None, Some(written)) => {
                findings.problem(written.problem("has no client_certificate beside it"));
                return None;
            }
        };
        let chain = findings.parse(certificate, |path| chain(path, findings));
        let parsed = findings.parse(key, |path| private_key(path, findings));
        warn_of_readers("key", key.text().as_ref(), findings);
        let identity = ClientIdentity {
            chain: chain?,
            key: Arc::new(parsed?),
        };
        findings.parse(key, |_| fits(&identity))?;
        Some(identity)
    }
}

fn proxy_url(text: &str) -> Result<Secret, Rule> {
    let url = Url::parse(text).ok();
    let is_proxy = |url: &Url| PROXY_SCHEMES.contains(&url.scheme()) && url.has_host();
    url.filter(is_proxy).ok_or(
        "must be the URL of a proxy that starts with http, https, socks4, socks4a, socks5 or socks5h, such as \
         http://user:password@proxy.example.com:3128; what is special in a password is written as %40",
    )?;
    Ok(Secret::new(text))
}

/// What is reached without the proxy.
fn direct(text: &str) -> Result<String, Rule> {
    let bare = text.strip_prefix('.').unwrap_or(text);
    let is_host = || value::namespace(bare).is_ok_and(|name| name.port().is_none());
    // `[::1]` stands in URLs; here an address is one by itself.
    let is_sound = text == "*"
        || text.parse::<IpNet>().is_ok()
        || text.parse::<std::net::IpAddr>().is_ok()
        || (is_host() && !bare.contains(['[', ':']));
    if !is_sound {
        return Err(
            "must be a host, a domain, an IP address, a block of them such as 10.0.0.0/8, or * for everything".into(),
        );
    }
    Ok(text.to_owned())
}

fn chain(path: &str, findings: &Findings) -> Result<Vec<CertificateDer<'static>>, Rule> {
    let read = findings.read_bytes(path.as_ref());
    let (pem, _) = read.map_err(|error| error.to_string())?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|_| "is not a well-formed PEM file")?;
    if chain.is_empty() {
        return Err(
            "holds no certificate; it must be a PEM file with -----BEGIN CERTIFICATE-----".into(),
        );
    }
    Ok(chain)
}

fn private_key(path: &str, findings: &Findings) -> Result<PrivateKeyDer<'static>, Rule> {
    let read = findings.read_bytes(path.as_ref());
    let (pem, _) = read.map_err(|error| error.to_string())?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        "holds no key; it must be a PEM file with -----BEGIN PRIVATE KEY----- and no password"
            .into()
    })
}

fn fits(identity: &ClientIdentity) -> Result<(), Rule> {
    let provider = rustls::crypto::ring::default_provider();
    let (chain, key) = (identity.chain.clone(), identity.key.clone_key());
    CertifiedKey::from_der(chain, key, &provider)
        .map(drop)
        .map_err(|_| "is not the key of client_certificate".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_urls_of_the_schemes_there_are() {
        for text in [
            "http://proxy.example:3128",
            "https://u:p%40ss@proxy.example",
            "socks5h://10.0.0.1:1080",
            "socks4://[::1]:1080",
        ] {
            assert!(proxy_url(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "proxy.example:3128",
            "ftp://proxy.example",
            "http://",
            "none",
        ] {
            assert!(proxy_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_reached_directly_is_a_host_or_a_block() {
        for text in [
            "*",
            "a.example",
            ".a.example",
            "10.0.0.0/8",
            "10.0.0.1",
            "fd00::/8",
            "::1",
        ] {
            assert!(direct(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "a.example:80",
            "*.a.example",
            "10.0.0.0/33",
            "a,b",
            "http://a",
            "[::1]",
        ] {
            assert!(direct(text).is_err(), "{text}");
        }
    }
}
