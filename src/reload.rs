//! A running mirror takes on another configuration: on SIGHUP, and when one of its files changes.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use crate::cache::{Budget, Cache, ScrubPlan};
use crate::cli::Hangup;
use crate::clock::Clock;
use crate::config::{self, Arguments, Config, Files, Listen, Problems, Reading, Watch};
use crate::metrics::Metrics;
use crate::oci::Namespace;
use crate::registry::{CurrentRegistry, Registry};
use crate::storage::{Access, shared};
use crate::upstream::{self, Upstreams};

/// What of a running mirror another configuration changes, and what it does not.
#[derive(Debug)]
pub struct Reload {
    pub(crate) registry: CurrentRegistry,
    pub(crate) upstreams: Upstreams,
    pub(crate) cache: Cache,
    pub(crate) fixed: Fixed,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
}

/// What stays as it was at start.
#[derive(Debug, Clone)]
pub(crate) struct Fixed {
    pub(crate) listen: Vec<Listen>,
    pub(crate) cache_directory: PathBuf,
    pub(crate) cache_access: Access,
    pub(crate) budget: Budget,
    pub(crate) scrub: ScrubPlan,
    pub(crate) connections_per_client: Option<usize>,
    pub(crate) shared: Option<shared::Config>,
}

/// Why a configuration was not taken on. The one before stays.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There are mistakes in it.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// A file of it holds nothing any more.
    #[error("{0} is empty")]
    Emptied(PathBuf),
    /// The upstreams cannot be set up.
    #[error(transparent)]
    Upstream(#[from] upstream::BuildError),
}

/// The files as they were.
#[derive(Debug)]
struct Seen {
    /// When they were last looked at.
    last: Files,
    /// When they were last taken on.
    in_force: Files,
}

impl Fixed {
    /// What is fixed of `config`.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            listen: config.listen.clone(),
            cache_directory: config.cache_directory.clone(),
            cache_access: config.cache_access,
            budget: config.budget,
            scrub: config.scrub,
            connections_per_client: config.connections_per_client,
            shared: config.shared.clone(),
        }
    }

    /// The keys under which `config` has something else.
    fn differing(&self, config: &Config) -> Vec<&'static str> {
        let keys = [
            ("listen", self.listen != config.listen),
            (
                "cache.directory",
                self.cache_directory != config.cache_directory,
            ),
            (
                "cache.group_access",
                self.cache_access != config.cache_access,
            ),
            (
                "cache.max_size",
                self.budget.max_size != config.budget.max_size,
            ),
            (
                "cache.min_free",
                self.budget.min_free != config.budget.min_free,
            ),
            ("cache.scrub_every", self.scrub.every != config.scrub.every),
            (
                "cache.scrub_rate",
                self.scrub.bytes_per_second != config.scrub.bytes_per_second,
            ),
            (
                "clients.connections",
                self.connections_per_client != config.connections_per_client,
            ),
            ("cache.shared", self.shared != config.shared),
        ];
        let differing = keys.into_iter().filter(|(_, differs)| *differs);
        differing.map(|(key, _)| key).collect()
    }

    /// What each listener stands for.
    fn registries(&self) -> Vec<Option<Namespace>> {
        let listeners = self.listen.iter();
        listeners.map(|listen| listen.upstream.clone()).collect()
    }
}

