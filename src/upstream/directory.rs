//! Which registries there are: names only, no connection is made here.

use hashbrown::{HashMap, HashSet};

use super::built_in;
use super::guard;
use super::table::Row;
use super::{Config, UnknownNamespaces};
use crate::oci::{NameError, Namespace, RepositoryName, RepositoryPatterns};

/// The metric label of every namespace that anybody could make up.
const LABEL_OF_OTHERS: &str = "other";

/// The registries that are served, and the names they go by.
#[derive(Debug, Clone)]
pub struct Directory {
    default_upstream: Namespace,
    further_defaults: Vec<Namespace>,
    /// What is served also where unknown registries are not: whoever names a default names an upstream.
    named: HashSet<Namespace>,
    unknown_namespaces: UnknownNamespaces,
    /// Those that are configured by name, and what may be pulled from them.
    configured: HashMap<Namespace, RepositoryPatterns>,
    aliases: HashMap<Namespace, Namespace>,
}

impl Directory {
    /// The directory of `config` and the built-in table. What is configured wins.
    pub fn new(config: &Config) -> Self {
        let configured: HashMap<_, _> = config
            .upstreams
            .iter()
            .map(|upstream| (upstream.namespace.clone(), upstream.repositories.clone()))
            .collect();
        let aliases: HashMap<_, _> = config
            .upstreams
            .iter()
            .flat_map(|upstream| {
                let namespace = &upstream.namespace;
                let aliases = upstream.aliases.iter();
                aliases.map(|alias| (alias.clone(), namespace.clone()))
            })
            .collect();
        let mut directory = Self {
            default_upstream: config.default_upstream.clone(),
            further_defaults: Vec::new(),
            named: HashSet::new(),
            unknown_namespaces: config.unknown_namespaces,
            configured,
            aliases,
        };
        let canonical = |names: &[Namespace]| -> Vec<Namespace> {
            names.iter().map(|name| directory.canonical(name)).collect()
        };
        let default_upstream = directory.canonical(&config.default_upstream);
        let further_defaults = canonical(&config.further_defaults);
        let named = canonical(&config.named);
        directory.named.insert(default_upstream.clone());
        directory.named.extend(further_defaults.iter().cloned());
        directory.named.extend(named);
        directory.default_upstream = default_upstream;
        directory.further_defaults = further_defaults;
        directory
    }

    /// Where a request goes that names no registry; canonical.
    pub fn default_upstream(&self) -> &Namespace {
        &self.default_upstream
    }

    /// Where it goes on to where that one does not have the repository, in this order; canonical.
    pub fn further_defaults(&self) -> &[Namespace] {
        &self.further_defaults
    }

    /// What becomes of a namespace nobody configured.
    pub fn unknown_namespaces(&self) -> UnknownNamespaces {
        self.unknown_namespaces
    }

    /// The one name of the registry that `namespace` is a name of.
    pub fn canonical(&self, namespace: &Namespace) -> Namespace {
        if self.configured.contains_key(namespace) {
            return namespace.clone();
        }
        if let Some(canonical) = self.aliases.get(namespace) {
            return canonical.clone();
        }
        built_in::canonical(namespace)
    }

    /// Whether requests for `canonical` are answered here. A name that can only mean something private is served
    /// where it is configured, and nowhere else.
    pub fn serves(&self, canonical: &Namespace) -> bool {
        if self.is_configured(canonical) {
            return true;
        }
        let is_welcome = match self.unknown_namespaces {
            UnknownNamespaces::Public => true,
            UnknownNamespaces::Deny => self.named.contains(canonical),
        };
        is_welcome && guard::may_be_public(canonical.host())
    }

    /// Whether requests for `canonical` are answered here, and somebody wrote that name down before: the operator, or
    /// the built-in table.
    pub fn knows(&self, canonical: &Namespace) -> bool {
        let is_written = self.is_configured(canonical)
            || self.named.contains(canonical)
            || Row::names_exactly(canonical.as_str());
        is_written && self.serves(canonical)
    }

    /// Whether `repository` may be pulled from `canonical`, as far as the operator says. The name is as
    /// [`Directory::repository_name`] gives it.
    pub fn offers(&self, canonical: &Namespace, repository: &RepositoryName) -> bool {
        let patterns = self.configured.get(canonical);
        patterns.is_none_or(|patterns| patterns.fit(repository))
    }

    /// Whether the operator named this upstream, so that it may have private addresses.
    pub fn is_configured(&self, canonical: &Namespace) -> bool {
        self.configured.contains_key(canonical)
    }

