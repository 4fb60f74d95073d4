//! The ways in: listeners, host names, and the registries that are meant where a request names none.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};

use super::Listen;
use super::outside::Outside;
use super::problem::{Findings, Place, Problem};
use super::raw::RawListen;
use super::upstreams::Upstreams;
use super::value;
use super::written::Written;
use crate::oci::Namespace;
use crate::registry::Ways;

/// Where to listen: every address of both families.
const ADDRESS: &str = "[::]:3000";
/// Where a request goes that names no registry: where Docker sends it.
const DEFAULT_UPSTREAM: &str = "docker.io";

/// What the file says about the ways in.
pub(super) struct RawWays {
    pub(super) listen: Option<(Place, Vec<RawListen>)>,
    pub(super) default_upstream: Option<(Place, Vec<Written>)>,
    pub(super) domain: Option<Written>,
    pub(super) hosts: Vec<(Written, Written)>,
}

/// The same, checked. Every registry is canonical.
pub(super) struct Routing {
    pub(super) listen: Vec<Listen>,
    pub(super) ways: Ways,
    pub(super) default_upstream: Namespace,
    pub(super) further_defaults: Vec<Namespace>,
    /// What listeners and host names stand for.
    pub(super) named: Vec<Namespace>,
}

/// One check of the ways in.
pub(super) struct RoutingCheck<'a> {
    pub(super) outside: Outside<'a>,
    pub(super) upstreams: &'a Upstreams,
    pub(super) findings: &'a Findings,
}

