//! Docker Engine with its own image store, which knows mirrors of Docker Hub only and asks them at the root path.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::troubles::pulls_in_any_trouble;
use crate::harness::catalogue::Catalogue;
use crate::harness::images::{Image, native_architecture};
use crate::harness::mirror::Mirror;
use crate::harness::process::{Daemon, command, daemon_with_own_mounts, outcome, run};
use crate::harness::unpacked;
use crate::harness::upstream::{HUB, Upstream};

/// A Docker Engine with an empty store and a containerd of its own.
pub(super) struct Docker {
    _daemon: Daemon,
    directory: TempDir,
}

impl Docker {
    /// An engine with `configuration` as its `daemon.json`.
    pub(super) fn start(configuration: &serde_json::Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).into_os_string();
        fs::write(at("daemon.json"), configuration.to_string()).unwrap();
        let mut command = daemon_with_own_mounts("dockerd");
        command
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .arg("--config-file")
            .arg(at("daemon.json"))
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("docker.pid"))
            .arg("--host")
            .arg(format!(
                "unix://{}",
                directory.path().join("docker.sock").display()
            ));
        let mut daemon = Daemon::start("dockerd", &mut command, directory.path());
        let address = directory.path().join("docker.sock");
        daemon.wait_until(|| {
            address.exists() && outcome(docker(&address).arg("version")).status.success()
        });
        Self {
            _daemon: daemon,
            directory,
        }
    }

    fn address(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// Pulls `reference` and checks its digests, then the content of every layer as the engine gives it back.
    pub(super) fn pull(&self, reference: &str, digest: &str, image: &Image) {
        let pulled = run(docker(&self.address()).args(["pull", reference]));
        assert!(
            pulled.contains(&format!("Digest: {digest}")),
            "{reference}: {pulled}"
        );
        let id =
            run(docker(&self.address()).args(["image", "inspect", "--format={{.Id}}", reference]));
        assert_eq!(id.trim(), image.config, "{reference}");

        unpacked::assert_layers(docker(&self.address()).args(["save", reference]), image);
    }
}

fn docker(address: &std::path::Path) -> std::process::Command {
    let mut command = command("docker");
    command
        .arg("--host")
        .arg(format!("unix://{}", address.display()));
    command
}

/// The engine as a mirror's user sets it up.
fn with_mirror(mirror: &Mirror) -> Docker {
    Docker::start(&serde_json::json!({ "registry-mirrors": [mirror.url()] }))
}

fn pull_hub_images(docker: &Docker, catalogue: &Catalogue) {
    let multi = catalogue.multi.image(native_architecture());
    docker.pull("team/multi:1.0", &catalogue.multi.digest, multi);
    for tagged in [&catalogue.oci, &catalogue.docker, &catalogue.large] {
        docker.pull(&tagged.name, &tagged.image.digest, &tagged.image);
    }
    docker.pull(
        "official:1.0",
        &catalogue.official.image.digest,
        &catalogue.official.image,
    );
}

#[test]
fn hub_images_come_through_registry_mirrors_cold_and_with_the_upstream_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let catalogue = upstream.catalogue.clone();

    pull_hub_images(&with_mirror(&mirror), &catalogue);
    let asked = upstream.stop();
    assert_eq!(asked.example, [], "Docker's mirrors are of Docker Hub");
    assert_ne!(asked.hub, []);
    pull_hub_images(&with_mirror(&mirror), &catalogue);
}

#[test]
fn any_registry_comes_by_path_cold_and_with_the_upstream_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let catalogue = upstream.catalogue.clone();
    let pull = || {
        // Loopback counts as insecure by default, so no setting is needed.
        let docker = Docker::start(&serde_json::json!({}));
        let reference = format!(
            "{}/registry.example.test/{}",
            mirror.host(),
            catalogue.docker.name
        );
        docker.pull(
            &reference,
            &catalogue.docker.image.digest,
            &catalogue.docker.image,
        );
    };
    pull();
    upstream.stop();
    pull();
}

#[test]
fn tags_that_are_asked_for_every_time_are_pulled_again_with_the_upstream_in_any_trouble() {
    pulls_in_any_trouble(HUB, "team/oci", |mirror, catalogue| {
        let docker = with_mirror(mirror);
        for tagged in [&catalogue.oci, &catalogue.docker] {
            docker.pull(&tagged.name, &tagged.image.digest, &tagged.image);
        }
    });
}