impl Reload {
    /// Lets the requests that come from now on be answered by `config`. What is cached, what upstreams are known to be
    /// like, and the connections to those that did not change stay. Gives the keys that wait for a restart. Blocks.
    ///
    /// # Errors
    /// When the upstreams cannot be set up; nothing has changed then.
    pub fn apply(&mut self, config: Config) -> Result<Vec<&'static str>, upstream::BuildError> {
        let waiting = self.fixed.differing(&config);
        let upstreams = self.upstreams.reconfigured(config.upstream)?;
        upstreams.tell_readers();
        let mut ways = config.ways;
        // Listeners stay, and so does what they stand for.
        ways.listeners = self.fixed.registries();
        self.cache = self.cache.with_tags(config.tags);
        let (cache, metrics) = (self.cache.clone(), self.metrics.clone());
        let clients = config.clients;
        let registry = Registry::new(upstreams.clone(), ways, cache, clients, metrics);
        self.registry.replace(registry);
        self.upstreams = upstreams;
        Ok(waiting)
    }

    /// Takes on what is configured whenever that changes, and on every SIGHUP, for ever. `files` are those of the
    /// configuration that the mirror was started with.
    pub async fn keep_up(
        mut self,
        arguments: Arguments,
        files: Files,
        mut hangup: Hangup,
    ) -> Infallible {
        let mut watch = Watch::new();
        let mut seen = Seen {
            last: files.clone(),
            in_force: files,
        };
        loop {
            watch.follow(&seen.last);
            let is_asked = tokio::select! {
                () = hangup.next() => true,
                () = watch.stirred() => false,
            };
            let arguments = arguments.clone();
            let tried = spawn_blocking(move || {
                self.take_on(is_asked, &arguments, &mut seen);
                (self, seen)
            });
            (self, seen) = match tried.await {
                Ok(after) => after,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
        }
    }

    /// Reads what is configured, where it has changed or somebody `is_asked` for it, and takes it on or says why not.
    fn take_on(&mut self, is_asked: bool, arguments: &Arguments, seen: &mut Seen) {
        if !is_asked && !seen.last.have_changed() {
            return;
        }
        let Reading { config, files } = Config::read(arguments, &config::environment);
        let emptied = files.emptied_since(&seen.in_force).map(Path::to_owned);
        let outcome = match (emptied, config) {
            (Some(path), _) => Err(ReloadError::Emptied(path)),
            (None, Ok(config)) => self.take_on_config(config),
            (None, Err(problems)) => Err(problems.into()),
        };
        self.metrics.config_reload(outcome.is_ok());
        match outcome {
            Ok(()) => {
                self.metrics.config_loaded(self.clock.now());
                tracing::info!("the configuration was loaded again");
                seen.in_force = files.clone();
            }
            Err(error) => report(&error),
        }
        seen.last = files;
    }

    fn take_on_config(&mut self, mut config: Config) -> Result<(), ReloadError> {
        let warnings = std::mem::take(&mut config.warnings);
        let waiting = self.apply(config)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        for key in waiting {
            tracing::warn!(key, "has changed, which counts only after a restart");
        }
        Ok(())
    }
}

/// Says why nothing has changed, a line for each problem.
fn report(error: &ReloadError) {
    match error {
        ReloadError::Problems(problems) => {
            for problem in problems.iter() {
                tracing::error!("{problem}");
            }
        }
        ReloadError::Emptied(_) | ReloadError::Upstream(_) => tracing::error!("{error}"),
    }
    tracing::error!("the configuration was not loaded again; the one before stays");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENTATION: &str = include_str!("../docs/configuration.md");

    #[test]
    fn the_documentation_says_of_each_key_whether_it_waits_for_a_restart() {
        let config = |directory, size, whether, period, connections| {
            let cache = format!("directory: {directory}, max_size: {size}, min_free: {size}");
            let scrub = format!("scrub_every: {period}, scrub_rate: {size}");
            let shared = format!("shared: {{ url: 's3://{directory}' }}");
            let yaml = format!(
                "listen: [{{ address: '[::]:3000', upstream: {directory}.example }}]\n\
                 cache: {{ {cache}, group_access: {whether}, {scrub}, {shared} }}\n\
                 clients: {{ connections: {connections} }}\n"
            );
            Config::from_yaml(&yaml).expect("well-formed")
        };
        let (one, other) = (
            config("a", "1GiB", "no", "1d", 1),
            config("b", "2GiB", "yes", "2d", 2),
        );
        let waiting: BTreeSet<_> = Fixed::of(&one).differing(&other).into_iter().collect();
        let rows = DOCUMENTATION.lines().filter_map(|line| {
            let (key, rest) = line.strip_prefix("| `")?.split_once('`')?;
            Some((key, rest.starts_with(" ⟳ |")))
        });
        let mut documented = BTreeSet::new();
        for (key, waits) in rows {
            // What is in a list or in a mapping of its own goes with that.
            let (top, _) = key.split_once("[]").unwrap_or((key, ""));
            let is_below = |of: &&str| {
                top.strip_prefix(*of)
                    .is_some_and(|rest| rest.starts_with('.'))
            };
            let top = waiting.iter().copied().find(is_below).unwrap_or(top);
            assert_eq!(waits, waiting.contains(top), "{key}");
            if waits {
                documented.insert(top);
            }
        }
        assert_eq!(documented, waiting);
    }
}