impl RoutingCheck<'_> {
    /// The ways in; `None` only after a problem was taken down.
    pub(super) fn routing(&self, raw: RawWays) -> Option<Routing> {
        let listen = self.listen(raw.listen);
        let defaults = self.defaults(raw.default_upstream);
        let domain = raw
            .domain
            .map(|domain| self.findings.parse(&domain, value::host_name));
        let hosts = self.hosts(&raw.hosts);
        let listen = listen?;
        let domain = match domain {
            Some(domain) => Some(domain?),
            None => None,
        };
        let ways = Ways {
            listeners: listen.iter().map(|one| one.upstream.clone()).collect(),
            domain,
            hosts,
        };
        let own = ways.listeners.iter().flatten();
        let named = own.chain(ways.hosts.values()).cloned().collect();
        let mut defaults = defaults?.into_iter();
        Some(Routing {
            listen,
            ways,
            default_upstream: defaults.next()?,
            further_defaults: defaults.collect(),
            named,
        })
    }

    fn registry(&self, written: &Written) -> Option<Namespace> {
        let namespace = self.findings.parse(written, value::namespace)?;
        Some(self.upstreams.canonical(&namespace))
    }

    // === Listeners ===

    fn listen(&self, raw: Option<(Place, Vec<RawListen>)>) -> Option<Vec<Listen>> {
        let port = self
            .outside
            .layers("--port", self.outside.arguments.port.as_ref(), None);
        let port = self.findings.first(port, value::port);
        let mut checked: Vec<_> = match raw {
            None => vec![value::address(ADDRESS).ok().map(|address| {
                let (upstream, tls) = (None, None);
                let listen = Listen {
                    address,
                    upstream,
                    tls,
                };
                (None, listen)
            })],
            Some((place, listeners)) => {
                if listeners.is_empty() {
                    let rule = "must hold at least one listener";
                    self.findings.problem(Problem::of_place(place, rule));
                }
                let listeners = listeners.iter();
                let checked = listeners.map(|raw| {
                    let listen = self.listener(raw)?;
                    Some((Some(raw.place.clone()), listen))
                });
                checked.collect()
            }
        };
        if let (Some(port), Some(Some((_, first)))) = (port, checked.first_mut()) {
            first.address.set_port(port);
        }
        let sound: Vec<_> = checked.iter().flatten().collect();
        self.report_twice(&sound);
        let listen: Option<Vec<_>> = checked.into_iter().map(|one| Some(one?.1)).collect();
        listen.filter(|listen| !listen.is_empty())
    }

    fn listener(&self, raw: &RawListen) -> Option<Listen> {
        let upstream = raw.upstream.as_ref().map(|written| self.registry(written));
        let tls = raw.tls.as_ref().map(|tls| tls.check(self.findings));
        let Some(address) = &raw.address else {
            let rule = "has no address, such as \"[::]:3000\"";
            self.findings
                .problem(Problem::of_place(raw.place.clone(), rule));
            return None;
        };
        let address = self.findings.parse(address, value::address)?;
        let upstream = match upstream {
            Some(upstream) => Some(upstream?),
            None => None,
        };
        let tls = match tls {
            Some(tls) => Some(tls?),
            None => None,
        };
        Some(Listen {
            address,
            upstream,
            tls,
        })
    }

    /// Reports listeners that cannot be there beside each other.
    fn report_twice(&self, listeners: &[&(Option<Place>, Listen)]) {
        for (position, (place, listen)) in listeners.iter().enumerate() {
            let address = listen.address;
            let earlier = &listeners[..position];
            let taken = earlier
                .iter()
                .find(|(_, other)| is_taken_by(address, other.address));
            if let (Some((_, other)), Some(place)) = (taken, place) {
                let rule = format!(
                    "cannot listen on {address} beside {}: another listener does already",
                    other.address
                );
                self.findings
                    .problem(Problem::of_place(place.clone(), rule));
            }
        }
    }

    // === Names ===

    fn defaults(&self, in_file: Option<(Place, Vec<Written>)>) -> Option<Vec<Namespace>> {
        let argument = self.outside.arguments.default_upstream.as_ref();
        let outside = self.outside.layers("--default-upstream", argument, None);
        let outside = outside.into_iter().flatten().map(|written| {
            let parts = written.text().split(',').map(str::trim);
            let parts = parts.map(|name| Written::outside(written.place().clone(), name));
            self.defaults_of(written.place().clone(), &parts.collect::<Vec<_>>())
        });
        let outside: Vec<_> = outside.collect();
        let in_file = in_file.map(|(place, names)| self.defaults_of(place, &names));
        match outside.into_iter().next().or(in_file) {
            Some(names) => names,
            None => Some(vec![value::namespace(DEFAULT_UPSTREAM).ok()?]),
        }
    }

    /// The registries that are searched, in the order in which they are written.
    fn defaults_of(&self, place: Place, names: &[Written]) -> Option<Vec<Namespace>> {
        if names.is_empty() {
            let rule = "must name at least one registry";
            self.findings.problem(Problem::of_place(place, rule));
            return None;
        }
        let mut defaults = Vec::with_capacity(names.len());
        let mut is_sound = true;
        for written in names {
            match self.registry(written) {
                Some(registry) if defaults.contains(&registry) => {
                    let rule = format!("is {registry}, which is in the list already");
                    self.findings.problem(written.problem(rule));
                }
                Some(registry) => defaults.push(registry),
                None => is_sound = false,
            }
        }
        is_sound.then_some(defaults)
    }

    fn hosts(&self, raw: &[(Written, Written)]) -> HashMap<Namespace, Namespace> {
        let mut hosts = HashMap::with_capacity(raw.len());
        for (name, registry) in raw {
            let registry = self.registry(registry);
            let Some(host) = self.findings.parse(name, value::host) else {
                continue;
            };
            match (hosts.entry(host), registry) {
                (Entry::Occupied(known), _) => {
                    let rule = format!("is {}, which is mapped already", known.key());
                    self.findings.problem(name.problem(rule));
                }
                (Entry::Vacant(place), Some(registry)) => {
                    place.insert(registry);
                }
                (Entry::Vacant(_), None) => {}
            }
        }
        hosts
    }
}

/// Whether nobody can listen on `address` beside a listener on `other`. Port 0 takes one that is free.
fn is_taken_by(address: SocketAddr, other: SocketAddr) -> bool {
    let same_port = address.port() == other.port() && address.port() != 0;
    let is_any = |ip: IpAddr| ip.is_unspecified();
    // `[::]` takes IPv4, too.
    let is_everything = |ip: IpAddr| ip.is_ipv6() && is_any(ip);
    let same_family = address.is_ipv4() == other.is_ipv4();
    let overlap = address.ip() == other.ip()
        || is_everything(address.ip())
        || is_everything(other.ip())
        || (same_family && (is_any(address.ip()) || is_any(other.ip())));
    same_port && overlap
}
