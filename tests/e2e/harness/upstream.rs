//! The upstream side of the rig: one registry for each of two namespaces, with the same content and a log of its own.

use std::path::Path;

use super::catalogue::{Catalogue, stored};
use super::certificates::Certificates;
use super::mirror::Mirror;
use super::refusal::Refusal;
use super::registry::{Asked, Audience, Registry};

/// A namespace that only exists in tests: RFC 6761 reserves `.test`, so no request can leave for it.
pub(crate) const EXAMPLE: &str = "registry.example.test";

/// The namespace that clients mean when they name none.
pub(crate) const HUB: &str = "docker.io";

/// Two registries over one storage.
pub(crate) struct Upstream {
    pub(crate) catalogue: Catalogue,
    pub(crate) certificates: Certificates,
    example: Registry,
    hub: Registry,
}

/// What each registry was asked.
pub(crate) struct AskedOf {
    pub(crate) example: Vec<Asked>,
    pub(crate) hub: Vec<Asked>,
}

impl Upstream {
    /// Starts both registries, open to anybody.
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_for(directory, &Audience::Readers)
    }

    /// Starts both registries, open to `audience`.
    pub(crate) fn start_for(directory: &Path, audience: &Audience) -> Self {
        let stored = stored();
        let certificates = Certificates::make(directory);
        let serve =
            |name| Registry::start(name, directory, &stored.storage, &certificates, audience);
        Self {
            example: serve("upstream-example"),
            hub: serve("upstream-hub"),
            catalogue: stored.catalogue,
            certificates,
        }
    }

    /// The flags of a mirror that knows both namespaces.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags = self.flags_for_example_at(&self.example.url());
        flags.push(format!("--upstream={HUB}={}", self.hub.url()));
        flags
    }

    /// The flags of a mirror that knows `EXAMPLE` alone, and finds it at `url`.
    pub(crate) fn flags_for_example_at(&self, url: &str) -> Vec<String> {
        vec![
            format!("--upstream-ca={}", self.certificates.authority.display()),
            format!("--upstream={EXAMPLE}={url}"),
        ]
    }

    /// What `ENTREPOT_UPSTREAM` says for both namespaces.
    pub(crate) fn variable(&self) -> String {
        format!("{EXAMPLE}={} {HUB}={}", self.example.url(), self.hub.url())
    }

    /// A mirror with its cache below `directory` that knows both namespaces.
    pub(crate) fn mirror(&self, directory: &Path) -> Mirror {
        Mirror::start(directory, &self.flags())
    }

    /// A mirror with its cache below `directory` that asks upstream for every tag every time.
    pub(crate) fn mirror_that_asks_every_time(&self, directory: &Path) -> Mirror {
        let mut flags = self.flags();
        flags.push("--cache-manifests=no".to_owned());
        Mirror::start(directory, &flags)
    }

    /// Puts something that answers `status` to everything where both registries were, which have been stopped.
    pub(crate) fn refuse(&self, status: u16) -> Refusal {
        let ports = [self.example.port(), self.hub.port()];
        Refusal::start(&ports, &self.certificates, status)
    }

    /// Stops both registries and returns all they were ever asked.
    pub(crate) fn stop(&mut self) -> AskedOf {
        AskedOf {
            example: self.example.stop(),
            hub: self.hub.stop(),
        }
    }

    /// Returns all that was asked so far, and starts both registries again where they were.
    pub(crate) fn restart(&mut self) -> AskedOf {
        AskedOf {
            example: self.example.restart(),
            hub: self.hub.restart(),
        }
    }

    /// Where the registry is that stands for `HUB`.
    pub(crate) fn hub_url(&self) -> String {
        self.hub.url()
    }

    /// The registry that stands for `EXAMPLE`.
    pub(crate) fn example(&self) -> &Registry {
        &self.example
    }
}