    /// The name a repository of `canonical` is pulled, stored and authorised under: Docker Hub's `nginx` is
    /// `library/nginx`.
    ///
    /// # Errors
    /// `TooLong` when the name in full passes the limit.
    pub fn repository_name(
        &self,
        canonical: &Namespace,
        name: RepositoryName,
    ) -> Result<RepositoryName, NameError> {
        let has_library = Row::find(canonical.as_str()).is_some_and(|row| row.has_library);
        if has_library && name.is_single_part() {
            name.below("library")
        } else {
            Ok(name)
        }
    }

    /// The metric label of `canonical`: its name where that is configured or built in, so that the number of labels
    /// is bounded, whatever clients ask for.
    pub fn label<'a>(&self, canonical: &'a Namespace) -> &'a str {
        let others = self.label_of_others(canonical);
        others.unwrap_or(canonical.as_str())
    }

    /// The metric label of `canonical`, where that is one of those that are all called the same.
    pub fn label_of_others(&self, canonical: &Namespace) -> Option<&'static str> {
        let has_own = self.is_configured(canonical) || Row::names_exactly(canonical.as_str());
        (!has_own).then_some(LABEL_OF_OTHERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{AccessPolicy, Credentials, Limits, Proxies, UpstreamConfig, Way};

    fn namespace(text: &str) -> Namespace {
        text.parse().expect("a namespace")
    }

    fn directory(unknown_namespaces: UnknownNamespaces) -> Directory {
        let upstream = UpstreamConfig {
            namespace: namespace("registry.corp.internal:5000"),
            endpoints: vec!["http://10.0.0.7:5000".parse().expect("a URL")],
            aliases: vec![namespace("mirror.internal"), namespace("quay.io")],
            ca: None,
            realms: Vec::new(),
            limits: Limits::default(),
            access: AccessPolicy::default(),
            repositories: RepositoryPatterns::default(),
            way: Way::default(),
        };
        Directory::new(&Config {
            default_upstream: namespace("index.docker.io"),
            further_defaults: vec![namespace("gcr.io")],
            named: vec![namespace("mirror.gcr.io")],
            unknown_namespaces,
            upstreams: vec![upstream],
            credentials: Credentials::default(),
            proxies: Proxies::default(),
        })
    }

    #[test]
    fn what_is_configured_wins_over_the_table() {
        let directory = directory(UnknownNamespaces::Public);
        let canonical = |text| directory.canonical(&namespace(text)).to_string();
        assert_eq!(directory.default_upstream().as_str(), "docker.io");
        assert_eq!(canonical("registry-1.docker.io"), "docker.io");
        assert_eq!(canonical("mirror.internal"), "registry.corp.internal:5000");
        assert_eq!(canonical("quay.io"), "registry.corp.internal:5000");
        assert_eq!(canonical("ghcr.io"), "ghcr.io");
    }

    #[test]
    fn private_names_are_served_only_where_configured() {
        let public = directory(UnknownNamespaces::Public);
        let deny = directory(UnknownNamespaces::Deny);
        let check = |text: &str, in_public: bool, in_deny: bool| {
            let name = namespace(text);
            assert_eq!(public.serves(&name), in_public, "{text}");
            assert_eq!(deny.serves(&name), in_deny, "{text}");
        };
        check("registry.corp.internal:5000", true, true);
        check("docker.io", true, true);
        check("ghcr.io", true, false);
        // What is a default, or what a listener or host stands for, was named.
        check("gcr.io", true, true);
        check("mirror.gcr.io", true, true);
        check("registry.example.com:5000", true, false);
        for text in [
            "localhost",
            "127.0.0.1:6443",
            "[::1]",
            "169.254.169.254",
            "metadata.google.internal",
            "registry",
            "registry.kube-system.svc",
            "[::ffff:10.0.0.1]",
        ] {
            check(text, false, false);
        }
    }

    #[test]
    fn names_of_one_part_are_below_library_on_the_hub_alone() {
        let directory = directory(UnknownNamespaces::Public);
        let name = |registry: &str, name: &str| {
            let name = name.parse().expect("a name");
            let name = directory.repository_name(&namespace(registry), name);
            name.expect("short enough").to_string()
        };
        assert_eq!(name("docker.io", "nginx"), "library/nginx");
        assert_eq!(name("docker.io", "org/nginx"), "org/nginx");
        assert_eq!(name("dhi.io", "nginx"), "nginx");
        assert_eq!(name("quay.io", "nginx"), "nginx");
    }

    #[test]
    fn labels_are_bounded() {
        let directory = directory(UnknownNamespaces::Public);
        let label = |text| directory.label(&namespace(text)).to_owned();
        assert_eq!(label("docker.io"), "docker.io");
        assert_eq!(
            label("registry.corp.internal:5000"),
            "registry.corp.internal:5000"
        );
        assert_eq!(label("contoso.azurecr.io"), "other");
        assert_eq!(label("made-up.example.com"), "other");
    }
}
