//! podman, which names the registry in the path, by hand or by its `registries.conf`.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::troubles::pulls_in_any_trouble;
use crate::harness::images::{Image, native_architecture};
use crate::harness::mirror::Mirror;
use crate::harness::process::{command_with_own_mounts, outcome, run};
use crate::harness::unpacked;
use crate::harness::upstream::{EXAMPLE, Upstream};

/// A podman with an empty store. Its commands share the store, each in mounts of its own.
struct Podman {
    directory: TempDir,
}

impl Podman {
    /// A podman whose `registries.conf` names `mirror` for one namespace.
    fn new(mirror: &Mirror) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let podman = Self { directory };
        let configuration = format!(
            "[[registry]]\nprefix = \"{EXAMPLE}\"\nlocation = \"{EXAMPLE}\"\n\
             [[registry.mirror]]\nlocation = \"{}/{EXAMPLE}\"\ninsecure = true\n",
            mirror.host()
        );
        fs::write(podman.path("registries.conf"), configuration).unwrap();
        fs::write(
            podman.path("policy.json"),
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        )
        .unwrap();
        podman
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self) -> std::process::Command {
        let mut command = command_with_own_mounts("podman");
        command
            .env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"))
            .arg("--root")
            .arg(self.path("root"))
            .arg("--runroot")
            .arg(self.path("run"))
            .arg("--tmpdir")
            .arg(self.path("tmp"))
            .args(["--storage-driver=overlay", "--events-backend=none"]);
        command
    }

    /// Pulls `reference` and checks its digests, then the content of every layer as podman gives it back.
    fn pull(&self, reference: &str, digest: &str, image: &Image) {
        run(self
            .command()
            .args([
                "pull",
                "--quiet",
                "--tls-verify=false",
                "--signature-policy",
            ])
            .arg(self.path("policy.json"))
            .arg(reference));
        let inspect = |format: &str| {
            run(self.command().args(["image", "inspect", format, reference]))
                .trim()
                .to_owned()
        };
        assert_eq!(
            format!("sha256:{}", inspect("--format={{.Id}}")),
            image.config,
            "{reference}"
        );
        let digests = inspect("--format={{.RepoDigests}}");
        assert!(digests.contains(digest), "{reference}: {digests}");

        let mut save = self.command();
        save.args(["save", "--quiet", "--format=docker-archive", reference]);
        unpacked::assert_layers(&mut save, image);
    }
}

#[test]
fn images_come_by_path_cold_and_with_the_upstream_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let catalogue = upstream.catalogue.clone();
    let pull = || {
        let podman = Podman::new(&mirror);
        let prefix = format!("{}/{EXAMPLE}", mirror.host());
        let multi = catalogue.multi.image(native_architecture());
        let multi_name = format!("{prefix}/{}", catalogue.multi.name);
        podman.pull(&multi_name, &catalogue.multi.digest, multi);
        for tagged in [&catalogue.oci, &catalogue.docker, &catalogue.large] {
            let name = format!("{prefix}/{}", tagged.name);
            podman.pull(&name, &tagged.image.digest, &tagged.image);
        }
        let official = &catalogue.official.image;
        let official_name = format!("{}/docker.io/official:1.0", mirror.host());
        podman.pull(&official_name, &official.digest, official);
    };
    pull();
    upstream.stop();
    pull();
}

#[test]
fn images_come_through_a_mirror_of_registries_conf_cold_and_with_the_upstream_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let catalogue = upstream.catalogue.clone();
    let pull = || {
        let podman = Podman::new(&mirror);
        let name = format!("{EXAMPLE}/{}", catalogue.multi.name);
        let multi = catalogue.multi.image(native_architecture());
        podman.pull(&name, &catalogue.multi.digest, multi);
    };
    pull();
    upstream.stop();
    pull();
}

#[test]
fn an_image_that_is_not_there_is_reported_as_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let podman = Podman::new(&mirror);
    let output = outcome(
        podman
            .command()
            .args(["pull", "--quiet", "--tls-verify=false"])
            .arg(format!("{}/{EXAMPLE}/team/absent:1.0", mirror.host())),
    );
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("unknown"), "{message}");
}

#[test]
fn tags_that_are_asked_for_every_time_are_pulled_again_with_the_upstream_in_any_trouble() {
    pulls_in_any_trouble(EXAMPLE, "team/oci", |mirror, catalogue| {
        let podman = Podman::new(mirror);
        let prefix = format!("{}/{EXAMPLE}", mirror.host());
        for tagged in [&catalogue.oci, &catalogue.docker] {
            let name = format!("{prefix}/{}", tagged.name);
            podman.pull(&name, &tagged.image.digest, &tagged.image);
        }
    });
}
