//! Lays flag, variable and file over each other, and holds what counts against its rule.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use super::credentials;
use super::file::read_text;
use super::outside::{CONFIG_YAML, Outside};
use super::problem::{Findings, Place, Problem};
use super::raw::{RawConfig, RawListen, RawManifests};
use super::reader::Source;
use super::upstreams::{self, Upstreams};
use super::written::Written;
use super::{Config, Listen, Log, tags, value};
use crate::cache::{TagPolicy, TagRule};
use crate::oci::Namespace;
use crate::upstream::{self, Credentials, Proxies};

// What counts where nobody says anything, as an operator would write it; `docs/configuration.md` repeats it.

/// Where the cache is, as the flag has always had it.
const CACHE_DIRECTORY: &str = "/tmp/data";
/// Where to listen: every address of both families.
const ADDRESS: &str = "[::]:3000";
/// Where a request goes that names no registry: where Docker sends it.
const DEFAULT_UPSTREAM: &str = "docker.io";
const UNKNOWN_NAMESPACES: &str = "public";
const LOG_LEVEL: &str = "info";
const LOG_FORMAT: &str = "text";

/// One check of everything that is configured.
pub(super) struct Check<'a> {
    pub(super) outside: Outside<'a>,
    pub(super) findings: &'a Findings,
}

