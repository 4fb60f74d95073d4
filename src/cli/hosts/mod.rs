//! `entrepot hosts`: what a client's own configuration has to say so that it pulls through this mirror.
//!
//! It follows from how the mirror is configured: which registries it serves, under which names, and where it stands for
//! Docker Hub without being told so. Nothing is written; whoever reads it puts it in its place.

mod clients;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use super::node::{Mirror, NodeError};
use crate::oci::{Namespace, NamespaceError};
use crate::registry::Ways;
use crate::upstream::{self, Directory, UpstreamConfig};

/// The registry that Docker asks a mirror for.
const DOCKER_HUB: &str = "docker.io";

/// Why a configuration cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// The mirror's address cannot be one.
    #[error(transparent)]
    Mirror(#[from] NodeError),
    /// A registry's name cannot be one.
    #[error("--registry `{name}`: {source}")]
    Registry {
        /// The name.
        name: String,
        /// Why.
        source: NamespaceError,
    },
    /// Docker names no registry, and nothing here stands for Docker Hub without that.
    #[error(
        "Docker asks mirrors for Docker Hub alone, and no way into this mirror stands for it: have a listener with \
         `upstream: docker.io`, a host name in `hosts` or a `domain`, or `default_upstream: docker.io`"
    )]
    NoDockerHub,
}

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// containerd, and nerdctl.
    Containerd,
    /// Docker Engine.
    Docker,
    /// Podman, CRI-O, Buildah and Skopeo.
    Podman,
    /// k3s and RKE2.
    K3s,
    /// `BuildKit`.
    Buildkit,
}

/// A listener of the mirror, as far as clients have to know it.
#[derive(Debug, Clone, Copy)]
pub struct Listener {
    /// The address it is bound to.
    pub address: SocketAddr,
    /// Whether it takes encrypted connections alone.
    pub is_encrypted: bool,
}

/// A file of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where the client looks for it.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// A registry, as clients name it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Registry {
    name: Namespace,
    /// Where it is, if not at its name over https.
    elsewhere: Option<String>,
    /// Whether it was asked for by name.
    is_asked_for: bool,
}

/// What clients have to know of a mirror.
#[derive(Debug)]
pub struct Hosts {
    mirror: Mirror,
    /// Whether somebody said how the mirror is reached.
    is_told: bool,
    /// The URL at which it stands for Docker Hub.
    docker_hub: Option<String>,
    registries: Vec<Registry>,
}

/// Files one after the other, as they are printed.
#[derive(Debug, Default)]
pub struct Printed {
    files: Vec<File>,
    notes: Vec<String>,
}

impl Printed {
    /// Further files, and what is to be said of them.
    pub fn add(&mut self, files: Vec<File>, notes: Vec<String>) {
        self.files.extend(files);
        for note in notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    /// A single file as it is, so that it can be sent to its place; more of them each below its path.
    pub fn text(&self) -> String {
        if let [single] = self.files.as_slice() {
            return single.text.clone();
        }
        let parts = self
            .files
            .iter()
            .map(|file| format!("# {}\n{}", file.path, file.text));
        parts.collect::<Vec<_>>().join("\n")
    }

    /// Where a single file belongs, and all notes.
    pub fn notes(&self) -> Vec<String> {
        let place = match self.files.as_slice() {
            [single] => Some(format!("# {}", single.path)),
            [] | [_, ..] => None,
        };
        let notes = self.notes.iter().map(|note| format!("# {note}"));
        place.into_iter().chain(notes).collect()
    }
}

impl Client {
    /// Every client.
    pub const ALL: [Self; 5] = [
        Self::Containerd,
        Self::Docker,
        Self::Podman,
        Self::K3s,
        Self::Buildkit,
    ];
}

impl Hosts {
    /// Of the mirror with these listeners, ways and upstreams. `mirror` is the URL by which clients reach it; without one
    /// it is that of the first listener, at its domain if it has one, else on this machine. `further` are registries that
    /// are named beside those that it knows.
    ///
    /// # Errors
    ///
    /// `mirror` is no URL, or one of `further` no name.
    pub fn of(
        listeners: &[Listener],
        ways: &Ways,
        upstream: &upstream::Config,
        mirror: Option<&str>,
        further: &[String],
    ) -> Result<Self, HostsError> {
        let url = match mirror {
            Some(url) => url.to_owned(),
            None => own_url(listeners.first(), ways),
        };
        let mirror_at = Mirror::at(&url)?;
        let directory = Directory::new(upstream);
        Ok(Self {
            docker_hub: docker_hub(&mirror_at, listeners, ways, &directory),
            registries: registries(upstream, &directory, further)?,
            is_told: mirror.is_some() || ways.domain.is_some(),
            mirror: mirror_at,
        })
    }

    /// What `client` has to be told: a single file that covers all it can, and for containerd those of single registries,
    /// where they are not at their name or somebody asked for them.
    ///
    /// # Errors
    ///
    /// [`HostsError::NoDockerHub`].
    pub fn files(&self, client: Client) -> Result<Vec<File>, HostsError> {
        Ok(match client {
            Client::Containerd => self.containerd(),
            Client::Docker => vec![self.docker().ok_or(HostsError::NoDockerHub)?],
            Client::Podman => vec![self.podman()],
            Client::K3s => vec![self.k3s()],
            Client::Buildkit => vec![self.buildkit()],
        })
    }

