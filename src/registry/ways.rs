//! The ways in: which registry a request means that does not name one in its query. Pure.

use hashbrown::HashMap;

use crate::oci::Namespace;
use crate::upstream::Directory;

/// The one host name that never says anything: whoever sits at this machine uses it for any registry.
const LOCALHOST: &str = "localhost";

/// What listeners and host names stand for. Registries are canonical; host names are namespaces without a port, which
/// gives them one form whatever their case.
#[derive(Debug, Clone, Default)]
pub struct Ways {
    /// The registry of each listener, by its position, where it has one of its own.
    pub listeners: Vec<Option<Namespace>>,
    /// The host name below which every registry that is known has one of its own: `docker.io.<domain>`.
    pub domain: Option<Namespace>,
    /// Further host names.
    pub hosts: HashMap<Namespace, Namespace>,
}

/// Where a request came in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Door<'a> {
    /// The position of the listener.
    pub(super) listener: usize,
    /// The host it was sent to, perhaps with a port, as the client wrote it.
    pub(super) host: Option<&'a str>,
}

/// What the way in says about the registry that is meant, before the path is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meant {
    /// This one; canonical.
    Registry(Namespace),
    /// Nothing: one that the path names, else the default one.
    Anything,
    /// That the default one is not: the host name is meant for some registry, and nobody said for which.
    Named,
}

impl Ways {
    /// What a request means by `ns`, which is `asked`, else by its listener, else by its host.
    pub(super) fn meant(
        &self,
        asked: Option<&Namespace>,
        door: Door<'_>,
        directory: &Directory,
    ) -> Meant {
        if let Some(asked) = asked {
            return Meant::Registry(directory.canonical(asked));
        }
        if let Some(Some(own)) = self.listeners.get(door.listener) {
            return Meant::Registry(own.clone());
        }
        match door.host {
            Some(host) if self.hear_hosts() => self.meant_by_host(host, directory),
            Some(_) | None => Meant::Anything,
        }
    }

    /// Whether a request that is sent to `host`, and names no registry, means the default one.
    pub fn takes_for_default(&self, host: &str) -> bool {
        let Ok(name) = without_port(host).parse::<Namespace>() else {
            return !self.hear_hosts();
        };
        let says_nothing = name.ip().is_some() || name.as_str() == LOCALHOST;
        !self.hear_hosts() || says_nothing && !self.hosts.contains_key(&name)
    }

    /// Whether host names mean anything here.
    pub(super) fn hear_hosts(&self) -> bool {
        self.domain.is_some() || !self.hosts.is_empty()
    }

    fn meant_by_host(&self, host: &str, directory: &Directory) -> Meant {
        let Ok(host) = without_port(host).parse::<Namespace>() else {
            return Meant::Named;
        };
        if let Some(registry) = self.hosts.get(&host) {
            return Meant::Registry(registry.clone());
        }
        if let Some(registry) = self.below_domain(&host, directory) {
            return Meant::Registry(registry);
        }
        if host.ip().is_some() || host.as_str() == LOCALHOST {
            return Meant::Anything;
        }
        Meant::Named
    }

    /// The registry in `<registry>.<domain>`. Only one that is known by that name: what clients make up leads nowhere.
    fn below_domain(&self, host: &Namespace, directory: &Directory) -> Option<Namespace> {
        let above = host.as_str().strip_suffix(self.domain.as_ref()?.as_str())?;
        let registry: Namespace = above.strip_suffix('.')?.parse().ok()?;
        let registry = directory.canonical(&registry);
        directory.knows(&registry).then_some(registry)
    }
}

/// The host of a `Host` header. The server has made sure that it is one.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colons of an address in brackets are its own.
        Some((name, port)) if !port.ends_with(']') => name,
        Some(_) | None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::route::tests::directory;

    fn namespace(text: &str) -> Namespace {
        text.parse().expect("a namespace")
    }

    fn ways() -> Ways {
        let hosts = [
            ("docker-registry.example.com", "docker.io"),
            ("10.0.0.9", "quay.io"),
            ("ghcr.io.mirror.example", "registry.k8s.io"),
        ];
        let hosts = hosts.map(|(host, registry)| (namespace(host), namespace(registry)));
        Ways {
            listeners: vec![None, Some(namespace("registry.k8s.io"))],
            domain: Some(namespace("mirror.example")),
            hosts: hosts.into(),
        }
    }

    fn meant(ways: &Ways, host: &str) -> Meant {
        let host = Some(host);
        ways.meant(None, Door { listener: 0, host }, &directory())
    }

    fn check(host: &str, expected: &str) {
        let expected = Meant::Registry(namespace(expected));
        assert_eq!(meant(&ways(), host), expected, "{host}");
    }

    #[test]
    fn a_host_below_the_domain_is_the_registry_it_begins_with() {
        check("docker.io.mirror.example", "docker.io");
        check("Docker.IO.Mirror.Example:5000", "docker.io");
        check("quay.io.mirror.example.", "quay.io");
        check("index.docker.io.mirror.example", "docker.io");
    }

    #[test]
    fn a_host_that_is_written_out_counts_first() {
        check("docker-registry.example.com", "docker.io");
        check("DOCKER-REGISTRY.example.com:8080", "docker.io");
        check("ghcr.io.mirror.example", "registry.k8s.io");
        check("10.0.0.9:3000", "quay.io");
    }

    #[test]
    fn a_host_that_nobody_mapped_does_not_mean_the_default_registry() {
        for host in [
            "mirror.example",
            "other.example",
            "xmirror.example",
            "made-up.example.org.mirror.example",
            "123.dkr.ecr.eu-west-1.amazonaws.com.mirror.example",
            "10.0.0.1.mirror.example",
            "localhost.mirror.example",
            "metadata.google.internal.mirror.example",
            ".mirror.example",
            "1.2.3",
            "x",
        ] {
            assert_eq!(meant(&ways(), host), Meant::Named, "{host}");
        }
    }

    #[test]
    fn addresses_and_localhost_say_nothing() {
        for host in [
            "localhost",
            "LOCALHOST:3000",
            "127.0.0.1:3000",
            "[::1]:3000",
            "[::1]",
            "10.0.0.1",
        ] {
            assert_eq!(meant(&ways(), host), Meant::Anything, "{host}");
        }
    }

    #[test]
    fn without_domain_and_hosts_no_host_says_anything() {
        for host in ["docker.io.mirror.example", "other.example", "1.2.3"] {
            assert_eq!(meant(&Ways::default(), host), Meant::Anything, "{host}");
        }
    }

    #[test]
    fn ns_comes_before_the_listener_and_the_listener_before_the_host() {
        let host = Some("docker.io.mirror.example");
        let meant = |asked: Option<&str>, listener| {
            let asked = asked.map(namespace);
            ways().meant(asked.as_ref(), Door { listener, host }, &directory())
        };
        let registry = |name| Meant::Registry(namespace(name));
        assert_eq!(meant(Some("ghcr.io"), 1), registry("ghcr.io"));
        assert_eq!(meant(None, 1), registry("registry.k8s.io"));
        assert_eq!(meant(None, 0), registry("docker.io"));
        assert_eq!(meant(None, 7), registry("docker.io"));
    }
}
