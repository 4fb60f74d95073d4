//! The way to one upstream, as the operator wants it: through which proxy, with whose certificates, and what is shown on
//! it.

use std::net::IpAddr;
use std::sync::Arc;

use reqwest::Url;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::guard::host_of;
use super::{Proxies, Secret};

/// The way to one upstream. By default the usual one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Way {
    /// The proxy, for its realms and redirects as well; `None` is that of the environment. The URL may hold a password.
    pub proxy: Option<Secret>,
    /// Hosts, domains and CIDR blocks that are reached directly, beside those of `NO_PROXY` where the proxy is that of
    /// the environment.
    pub no_proxy: Vec<String>,
    /// What its endpoints and configured realms are shown where they ask for a certificate.
    pub client_certificate: Option<ClientIdentity>,
    /// Whether its endpoints are believed whoever vouches for them. Nobody else is: neither realms nor redirects.
    pub skip_verify: bool,
    /// Base URLs of mirrors that know `ns`, such as other entrepots, in the order they are asked, before the endpoints.
    /// They never see its credentials.
    pub mirrors: Vec<Url>,
    /// Whether its credentials may be sent over plain http; `None` where it has no endpoint with TLS.
    pub credentials_over_http: Option<bool>,
}

/// A certificate, followed by those that lead to its authority, and its key, which is not printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificates; never empty.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first.
    pub key: Arc<PrivateKeyDer<'static>>,
}

impl Way {
    /// The proxies on this way, where those of the environment are `usual`.
    pub(super) fn proxies(&self, usual: &Proxies) -> Proxies {
        let no = self.no_proxy.join(",");
        match &self.proxy {
            Some(url) => Proxies {
                all: url.expose().to_owned(),
                no,
                ..Proxies::default()
            },
            None => Proxies {
                no: [&*usual.no, &*no].join(","),
                ..usual.clone()
            },
        }
    }

    /// Whether it is the usual one, as far as connections are concerned.
    pub(super) fn is_usual(&self) -> bool {
        self.proxy.is_none()
            && self.no_proxy.is_empty()
            && self.client_certificate.is_none()
            && !self.skip_verify
    }

    /// Whether the endpoint at `url`, of these `endpoints`, may see credentials: nobody on the way reads them, or the
    /// operator knows. Where another endpoint has TLS, one without is no reason to give a password away.
    pub(super) fn may_show_credentials(&self, url: &Url, endpoints: &[Url]) -> bool {
        let is_safe = url.scheme() == "https" || is_loopback(host_of(url));
        let has_none_safe = || !endpoints.iter().any(|other| other.scheme() == "https");
        is_safe || self.credentials_over_http.unwrap_or_else(has_none_safe)
    }
}

/// Whether what is sent to `host` stays on this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_of_its_own_stands_in_for_the_environment() {
        let usual = Proxies {
            https: "http://usual.example:3128".to_owned(),
            no: "10.0.0.0/8".to_owned(),
            ..Proxies::default()
        };
        let own = Way {
            proxy: Some(Secret::new("socks5h://u:p@own.example:1080")),
            no_proxy: vec!["192.168.0.0/16".to_owned(), "a.example".to_owned()],
            ..Way::default()
        };
        let proxies = own.proxies(&usual);
        assert_eq!(proxies.all, "socks5h://u:p@own.example:1080");
        assert_eq!(proxies.no, "192.168.0.0/16,a.example");
        assert!(proxies.https.is_empty());
        let direct = Way {
            no_proxy: vec!["*".to_owned()],
            ..Way::default()
        };
        let proxies = direct.proxies(&usual);
        assert_eq!(proxies.https, usual.https);
        assert_eq!(proxies.no, "10.0.0.0/8,*");
        assert!(!format!("{own:?}").contains("u:p"));
    }

    #[test]
    fn a_credential_goes_over_plain_http_only_where_that_is_meant() {
        let check = |said: Option<bool>, endpoints: &[&str], expected: &[bool]| {
            let urls: Vec<Url> = endpoints.iter().map(|url| url.parse().unwrap()).collect();
            let way = Way {
                credentials_over_http: said,
                ..Way::default()
            };
            let shown: Vec<_> = urls
                .iter()
                .map(|url| way.may_show_credentials(url, &urls))
                .collect();
            assert_eq!(shown, expected, "{said:?} {endpoints:?}");
        };
        let (tls, plain) = ("https://r.example", "http://10.0.0.5:5000");
        check(None, &[tls, plain], &[true, false]);
        check(None, &[plain], &[true]);
        check(None, &[plain, "http://b.example"], &[true, true]);
        check(Some(true), &[tls, plain], &[true, true]);
        check(Some(false), &[plain], &[false]);
        let loopback = ["http://127.0.0.2:1", "http://[::1]:1", "http://localhost:1"];
        for url in loopback {
            check(None, &[tls, url], &[true, true]);
            check(Some(false), &[url], &[true]);
        }
        check(
            None,
            &[tls, "http://localhost.evil.example"],
            &[true, false],
        );
    }
}
