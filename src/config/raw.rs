//! The shape of the configuration file: which keys there are. Nothing is checked here but that.

use super::authentication::RawAuthentication;
use super::clients::RawClients;
use super::login::RawCredential;
use super::problem::Place;
use super::reader::Section;
use super::shared::RawShared;
use super::tags::{RawTagRule, RawTerms};
use super::tls::RawTls;
use super::way::RawWay;
use super::written::Written;

/// The file as it was written.
#[derive(Default)]
pub(super) struct RawConfig {
    /// `listen`, and where it stands.
    pub(super) listen: Option<(Place, Vec<RawListen>)>,
    /// `default_upstream`, one or several, and where it stands.
    pub(super) default_upstream: Option<(Place, Vec<Written>)>,
    pub(super) domain: Option<Written>,
    /// `hosts`: host names and registries.
    pub(super) hosts: Vec<(Written, Written)>,
    pub(super) unknown_namespaces: Option<Written>,
    pub(super) cache: RawCache,
    pub(super) manifests: RawManifests,
    pub(super) credentials_file: Option<Written>,
    pub(super) authentication: Option<RawAuthentication>,
    pub(super) docker_config: Option<Written>,
    pub(super) clients: RawClients,
    pub(super) upstreams: Vec<RawUpstream>,
}

/// One element of `listen`.
pub(super) struct RawListen {
    pub(super) place: Place,
    pub(super) address: Option<Written>,
    pub(super) upstream: Option<Written>,
    pub(super) tls: Option<RawTls>,
}

/// `cache`.
#[derive(Default)]
pub(super) struct RawCache {
    pub(super) directory: Option<Written>,
    pub(super) max_size: Option<Written>,
    pub(super) min_free: Option<Written>,
    pub(super) group_access: Option<Written>,
    pub(super) scrub_every: Option<Written>,
    pub(super) scrub_rate: Option<Written>,
    pub(super) shared: Option<RawShared>,
}

/// `manifests`.
#[derive(Default)]
pub(super) struct RawManifests {
    pub(super) cache: Option<Written>,
    pub(super) ignore: Option<Written>,
    /// What holds for a tag where no rule says otherwise.
    pub(super) terms: RawTerms,
    pub(super) tags: Vec<RawTagRule>,
}

/// One key of `upstreams` and what it holds.
pub(super) struct RawUpstream {
    pub(super) name: Written,
    pub(super) endpoints: Vec<Written>,
    pub(super) aliases: Vec<Written>,
    pub(super) ca: Option<Written>,
    pub(super) credentials: Option<RawCredential>,
    pub(super) realms: Vec<Written>,
    pub(super) repositories: Vec<Written>,
    pub(super) tags: Vec<RawTagRule>,
    pub(super) limits: RawLimits,
    pub(super) access: RawAccess,
    pub(super) way: RawWay,
}

/// `limits` of an upstream.
#[derive(Default)]
pub(super) struct RawLimits {
    pub(super) connections: Option<Written>,
    pub(super) connections_per_blob: Option<Written>,
}

/// What an upstream's keys say about who may read what comes from it.
#[derive(Default)]
pub(super) struct RawAccess {
    pub(super) mode: Option<Written>,
    pub(super) authz_ttl: Option<Written>,
    pub(super) authz_grace: Option<Written>,
}

impl RawConfig {
    /// Takes the keys out of the mapping at the top of the file.
    pub(super) fn read(root: &mut Section<'_>) -> Self {
        Self {
            listen: root.sections("listen", RawListen::read),
            default_upstream: root.text_or_texts("default_upstream"),
            domain: root.text("domain"),
            hosts: root.section("hosts", read_hosts).unwrap_or_default(),
            unknown_namespaces: root.text("unknown_namespaces"),
            cache: root.section("cache", RawCache::read).unwrap_or_default(),
            manifests: root
                .section("manifests", RawManifests::read)
                .unwrap_or_default(),
            credentials_file: root.path("credentials_file"),
            authentication: root.section("authentication", RawAuthentication::read),
            docker_config: root.path("docker_config"),
            clients: root
                .section("clients", RawClients::read)
                .unwrap_or_default(),
            upstreams: root
                .section("upstreams", |upstreams| upstreams.named(RawUpstream::read))
                .unwrap_or_default(),
        }
    }
}

fn read_hosts(hosts: &mut Section<'_>) -> Vec<(Written, Written)> {
    hosts.texts_by_name()
}

impl RawListen {
    fn read(listener: &mut Section<'_>) -> Self {
        Self {
            place: listener.place(),
            address: listener.text("address"),
            upstream: listener.text("upstream"),
            tls: listener.section("tls", RawTls::read),
        }
    }
}

impl RawCache {
    fn read(cache: &mut Section<'_>) -> Self {
        Self {
            directory: cache.path("directory"),
            max_size: cache.text("max_size"),
            min_free: cache.text("min_free"),
            group_access: cache.text("group_access"),
            scrub_every: cache.text("scrub_every"),
            scrub_rate: cache.text("scrub_rate"),
            shared: cache.section("shared", RawShared::read),
        }
    }
}

impl RawManifests {
    fn read(manifests: &mut Section<'_>) -> Self {
        Self {
            cache: manifests.text("cache"),
            ignore: manifests.text("ignore"),
            terms: RawTerms::read(manifests),
            tags: RawTagRule::read_all(manifests),
        }
    }
}

impl RawUpstream {
    fn read(name: Written, upstream: &mut Section<'_>) -> Self {
        Self {
            name,
            endpoints: upstream.texts("endpoints").unwrap_or_default(),
            aliases: upstream.texts("aliases").unwrap_or_default(),
            ca: upstream.path("ca"),
            credentials: upstream.section("credentials", RawCredential::read),
            realms: upstream.texts("realms").unwrap_or_default(),
            repositories: upstream.texts("repositories").unwrap_or_default(),
            tags: RawTagRule::read_all(upstream),
            limits: upstream
                .section("limits", RawLimits::read)
                .unwrap_or_default(),
            access: RawAccess::read(upstream),
            way: RawWay::read(upstream),
        }
    }
}

impl RawLimits {
    fn read(limits: &mut Section<'_>) -> Self {
        Self {
            connections: limits.text("connections"),
            connections_per_blob: limits.text("connections_per_blob"),
        }
    }
}

impl RawAccess {
    fn read(upstream: &mut Section<'_>) -> Self {
        Self {
            mode: upstream.text("access"),
            authz_ttl: upstream.text("authz_ttl"),
            authz_grace: upstream.text("authz_grace"),
        }
    }
}
