//! One HTTP port in front of every container registry.
//!
//! A node asks for `/v2/…?ns=<registry>`; the answer comes from the cache, or once from that registry, for everybody,
//! while the bytes already flow to whoever asked. The modules stand here in reading order, and use only what stands
//! below them:
//!
//! * [`config`] is what the operator says, checked; [`start`] makes a [`Mirror`] of it; [`reload`] keeps that up with it.
//! * [`server`] accepts and bounds connections. It knows HTTP and no OCI.
//! * [`registry`] is the API: one request, one story.
//! * [`access`] decides who may read what; [`cache`] what to serve, and from where.
//! * [`storage`] keeps bytes by digest; [`upstream`] speaks to other registries.
//! * [`oci`] is the vocabulary; [`http`] is what [`server`] and [`registry`] say to each other;
//!   [`single_flight`], [`clock`], [`stamp`] and [`metrics`] are tools.

pub mod reload;

pub mod cli;
pub mod config;

pub mod server;

pub mod registry;

pub mod access;
pub mod cache;

pub mod storage;
pub mod upstream;

pub mod clock;
pub mod http;
pub mod metrics;
pub mod oci;
pub mod single_flight;
pub mod stamp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use cache::Cache;
use clock::Clock;
use config::Config;
use metrics::Metrics;
use registry::{CurrentRegistry, Registry};
use reload::{Fixed, Reload};
use server::{BindError, Drained, Limits, Listener, TlsError, TlsFiles};
use storage::Local;
use storage::shared::{SetUpError, Shared};
use upstream::Upstreams;

/// How long the end waits for a disk after the last answer, so that a broken one does not hold it up: with the time
/// for responses under way this stays below the 30 s after which Kubernetes kills.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the mirror did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The cache directory cannot be used.
    #[error(transparent)]
    Storage(#[from] storage::OpenError),
    /// The upstreams cannot be set up.
    #[error(transparent)]
    Upstream(#[from] upstream::BuildError),
    /// The shared tier cannot be set up. That it is not up is no such reason.
    #[error(transparent)]
    Shared(#[from] SetUpError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates of a listener cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A mirror that listens, and does not answer yet.
#[derive(Debug)]
pub struct Mirror {
    listeners: Vec<Listener>,
    addresses: Vec<SocketAddr>,
    registry: CurrentRegistry,
    upstreams: Upstreams,
    cache: Cache,
    fixed: Fixed,
    limits: Limits,
    metrics: Metrics,
    clock: Clock,
}

/// Opens the cache directory and the ports of `config`. Must be called inside a tokio runtime.
///
/// # Errors
/// See [`StartError`]; nothing is left open then.
pub async fn start(config: Config, clock: Clock) -> Result<Mirror, StartError> {
    let (metrics, limits) = (Metrics::new(), Limits::default());
    metrics.config_loaded(clock.now());
    let fixed = Fixed::of(&config);
    let directory = config.cache_directory;
    let access = config.cache_access;
    // The file system may be slow, a network one very slow; signals are to be answered meanwhile.
    let storage =
        match tokio::task::spawn_blocking(move || Local::open_for(&directory, access)).await {
            Ok(opened) => opened?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
    let upstreams = Upstreams::new(config.upstream, clock.clone(), metrics.clone())?;
    upstreams.tell_readers();
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for listen in config.listen {
        let socket = server::bind(listen.address)?;
        addresses.push(socket.local_addr().unwrap_or(listen.address));
        let tls = listen.tls.map(TlsFiles::load).transpose()?.map(Arc::new);
        listeners.push(Listener { socket, tls });
    }
    let shared = match config.shared {
        Some(shared) => {
            let client = upstreams.client_for_storage(shared.ca.as_deref())?;
            Some(Shared::open(&shared, client, metrics.clone())?)
        }
        None => None,
    };
    let cache = Cache::new(
        storage,
        shared,
        config.tags,
        config.budget,
        config.scrub,
        clock.clone(),
        metrics.clone(),
    );
    let registry = Registry::new(
        upstreams.clone(),
        config.ways,
        cache.clone(),
        config.clients,
        metrics.clone(),
    );
    Ok(Mirror {
        listeners,
        addresses,
        registry: CurrentRegistry::new(registry),
        upstreams,
        cache,
        fixed,
        limits: Limits {
            connections_per_client: config
                .connections_per_client
                .unwrap_or(limits.connections_per_client),
            ..limits
        },
        metrics,
        clock,
    })
}

impl Mirror {
    /// The addresses it listens on, with the ports that were picked.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The cache, for those who want to know when it has settled.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What answers its requests, for those who ask without a connection.
    pub fn registry(&self) -> &CurrentRegistry {
        &self.registry
    }

    /// What gives it another configuration while it runs.
    pub fn reload(&self) -> Reload {
        Reload {
            registry: self.registry.clone(),
            upstreams: self.upstreams.clone(),
            cache: self.cache.clone(),
            fixed: self.fixed.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Other bounds for its connections than the usual ones.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Answers until `shutdown` is ready, and then drains. Dropping the future ends everything at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Self {
            listeners,
            registry,
            limits,
            metrics,
            ..
        } = self;
        let drained = server::serve(listeners, limits, registry, metrics, shutdown).await;
        // Somebody was told that it is stored.
        if timeout(SETTLE_TIMEOUT, self.cache.settled()).await.is_err() {
            tracing::warn!("ending before everything was on disk");
        }
        drained
    }
}
