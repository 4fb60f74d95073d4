//! Lays flag, variable and file over each other, and holds what counts against its rule.

use hashbrown::HashMap;
use std::path::Path;

use super::credentials;
use super::file::Access;
use super::outside::{CONFIG_YAML, Outside};
use super::problem::Findings;
use super::raw::{RawConfig, RawManifests};
use super::reader::Source;
use super::routing::{RawWays, RoutingCheck};
use super::tls::RawTls;
use super::upstreams::{self, Upstreams};
use super::written::Written;
use super::{Config, Log, login, tags, value};
use crate::cache::{TagPolicy, TagRule};
use crate::oci::Namespace;
use crate::registry::ClientPolicy;
use crate::upstream::{self, Credentials, Proxies, UpstreamConfig};

// What counts where nobody says anything, as an operator would write it; `docs/configuration.md` repeats it.

/// Where the cache is, as the flag has always had it.
const CACHE_DIRECTORY: &str = "/tmp/data";
const UNKNOWN_NAMESPACES: &str = "public";
const MAX_SIZE: &str = "80%";
/// The same with a shared tier, which has everything else: what is pulled at a time, several times over.
const MAX_SIZE_SHARED: &str = "10GiB";
/// kubelet begins to evict pods at 15 % of a file system with images, 10 % of another.
const MIN_FREE: &str = "15%";
const GROUP_ACCESS: &str = "no";
const SCRUB_EVERY: &str = "7d";
/// A quarter of what a single spinning disk reads.
const SCRUB_RATE: &str = "32MiB";
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
        let has_client_ca = raw.listen.as_ref().is_some_and(|(_, listeners)| {
            let mut tls = listeners
                .iter()
                .filter_map(|listener| listener.tls.as_ref());
            tls.any(RawTls::has_client_ca)
        });
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
            .map(|raw| raw.check(has_client_ca, self.findings));
        let has_clients = authentication.is_some();
        let setting = |written, default| {
            let layers = [None, None, written];
            self.findings.setting(layers, default, value::amount)
        };
        let usual_size = match &raw.cache.shared {
            Some(_) => MAX_SIZE_SHARED,
            None => MAX_SIZE,
        };
        let max_size = setting(raw.cache.max_size, usual_size);
        let shared = raw.cache.shared.as_ref();
        let shared = shared.map(|shared| shared.check(self.findings));
        let min_free = setting(raw.cache.min_free, MIN_FREE);
        let group_access = self.findings.setting(
            [None, None, raw.cache.group_access],
            GROUP_ACCESS,
            value::boolean,
        );
        let scrub_every = self.findings.setting(
            [None, None, raw.cache.scrub_every],
            SCRUB_EVERY,
            value::period,
        );
        let scrub_rate =
            self.findings
                .setting([None, None, raw.cache.scrub_rate], SCRUB_RATE, value::rate);
        let log = self.log();
        let (connections_per_client, requests_max) = raw.clients.check(self.findings);
        let upstreams = Upstreams::check(
            raw.upstreams,
            &self.outside.upstreams(),
            self.outside
                .first("--upstream-ca", arguments.upstream_ca.as_ref())
                .as_ref(),
            has_clients,
            self.findings,
        );
        let routing = RoutingCheck {
            outside: self.outside,
            upstreams: &upstreams,
            findings: self.findings,
        };
        let routing = routing.routing(RawWays {
            listen: raw.listen,
            default_upstream: raw.default_upstream,
            domain: raw.domain,
            hosts: raw.hosts,
        });
        let unknown_namespaces = self.findings.setting(
            [None, None, raw.unknown_namespaces],
            UNKNOWN_NAMESPACES,
            value::unknown_namespaces,
        );
        let in_credentials_file = self.credentials_file(raw.credentials_file, &upstreams);
        let upstreams::Parts {
            configured,
            mut credentials,
            tags,
        } = upstreams.into_parts();
        let tags = self.tags(raw.manifests, tags);
        credentials.extend(in_credentials_file);
        let credentials = Credentials::new(credentials::unique(credentials, self.findings));
        let routing = routing?;
        let docker_config = raw.docker_config.as_ref();
        let docker_config =
            docker_config.and_then(|file| login::docker_config(file, self.findings));
        let credentials = credentials.with_docker_config(docker_config);
        self.warn_of_plain_http(&configured, &credentials);
        Some(Config {
            listen: routing.listen,
            ways: routing.ways,
            upstream: upstream::Config {
                default_upstream: routing.default_upstream,
                further_defaults: routing.further_defaults,
                named: routing.named,
                unknown_namespaces: unknown_namespaces?,
                upstreams: configured,
                credentials,
                proxies: self.proxies(),
            },
            cache_directory: cache_directory?,
            cache_access: if group_access? {
                crate::storage::Access::Group
            } else {
                crate::storage::Access::Owner
            },
            budget: crate::cache::Budget {
                max_size: max_size?,
                min_free: min_free?,
            },
            scrub: crate::cache::ScrubPlan {
                every: scrub_every?,
                bytes_per_second: scrub_rate?,
            },
            shared: match shared {
                Some(shared) => Some(shared?),
                None => None,
            },
            tags: tags?,
            clients: ClientPolicy {
                authentication: authentication.unwrap_or_default(),
                requests_max,
            },
            connections_per_client,
            log: log?,
            warnings: Vec::new(),
        })
    }

    /// Warns of credentials that others can read on their way.
    fn warn_of_plain_http(&self, upstreams: &[UpstreamConfig], credentials: &Credentials) {
        for upstream in upstreams {
            if !credentials.cover(&upstream.namespace) {
                continue;
            }
            for endpoint in upstream.shows_credentials_in_plain() {
                self.findings.warning(format!(
                    "the credentials for {} go to {endpoint} over plain http, where others can read them",
                    upstream.namespace
                ));
            }
        }
    }

    /// The shape of the file, or of the variable that stands for it.
    fn file(&self) -> Option<RawConfig> {
        let named = self
            .outside
            .first("--config", self.outside.arguments.config.as_ref());
        let (name, base, text, access) = match (self.outside.config_yaml(), named) {
            (Some(text), named) => {
                if let Some(named) = named {
                    let rule = format!(
                        "cannot be read beside {CONFIG_YAML}, which holds a configuration already"
                    );
                    self.findings.problem(named.problem(rule));
                }
                (
                    CONFIG_YAML.to_owned(),
                    Path::new("").to_owned(),
                    text,
                    Access::Restricted,
                )
            }
            (None, Some(named)) => {
                let path = self.findings.parse(&named, value::path)?;
                let (text, access) = self.findings.parse(&named, |_| {
                    Ok(self
                        .findings
                        .read_text(&path)
                        .map_err(|error| error.to_string())?)
                })?;
                let base = path.parent().unwrap_or(&path).to_owned();
                (named.text().to_owned(), base, text, access)
            }
            (None, None) => return None,
        };
        let source = Source {
            name: name.into(),
            base: base.into(),
            environment: self.outside.environment,
            findings: self.findings,
            access,
        };
        source.read(&text, RawConfig::read)
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
