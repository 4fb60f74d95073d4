//! Which addresses may be dialled for a registry that nobody configured: public ones only.
//!
//! The addresses are checked where they are resolved, and those that pass are the ones dialled, so a name that changes
//! its addresses between check and use gains nothing. Addresses written in a URL skip the resolver and are checked
//! there, at every hop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: u16, second: u16, third: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 blocks that are not the public Internet (IANA IPv4 Special-Purpose Address Registry), and one address that
/// is, but means the host's own platform wherever it answers.
const NOT_PUBLIC_V4: [Ipv4Net; 17] = [
    v4(0, 0, 0, 0, 8),        // this network
    v4(10, 0, 0, 0, 8),       // private
    v4(100, 64, 0, 0, 10),    // carrier-grade NAT
    v4(127, 0, 0, 0, 8),      // loopback
    v4(168, 63, 129, 16, 32), // Azure's platform services, reachable from every machine there
    v4(169, 254, 0, 0, 16),   // link-local, instance metadata
    v4(172, 16, 0, 0, 12),    // private
    v4(192, 0, 0, 0, 24),     // protocol assignments
    v4(192, 0, 2, 0, 24),     // documentation
    v4(192, 31, 196, 0, 24),  // AS112
    v4(192, 88, 99, 0, 24),   // 6to4 relays
    v4(192, 168, 0, 0, 16),   // private
    v4(198, 18, 0, 0, 15),    // benchmarks
    v4(198, 51, 100, 0, 24),  // documentation
    v4(203, 0, 113, 0, 24),   // documentation
    v4(224, 0, 0, 0, 4),      // multicast
    v4(240, 0, 0, 0, 4),      // reserved, broadcast
];

/// The part of IPv6 that is handed out as global unicast.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// Blocks within it that are not the public Internet (IANA IPv6 Special-Purpose Address Registry).
const NOT_PUBLIC_V6: [Ipv6Net; 3] = [
    v6(0x2001, 0, 0, 23),     // protocol assignments: Teredo, benchmarks, ORCHID
    v6(0x2001, 0xdb8, 0, 32), // documentation
    v6(0x3fff, 0, 0, 20),     // documentation
];

/// 6to4: the IPv4 address stands in the second and third group (RFC 3056).
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 16);

/// NAT64: the IPv4 address stands in the last two groups (RFC 6052). The only way to IPv4 hosts on some networks.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);

/// Ends of names that mean something else inside every network, or nothing outside of one.
const INTERNAL_SUFFIXES: [&str; 11] = [
    "localhost",
    "local", // multicast DNS; `cluster.local`
    "localdomain",
    "internal", // cloud metadata services; reserved by ICANN for private use
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "svc",
    "home.arpa",
];

/// Whether `address` is on the public Internet, and so is every address embedded in it.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !NOT_PUBLIC_V4.iter().any(|net| net.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // The IPv4 address that stands this many bits from the end.
    let embedded = |from_end: u32| {
        let low = u32::try_from(address.to_bits() >> from_end & u128::from(u32::MAX));
        Ipv4Addr::from_bits(low.unwrap_or_default())
    };
    if address.to_ipv4_mapped().is_some() || NAT64.contains(&address) {
        is_public_v4(embedded(0))
    } else if SIX_TO_FOUR.contains(&address) {
        is_public_v4(embedded(80))
    } else {
        GLOBAL_V6.contains(&address) && !NOT_PUBLIC_V6.iter().any(|net| net.contains(&address))
    }
}

