//! The flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

// Every value stays a text here: it is held against its rule together with everything else that is configured, so
// that all problems are told at once.

/// One HTTP port in front of every container registry.
///
/// Without any flag, entrepot listens on port 3000 and mirrors every public registry.
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "entrepot",
    version,
    disable_version_flag = true,
    after_help = "Every flag that takes a value can be set in the environment, too: --cache-dir as ENTREPOT_CACHE_DIR. \
        A flag counts before its variable, and that before the configuration file. ENTREPOT_CONFIG_YAML may hold the \
        whole file.\n\n\
        Exit codes: 0 done, 64 bad usage or configuration, 1 anything else."
)]
pub struct Arguments {
    /// Directory that holds the cache; created where it is missing [default: /tmp/data]
    #[arg(short = 'd', long, value_name = "DIR")]
    pub(super) cache_dir: Option<String>,

    /// Port to listen on [default: 3000]
    #[arg(short = 'p', long, value_name = "PORT")]
    pub(super) port: Option<String>,

    /// Whether tags are answered from the cache, yes or no [default: yes]
    #[arg(
        short = 'm',
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(super) cache_manifests: Option<String>,

    /// YAML file of user names and passwords by registry
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(super) creds_file: Option<String>,

    /// Tags that are never answered without asking upstream, '' for none [default: latest]
    #[arg(short = 'i', long, value_name = "REGEX")]
    pub(super) ignore: Option<String>,

    /// YAML file with the configuration
    #[arg(short = 'c', long, value_name = "FILE")]
    pub(super) config: Option<String>,

    /// An upstream registry and where it is, http and private addresses included; again for further upstreams, or
    /// further URLs of the same one
    #[arg(long, value_name = "NAME=URL")]
    pub(super) upstream: Vec<String>,

    /// PEM file of CA certificates to trust for every --upstream
    #[arg(long, value_name = "FILE")]
    pub(super) upstream_ca: Option<String>,

    /// Registry that is meant where a request names none, or several to search, parted by commas [default: docker.io]
    #[arg(long, value_name = "NAME[,NAME]")]
    pub(super) default_upstream: Option<String>,

    // Not a comment, where the colons would ask for the backticks that help does without.
    #[arg(
        short = 'l',
        long,
        value_name = "LEVEL",
        help = "error, warn, info, debug, trace or off; also by part, such as info,entrepot::upstream=debug \
            [default: info]"
    )]
    pub(super) log_level: Option<String>,

    /// How log lines are written: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,

    /// Check the configuration, list every problem, and exit with 0 or 64
    #[arg(long)]
    pub check_config: bool,

    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// What to do instead of running the mirror.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do beside running the mirror.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Ask the mirror of this configuration whether it is ready, and exit with 0 or 1
    Health {
        /// Another mirror: http, a host and its port
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,

        /// An image to pull through it as well, every byte of it, for this machine's platform
        #[arg(long, value_name = "IMAGE")]
        pull: Option<String>,
    },

    /// Read all that is cached once more, now, and take away what is wrong; exits with 0 or 1. Works beside a running
    /// mirror
    Scrub {
        /// The cache.
        #[command(flatten)]
        place: CachePlace,

        /// Read no more than this in a second, such as 100MiB
        #[arg(long, value_name = "SIZE")]
        rate: Option<String>,
    },

    /// Tell how much room registries and repositories take in the cache
    Usage {
        /// The cache.
        #[command(flatten)]
        place: CachePlace,
    },

    /// Remove from the cache what fits all that is said here. Works beside a running mirror
    Prune {
        /// The cache.
        #[command(flatten)]
        place: CachePlace,

        /// What nobody has used for this time, such as 30d
        #[arg(long, value_name = "TIME")]
        unused_for: Option<humantime::Duration>,

        /// What this registry has and no other; again for further ones
        #[arg(long, value_name = "NAME")]
        namespace: Vec<String>,

        /// What repositories of these names have and no other, such as library/* or team/**; again for further ones
        #[arg(long, value_name = "PATTERN")]
        repository: Vec<String>,

        /// No more than leaves this much, such as 50GiB; what was used last stays
        #[arg(long, value_name = "SIZE")]
        to: Option<String>,

        /// Tell what would go
        #[arg(long)]
        dry_run: bool,
    },

    /// Take in the cache of a registry made of distribution, an OCI layout, or what `docker save` wrote; every digest is
    /// verified. Works beside a running mirror
    Import {
        /// A directory that has docker/registry/v2 or index.json, or an archive
        #[arg(value_name = "SOURCE")]
        source: PathBuf,

        /// The cache.
        #[command(flatten)]
        place: CachePlace,

        /// The registry it came from, where the source does not say
        #[arg(long, value_name = "NAME")]
        namespace: Option<String>,

        /// The repository it came from, where the source does not say; of a registry's cache, the one to take
        #[arg(long, value_name = "NAME")]
        repository: Option<String>,

        /// It is not everybody's: whoever wants it has to show upstream a right to it
        #[arg(long)]
        private: bool,
    },

    /// Do nothing until a signal ends it, as the rest of a pod whose work is done
    Hold {
        /// End after this time anyway
        #[arg(long = "for", value_name = "TIME")]
        time: Option<humantime::Duration>,
    },

    /// Print what clients have to be told so that they use the mirror of this configuration
    Hosts {
        /// The client; all of them when left out
        client: Option<HostsClient>,

        /// The mirror, as clients reach it
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,

        /// A further registry to name, where registries are named one by one; again for more
        #[arg(long, value_name = "NAME")]
        registry: Vec<String>,
    },

    /// Have the containerd of a machine pull through the mirror, or no longer
    Node {
        /// What to do.
        #[command(subcommand)]
        action: NodeAction,
    },
}

