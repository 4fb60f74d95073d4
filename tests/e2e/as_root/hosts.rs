//! What `entrepot hosts` prints, as the clients it is for read it.

use std::fs;
use std::path::Path;

use super::containerd::Containerd;
use super::docker::Docker;
use crate::harness::images::native_architecture;
use crate::harness::mirror::{Mirror, entrepot};
use crate::harness::process::run;
use crate::harness::upstream::{EXAMPLE, HUB, Upstream};
use crate::skopeo;

/// Upstreams, and a mirror of them.
struct Rig {
    directory: tempfile::TempDir,
    upstream: Upstream,
    mirror: Mirror,
}

impl Rig {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let upstream = Upstream::start(directory.path());
        let mirror = upstream.mirror(directory.path());
        Self {
            directory,
            upstream,
            mirror,
        }
    }

    /// What the flags of the mirror, and its URL, make of `arguments`.
    fn hosts(&self, arguments: &[&str]) -> String {
        let mut command = entrepot();
        command.args(self.upstream.flags());
        command.arg("hosts").args(arguments);
        run(command.arg("--mirror").arg(self.mirror.url()))
    }

    /// Writes the files of `printed`, each below its path, below `root`.
    fn write(printed: &str, root: &Path) {
        for file in printed.split("# /etc/").skip(1) {
            let (path, text) = file.split_once('\n').unwrap();
            let path = root.join("etc").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
}

#[test]
fn containerd_pulls_by_the_files_that_are_printed() {
    let rig = Rig::start();
    let root = rig.directory.path().join("root");
    Rig::write(&rig.hosts(&["containerd", "--registry", "quay.io"]), &root);
    let certs = root.join("etc/containerd/certs.d");
    for folder in ["_default", EXAMPLE, HUB, "quay.io"] {
        assert!(certs.join(folder).join("hosts.toml").exists(), "{folder}");
    }
    let containerd = Containerd::with_folders(&certs);
    let multi = &rig.upstream.catalogue.multi;
    let pulled = containerd.pull_by_cri(&format!("{EXAMPLE}/{}", multi.name));
    assert_eq!(pulled, multi.image(native_architecture()).config);

    // Without a folder of its own, by the one for all.
    fs::remove_dir_all(certs.join(HUB)).unwrap();
    let official = &rig.upstream.catalogue.official;
    let pulled = containerd.pull_by_cri(&format!("{HUB}/{}", official.name));
    assert_eq!(pulled, official.image.config);
}

#[test]
fn docker_pulls_by_the_file_that_is_printed() {
    let rig = Rig::start();
    let configuration = serde_json::from_str(&rig.hosts(&["docker"])).unwrap();
    let docker = Docker::start(&configuration);
    let official = &rig.upstream.catalogue.official;
    docker.pull(&official.name, &official.image.digest, &official.image);
}

#[test]
fn skopeo_copies_by_the_file_that_is_printed() {
    let rig = Rig::start();
    let configuration = rig.directory.path().join("registries.conf");
    fs::write(&configuration, rig.hosts(&["podman"])).unwrap();
    let oci = &rig.upstream.catalogue.oci;
    let copied = rig.directory.path().join("copied");
    let name = format!("{EXAMPLE}/{}", oci.name);
    let mut copying = skopeo::copying(&name, &copied);
    run(copying.arg("--registries-conf").arg(&configuration));
    skopeo::assert_image(&copied, &oci.image);
}

#[test]
fn a_single_file_is_printed_as_it_is_and_several_each_below_its_path() {
    let rig = Rig::start();
    assert!(rig.hosts(&["buildkit"]).starts_with("# Each registry"));
    let root = rig.directory.path().join("root");
    Rig::write(&rig.hosts(&[]), &root);
    for path in [
        "containerd/certs.d/_default/hosts.toml",
        "docker/daemon.json",
        "containers/registries.conf.d/50-entrepot.conf",
        "rancher/k3s/registries.yaml",
        "buildkit/buildkitd.toml",
    ] {
        assert!(root.join("etc").join(path).exists(), "{path}");
    }
}
