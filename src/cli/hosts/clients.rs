//! The text of each client's file.

use std::fmt::Write as _;

use serde_json::json;

use super::{Client, File, Hosts, Registry};
use crate::cli::node::{hosts_toml, server};

/// Where containerd looks, once `config_path` says so.
const CERTS_DIRECTORY: &str = "/etc/containerd/certs.d";

impl Hosts {
    /// `_default/hosts.toml` for every registry, and a folder for each that is not at its name, or was asked for. A folder of
    /// a registry's own takes the place of `_default`.
    pub(super) fn containerd(&self) -> Vec<File> {
        let every = File {
            path: format!("{CERTS_DIRECTORY}/_default/hosts.toml"),
            text: hosts_toml(&self.mirror, None),
        };
        let has_folder =
            |registry: &&Registry| registry.is_asked_for || registry.elsewhere.is_some();
        let apart = self.registries.iter().filter(has_folder).map(|registry| {
            let folder = folder(registry);
            let server = registry
                .elsewhere
                .clone()
                .unwrap_or_else(|| server(&folder));
            File {
                path: format!("{CERTS_DIRECTORY}/{folder}/hosts.toml"),
                text: hosts_toml(&self.mirror, Some(&server)),
            }
        });
        std::iter::once(every).chain(apart).collect()
    }

    /// `daemon.json`: Docker asks mirrors for Docker Hub alone. Other registries are pulled by the mirror's name, which
    /// is why it is named there, too, where it is not encrypted.
    pub(super) fn docker(&self) -> Option<File> {
        let hub = self.docker_hub.as_ref()?;
        let mut keys = json!({ "registry-mirrors": [hub] });
        if !self.mirror.is_encrypted() {
            keys["insecure-registries"] = json!([self.mirror.authority()]);
        }
        Some(File {
            path: "/etc/docker/daemon.json".to_owned(),
            text: format!("{keys:#}\n"),
        })
    }

    /// A drop-in of `registries.conf`, which has no name for every registry: those that the mirror knows.
    pub(super) fn podman(&self) -> File {
        let mut text =
            "# Each registry has to be named. It is asked itself when the mirror cannot help.\n"
                .to_owned();
        let hosts = self
            .registries
            .iter()
            .filter(|registry| registry.looks_like_host());
        for registry in hosts {
            let Registry { name, .. } = registry;
            let mirror = self.mirror.authority();
            let _ = write!(
                text,
                "\n[[registry]]\nprefix = \"{name}\"\nlocation = \"{name}\"\n{}\
                 [[registry.mirror]]\nlocation = \"{mirror}/{name}\"\n{}",
                insecure(registry.is_plain()),
                insecure(!self.mirror.is_encrypted()),
            );
        }
        File {
            path: "/etc/containers/registries.conf.d/50-entrepot.conf".to_owned(),
            text,
        }
    }

    /// `registries.yaml`, of which k3s and RKE2 make `hosts.toml` files when they start.
    pub(super) fn k3s(&self) -> File {
        let mut text = "# Of RKE2: /etc/rancher/rke2/registries.yaml. Read when k3s or RKE2 starts.\nmirrors:\n".to_owned();
        let mut add = |name: &str, endpoints: &[&str]| {
            let _ = writeln!(text, "  \"{name}\":\n    endpoint:");
            for endpoint in endpoints {
                let _ = writeln!(text, "      - \"{endpoint}\"");
            }
        };
        add("*", &[self.mirror.url()]);
        for registry in &self.registries {
            if let Some(elsewhere) = &registry.elsewhere {
                add(registry.name.as_str(), &[self.mirror.url(), elsewhere]);
            }
        }
        File {
            path: "/etc/rancher/k3s/registries.yaml".to_owned(),
            text,
        }
    }

    /// `buildkitd.toml`, which has no name for every registry either.
    pub(super) fn buildkit(&self) -> File {
        let mut text =
            "# Each registry has to be named. It is asked itself when the mirror cannot help.\n"
                .to_owned();
        let mirror = self.mirror.authority();
        for registry in &self.registries {
            let _ = write!(
                text,
                "\n[registry.\"{}\"]\n  mirrors = [\"{mirror}\"]\n{}",
                registry.name,
                if registry.is_plain() {
                    "  http = true\n"
                } else {
                    ""
                }
            );
        }
        if !self.mirror.is_encrypted() {
            let _ = write!(text, "\n[registry.\"{mirror}\"]\n  http = true\n");
        }
        File {
            path: "/etc/buildkit/buildkitd.toml".to_owned(),
            text,
        }
    }

    /// How `client` is told to trust the mirror's certificate.
    pub(super) fn trust(&self, client: Client) -> String {
        let mirror = self.mirror.authority();
        match client {
            Client::Containerd => {
                "add ca = \"/path/of/ca.crt\" below the mirror's [host.…] in each hosts.toml"
                    .to_owned()
            }
            Client::Docker => format!("put its authority into /etc/docker/certs.d/{mirror}/ca.crt"),
            Client::Podman => {
                format!("put its authority into /etc/containers/certs.d/{mirror}/ca.crt")
            }
            Client::K3s => {
                format!("add configs: {{\"{mirror}\": {{tls: {{ca_file: /path/of/ca.crt}}}}}}")
            }
            Client::Buildkit => {
                format!("add [registry.\"{mirror}\"] with ca = [\"/path/of/ca.crt\"]")
            }
        }
    }
}

/// The name of a registry's folder: containerd takes a port with underscores, as some file systems have no colons.
fn folder(registry: &Registry) -> String {
    match registry.name.as_str().rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => format!("{host}_{port}_"),
        Some(_) | None => registry.name.to_string(),
    }
}

fn insecure(is_insecure: bool) -> &'static str {
    if is_insecure { "insecure = true\n" } else { "" }
}
