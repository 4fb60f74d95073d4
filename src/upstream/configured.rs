//! The upstreams that the operator names, set up anew or kept as they are.

use hashbrown::HashMap;
use std::sync::Arc;

use rustls::RootCertStore;

use super::clients::ConfiguredClients;
use super::endpoint::Upstream;
use super::{BuildError, Config, UpstreamConfig, tls};
use crate::metrics::Metrics;
use crate::oci::Namespace;

/// A configured upstream, and what was said of it.
#[derive(Debug, Clone)]
pub(super) struct Configured {
    pub(super) config: UpstreamConfig,
    pub(super) upstream: Arc<Upstream>,
}

/// The upstreams of `config`; of those that were there `before`, as they were.
pub(super) fn configured(
    roots: &RootCertStore,
    config: &Config,
    usual: &ConfiguredClients,
    metrics: &Metrics,
    before: &HashMap<Namespace, Configured>,
) -> Result<HashMap<Namespace, Configured>, BuildError> {
    let mut configured = HashMap::with_capacity(config.upstreams.len());
    for config_of_one in &config.upstreams {
        let namespace = config_of_one.namespace.clone();
        let known = before
            .get(&namespace)
            .filter(|known| known.config == *config_of_one);
        let upstream = match (known, &config_of_one.ca) {
            (Some(known), _) => Arc::clone(&known.upstream),
            (None, None) => {
                let clients = if config_of_one.way.is_usual() {
                    usual.clone()
                } else {
                    ConfiguredClients::of(config_of_one, roots, &config.proxies)?
                };
                Arc::new(Upstream::configured(config_of_one, clients, metrics))
            }
            (None, Some(pem)) => {
                let roots = tls::with_authorities(roots, pem).map_err(|reason| {
                    let namespace = namespace.clone();
                    BuildError::Authorities { namespace, reason }
                })?;
                let clients = ConfiguredClients::of(config_of_one, &roots, &config.proxies)?;
                Arc::new(Upstream::configured(config_of_one, clients, metrics))
            }
        };
        let config = config_of_one.clone();
        configured.insert(namespace, Configured { config, upstream });
    }
    Ok(configured)
}