impl Check<'_> {
    /// The configuration; `None` only after a problem was taken down.
    pub(super) fn config(&self) -> Option<Config> {
        let Outside { arguments, .. } = self.outside;
        let raw = self.file().unwrap_or_default();
        // Every part is checked before the first that is missing ends this.
        let listen = self.listen(raw.listen);
        let cache_directory = self.findings.setting(
            self.outside.layers(
                "--cache-dir",
                arguments.cache_dir.as_ref(),
                raw.cache.directory,
            ),
            CACHE_DIRECTORY,
            value::path,
        );
        let authentication = raw
            .authentication
            .as_ref()
            .map(|raw| raw.check(self.findings));
        let has_clients = authentication.is_some();
        let log = self.log();
        let upstreams = Upstreams::check(
            raw.upstreams,
            &self.outside.upstreams(),
            self.outside
                .first("--upstream-ca", arguments.upstream_ca.as_ref())
                .as_ref(),
            has_clients,
            self.findings,
        );
        let default_upstream = self.findings.setting(
            self.outside.layers(
                "--default-upstream",
                arguments.default_upstream.as_ref(),
                raw.default_upstream,
            ),
            DEFAULT_UPSTREAM,
            value::namespace,
        );
        let unknown_namespaces = self.findings.setting(
            [None, None, raw.unknown_namespaces],
            UNKNOWN_NAMESPACES,
            value::unknown_namespaces,
        );
        let in_credentials_file = self.credentials_file(raw.credentials_file, &upstreams);
        let default_upstream = default_upstream.map(|name| upstreams.canonical(&name));
        let upstreams::Parts {
            configured,
            mut credentials,
            tags,
        } = upstreams.into_parts();
        let tags = self.tags(raw.manifests, tags);
        credentials.extend(in_credentials_file);
        let credentials = Credentials::new(credentials::unique(credentials, self.findings));
        Some(Config {
            listen: listen?,
            upstream: upstream::Config {
                default_upstream: default_upstream?,
                unknown_namespaces: unknown_namespaces?,
                upstreams: configured,
                credentials,
                proxies: self.proxies(),
            },
            cache_directory: cache_directory?,
            tags: tags?,
            authentication: authentication.unwrap_or_default(),
            log: log?,
            warnings: Vec::new(),
        })
    }

    /// The shape of the file, or of the variable that stands for it.
    fn file(&self) -> Option<RawConfig> {
        let named = self
            .outside
            .first("--config", self.outside.arguments.config.as_ref());
        let (name, base, text) = match (self.outside.config_yaml(), named) {
            (Some(text), named) => {
                if let Some(named) = named {
                    let rule = format!(
                        "cannot be read beside {CONFIG_YAML}, which holds a configuration already"
                    );
                    self.findings.problem(named.problem(rule));
                }
                (CONFIG_YAML.to_owned(), Path::new("").to_owned(), text)
            }
            (None, Some(named)) => {
                let path = self.findings.parse(&named, value::path)?;
                let (text, _) = self.findings.parse(&named, |_| {
                    Ok(read_text(&path).map_err(|error| error.to_string())?)
                })?;
                let base = path.parent().unwrap_or(&path).to_owned();
                (named.text().to_owned(), base, text)
            }
            (None, None) => return None,
        };
        let source = Source {
            name: name.into(),
            base: base.into(),
            environment: self.outside.environment,
            findings: self.findings,
        };
        source.read(&text, RawConfig::read)
    }

    fn listen(&self, raw: Option<(Place, Vec<RawListen>)>) -> Option<Vec<Listen>> {
        let port = self
            .outside
            .layers("--port", self.outside.arguments.port.as_ref(), None);
        let port = self.findings.first(port, value::port);
        let mut listeners = match raw {
            None => vec![value::address(ADDRESS).ok()?],
            Some((place, listeners)) => {
                if listeners.len() != 1 {
                    let rule = format!("must hold one listener, but holds {}", listeners.len());
                    self.findings.problem(Problem::of_place(place, rule));
                }
                let addresses: Vec<_> = listeners
                    .iter()
                    .map(|listener| self.address(listener))
                    .collect();
                addresses.into_iter().collect::<Option<_>>()?
            }
        };
        if let (Some(port), [only]) = (port, &mut *listeners) {
            only.set_port(port);
        }
        Some(
            listeners
                .into_iter()
                .map(|address| Listen { address })
                .collect(),
        )
    }

    fn address(&self, listener: &RawListen) -> Option<SocketAddr> {
        let Some(address) = &listener.address else {
            let rule = "has no address, such as \"[::]:3000\"";
            self.findings
                .problem(Problem::of_place(listener.place.clone(), rule));
            return None;
        };
        self.findings.parse(address, value::address)
    }

    fn tags(
        &self,
        raw: RawManifests,
        upstreams: HashMap<Namespace, Vec<TagRule>>,
    ) -> Option<TagPolicy> {
        let Outside { arguments, .. } = self.outside;
        let cache = self.outside.layers(
            "--cache-manifests",
            arguments.cache_manifests.as_ref(),
            raw.cache,
        );
        let ignore = self
            .outside
            .layers("--ignore", arguments.ignore.as_ref(), raw.ignore);
        let everywhere = tags::rules(&raw.tags, self.findings);
        let shorthands = tags::shorthands(cache, ignore, self.findings);
        let usual = raw.terms.usual(self.findings);
        Some(TagPolicy {
            upstreams,
            everywhere,
            shorthands: shorthands?,
            usual: usual?,
        })
    }

    fn log(&self) -> Option<Log> {
        let Outside { arguments, .. } = self.outside;
        let filter = self.findings.setting(
            self.outside
                .layers("--log-level", arguments.log_level.as_ref(), None),
            LOG_LEVEL,
            value::log_filter,
        );
        let format = self.findings.setting(
            self.outside
                .layers("--log-format", arguments.log_format.as_ref(), None),
            LOG_FORMAT,
            value::log_format,
        );
        Some(Log {
            filter: filter?,
            format: format?,
        })
    }

    fn credentials_file(
        &self,
        in_file: Option<Written>,
        upstreams: &Upstreams,
    ) -> Vec<credentials::PlacedEntry> {
        let layers = self.outside.layers(
            "--creds-file",
            self.outside.arguments.creds_file.as_ref(),
            in_file,
        );
        let Some(file) = layers.into_iter().flatten().next() else {
            return Vec::new();
        };
        if self.findings.parse(&file, value::path).is_none() {
            return Vec::new();
        }
        let canonical = |namespace: &_| upstreams.canonical(namespace);
        credentials::read_file(&file, self.outside.environment, &canonical, self.findings)
    }

    /// The proxies of the environment. Both forms of each name are in use; the upper-case one counts first, also for
    /// `HTTP_PROXY`, since no header of a request becomes a variable here as it does in CGI.
    fn proxies(&self) -> Proxies {
        let variable = |name: &str| {
            let value =
                |name: &str| (self.outside.environment)(name).filter(|text| !text.is_empty());
            value(name)
                .or_else(|| value(&name.to_ascii_lowercase()))
                .unwrap_or_default()
        };
        Proxies {
            http: variable("HTTP_PROXY"),
            https: variable("HTTPS_PROXY"),
            all: variable("ALL_PROXY"),
            no: variable("NO_PROXY"),
        }
    }
}