    /// What the operator still has to do, or should know.
    pub fn notes(&self, client: Client) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.is_told {
            notes.push(format!(
                "{} reaches the mirror from this machine alone: --mirror URL says how others do",
                self.mirror.url()
            ));
        }
        if self.mirror.is_encrypted() {
            notes.push(format!(
                "the mirror's certificate has to be trusted there: if it is not from a usual authority, {}",
                self.trust(client)
            ));
        }
        notes
    }
}

/// The URL of the mirror by its own configuration.
fn own_url(listener: Option<&Listener>, ways: &Ways) -> String {
    let Some(Listener {
        address,
        is_encrypted,
    }) = listener
    else {
        return String::new();
    };
    let scheme = if *is_encrypted { "https" } else { "http" };
    let port = address.port();
    if let Some(domain) = &ways.domain {
        return format!("{scheme}://{domain}:{port}");
    }
    let address = if address.ip().is_unspecified() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    } else {
        *address
    };
    format!("{scheme}://{address}")
}

/// The URL at which the mirror stands for Docker Hub, for a client that names no registry.
fn docker_hub(
    mirror: &Mirror,
    listeners: &[Listener],
    ways: &Ways,
    directory: &Directory,
) -> Option<String> {
    let is_hub = |registry: &Namespace| registry.as_str() == DOCKER_HUB;
    let (host, port) = mirror.host_and_port();
    // A port that no listener has leads to the first of them, as a service in front of it does.
    let reached = listeners
        .iter()
        .position(|listener| listener.address.port() == port)
        .unwrap_or(0);
    let own = |index: usize| ways.listeners.get(index).and_then(Option::as_ref);
    if let Some(own) = own(reached) {
        if is_hub(own) {
            return Some(mirror.url().to_owned());
        }
    } else if ways.takes_for_default(host) {
        let mut defaults =
            std::iter::once(directory.default_upstream()).chain(directory.further_defaults());
        if defaults.any(is_hub) {
            return Some(mirror.url().to_owned());
        }
    } else if let Some(name) = hub_host(host, ways) {
        let is_reached_by_it = name == host;
        return Some(if is_reached_by_it {
            mirror.url().to_owned()
        } else {
            format!("{}://{name}:{port}", mirror.scheme())
        });
    }
    let others = listeners.iter().enumerate();
    let hub = others
        .filter(|(index, _)| own(*index).is_some_and(is_hub))
        .map(|(_, listener)| listener)
        .next()?;
    let scheme = if hub.is_encrypted { "https" } else { "http" };
    Some(format!("{scheme}://{host}:{}", hub.address.port()))
}

/// A host name that stands for Docker Hub: `host` itself if it does.
fn hub_host(host: &str, ways: &Ways) -> Option<String> {
    let mut names: Vec<&str> = ways
        .hosts
        .iter()
        .filter(|(_, registry)| registry.as_str() == DOCKER_HUB)
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    if names.contains(&host) {
        return Some(host.to_owned());
    }
    let below = ways.domain.as_ref();
    below
        .map(|domain| format!("{DOCKER_HUB}.{domain}"))
        .or_else(|| names.first().map(|name| (*name).to_owned()))
}

/// The registries that a client can be told of by name: those of the operator first.
fn registries(
    upstream: &upstream::Config,
    directory: &Directory,
    further: &[String],
) -> Result<Vec<Registry>, HostsError> {
    let mut names = Vec::new();
    for name in further {
        let parsed: Result<Namespace, _> = name.parse();
        let parsed = parsed.map_err(|source| HostsError::Registry {
            name: name.clone(),
            source,
        })?;
        names.push(directory.canonical(&parsed));
    }
    let asked_for = names.clone();
    names.extend(upstream.upstreams.iter().map(|one| one.namespace.clone()));
    names.extend(upstream.named.iter().cloned());
    names.push(directory.default_upstream().clone());
    names.extend(directory.further_defaults().iter().cloned());
    names.extend(upstream::known_registries());
    let mut seen = BTreeSet::new();
    names.retain(|name| directory.serves(name) && seen.insert(name.clone()));
    let found = names.into_iter().map(|name| {
        let mut configured = upstream.upstreams.iter();
        let configured = configured.find(|one| one.namespace == name);
        Registry {
            elsewhere: configured.and_then(elsewhere),
            is_asked_for: asked_for.contains(&name),
            name,
        }
    });
    Ok(found.collect())
}

/// Where an upstream is, if a client can be told so, and would not find it by its name.
fn elsewhere(upstream: &UpstreamConfig) -> Option<String> {
    let first = upstream.endpoints.first()?;
    if first.path() != "/" || upstream::endpoint_of(&upstream.namespace).as_ref() == Some(first) {
        return None;
    }
    Some(first.as_str().trim_end_matches('/').to_owned())
}

impl Registry {
    /// Whether clients take the first part of a path for this registry.
    fn looks_like_host(&self) -> bool {
        let name = self.name.as_str();
        name.contains(['.', ':']) || name == "localhost"
    }

    /// Whether it is at its name, without encryption.
    fn is_plain(&self) -> bool {
        self.elsewhere.as_deref() == Some(&format!("http://{}", self.name))
    }
}