/// Whether `host`, a name or a literal address without brackets, can be on the public Internet, as far as can be
/// said without asking.
pub(super) fn may_be_public(host: &str) -> bool {
    if let Ok(address) = host.parse() {
        return is_public(address);
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let ends_with = |suffix: &str| {
        host.strip_suffix(suffix)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    host.contains('.') && !INTERNAL_SUFFIXES.iter().any(|suffix| ends_with(suffix))
}

/// The host of `url` without the brackets of an IPv6 literal.
pub(super) fn host_of(url: &Url) -> &str {
    url.host_str()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']')
}

/// None of the addresses of a name is public.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` has no public address, and is not configured as an upstream")]
pub(super) struct NotPublic(String);

/// The system's resolver without the addresses that are not public.
#[derive(Debug)]
pub(super) struct PublicOnly {
    /// Names of proxies, which the operator chose and which may well be private.
    exempt: Vec<String>,
    /// One permit for each name that is being resolved.
    lookups: Arc<Semaphore>,
}

impl PublicOnly {
    /// A resolver that gives private addresses for the names in `exempt` alone, and resolves as many names at once,
    /// together with all others of these `lookups`, as those have permits.
    pub(super) fn new(exempt: Vec<String>, lookups: Arc<Semaphore>) -> Self {
        Self { exempt, lookups }
    }
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        // The HTTP client writes them in lower case, whoever set the proxy may not have.
        let mut exempt = self.exempt.iter();
        let is_exempt = exempt.any(|host| host.eq_ignore_ascii_case(name.as_str()));
        let lookups = Arc::clone(&self.lookups);
        Box::pin(async move {
            let permit = lookups.acquire_owned().await?;
            let host = name.as_str().to_owned();
            let lookup = move || {
                // Held by the thread: it stays busy when nobody waits any more.
                let _permit = permit;
                // Port 0: the connector fills in the one of the URL.
                (host, 0).to_socket_addrs()
            };
            let found = tokio::task::spawn_blocking(lookup).await??;
            let allowed: Vec<SocketAddr> = found
                .filter(|address| is_exempt || is_public(address.ip()))
                .collect();
            if allowed.is_empty() {
                return Err(NotPublic(name.as_str().to_owned()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_pass() {
        let check = |text: &str, expected: bool| {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(is_public(address), expected, "{text}");
        };
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "168.63.129.15",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            check(public, true);
        }
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            check(private, false);
        }
    }

    #[test]
    fn names_without_a_dot_and_internal_names_are_never_public() {
        let check = |host: &str, expected: bool| {
            assert_eq!(may_be_public(host), expected, "{host}");
        };
        check("ghcr.io", true);
        check("ghcr.io.", true);
        check("notlocal.example.com", true);
        check("thelocal", false);
        check("the-internal.com", true);
        check("1.1.1.1", true);
        for host in [
            "localhost",
            "localhost.",
            "x.localhost",
            "registry",
            "registry.local",
            "REGISTRY.LOCAL",
            "registry.default.svc",
            "registry.default.svc.cluster.local",
            "metadata.google.internal",
            "router.home.arpa",
            "nas.lan",
            "wiki.intranet",
            "git.corp",
            "127.0.0.1",
            "::1",
            "",
        ] {
            check(host, false);
        }
    }

    #[tokio::test]
    async fn a_name_with_private_addresses_alone_does_not_resolve() {
        let resolve = |exempt: &[&str]| {
            let exempt = exempt.iter().map(|&host| host.to_owned()).collect();
            let name: Name = "localhost".parse().expect("a name");
            PublicOnly::new(exempt, Arc::new(Semaphore::new(1))).resolve(name)
        };
        let refused = resolve(&[]).await.err().expect("localhost is private");
        assert!(refused.is::<NotPublic>(), "{refused}");
        assert!(resolve(&["LocalHost"]).await.is_ok());
    }

    #[tokio::test]
    async fn names_are_resolved_as_many_at_once_as_have_permits() {
        let permits = Arc::new(Semaphore::new(0));
        let resolver = PublicOnly::new(vec!["localhost".to_owned()], Arc::clone(&permits));
        let mut resolving = resolver.resolve("localhost".parse().expect("a name"));
        let at_once = futures_util::FutureExt::now_or_never(&mut resolving);
        assert!(at_once.is_none());
        permits.add_permits(1);
        assert!(resolving.await.is_ok());
        let back = permits.acquire().await;
        assert!(back.is_ok(), "the permit comes back");
    }
}