/// Which cache a command is about. What is not said here is as it is for the mirror.
#[derive(Debug, Clone, Default, Args)]
pub struct CachePlace {
    /// Directory that holds the cache
    #[arg(short = 'd', long, value_name = "DIR")]
    cache_dir: Option<String>,

    /// YAML file with the configuration of the mirror
    #[arg(short = 'c', long, value_name = "FILE")]
    config: Option<String>,
}

impl Arguments {
    /// The same, where what a command says of its cache counts before what stands in front of the command.
    #[must_use]
    pub fn at_place(self) -> Self {
        let place = match &self.command {
            Some(
                Command::Scrub { place, .. }
                | Command::Usage { place }
                | Command::Prune { place, .. }
                | Command::Import { place, .. },
            ) => place.clone(),
            None
            | Some(
                Command::Health { .. }
                | Command::Hold { .. }
                | Command::Hosts { .. }
                | Command::Node { .. },
            ) => CachePlace::default(),
        };
        Self {
            cache_dir: place.cache_dir.or(self.cache_dir),
            config: place.config.or(self.config),
            ..self
        }
    }
}

/// Whose configuration is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostsClient {
    /// hosts.toml; also of nerdctl
    Containerd,
    /// daemon.json
    Docker,
    /// A drop-in of registries.conf; also of CRI-O, Buildah and Skopeo
    #[value(alias = "crio")]
    Podman,
    /// registries.yaml; also of RKE2
    #[value(alias = "rke2")]
    K3s,
    /// buildkitd.toml
    Buildkit,
}

/// What is done to a machine's containerd.
#[derive(Debug, Clone, Subcommand)]
pub enum NodeAction {
    /// Name the mirror in hosts.toml files, before all that is named there; again after every change
    Install {
        /// The machine.
        #[command(flatten)]
        place: NodePlace,

        /// The mirror, as the machine reaches it
        #[arg(long, value_name = "URL", env = "ENTREPOT_NODE_MIRROR")]
        mirror: String,

        /// A registry that gets a file of its own beside _default; again for further ones
        #[arg(long, value_name = "NAME")]
        registry: Vec<String>,

        /// Tell what would be changed
        #[arg(long)]
        dry_run: bool,
    },

    /// Tell whether containerd uses the mirror and, if not, what to do; exits with 0 or 1
    Verify {
        /// The machine.
        #[command(flatten)]
        place: NodePlace,

        /// The mirror, as the machine reaches it
        #[arg(long, value_name = "URL", env = "ENTREPOT_NODE_MIRROR")]
        mirror: String,

        /// An image to pull, every byte of it, the way that containerd's configuration takes
        #[arg(long, value_name = "IMAGE")]
        pull: Option<String>,

        /// Look again and again until a signal comes, and tell Prometheus on this address: /metrics
        #[arg(long, value_name = "ADDRESS", conflicts_with = "pull")]
        listen: Option<SocketAddr>,
    },

    /// Put back what was there before the first install
    Remove {
        /// The machine.
        #[command(flatten)]
        place: NodePlace,

        /// Tell what would be changed
        #[arg(long)]
        dry_run: bool,
    },
}

/// Where a machine's files are.
#[derive(Debug, Clone, Args)]
pub struct NodePlace {
    /// Where the root of the machine is seen
    #[arg(
        long,
        value_name = "DIR",
        env = "ENTREPOT_NODE_ROOT",
        default_value = "/"
    )]
    pub root: PathBuf,

    /// Directory of hosts.toml files on the machine [default: /etc/containerd/certs.d]
    #[arg(long, value_name = "DIR", env = "ENTREPOT_NODE_CERTS_DIR")]
    pub certs_dir: Option<PathBuf>,

    /// Directory of containerd's config.toml on the machine [default: /etc/containerd]
    #[arg(long, value_name = "DIR", env = "ENTREPOT_NODE_CONFIG_DIR")]
    pub config_dir: Option<PathBuf>,
}
