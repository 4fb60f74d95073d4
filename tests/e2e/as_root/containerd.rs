//! containerd, which sends `?ns=` with everything it asks a mirror for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::troubles::pulls_in_any_trouble;
use crate::harness::digest;
use crate::harness::images::{Image, native_architecture};
use crate::harness::mirror::Mirror;
use crate::harness::process::{Daemon, command, daemon_with_own_mounts, outcome, run};
use crate::harness::registry::blob_bytes;
use crate::harness::secrets;
use crate::harness::upstream::{EXAMPLE, HUB, Upstream};

/// A containerd with an empty store, whose `_default/hosts.toml` names one mirror.
pub(super) struct Containerd {
    _daemon: Daemon,
    directory: TempDir,
}

impl Containerd {
    pub(super) fn start(mirror: &Mirror) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hosts = directory.path().join("hosts/_default");
        fs::create_dir_all(&hosts).unwrap();
        let host = format!(
            "[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
            mirror.url()
        );
        fs::write(hosts.join("hosts.toml"), host).unwrap();
        let certs = directory.path().join("hosts");
        Self::started(directory, daemon_with_own_mounts("containerd"), &certs)
    }

    /// One that reads the folders of `certs`.
    pub(super) fn with_folders(certs: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::started(directory, daemon_with_own_mounts("containerd"), certs)
    }

    /// That of the node whose root is `root`: its `/etc/containerd`, the configuration in it included, is where a node has it.
    /// Store and sockets alone are elsewhere, which it is told by a file that imports the node's.
    pub(super) fn of_node(root: &Path) -> Self {
        const MOUNT_AND_RUN: &str =
            r#"mount --bind "$1" /etc/containerd && shift && exec containerd "$@""#;
        let mut command = daemon_with_own_mounts("sh");
        command
            .args(["-c", MOUNT_AND_RUN, "sh"])
            .arg(root.join("etc/containerd"));
        let directory = tempfile::tempdir().unwrap();
        let imports = r#"imports = ["/etc/containerd/config.toml"]"#;
        let own = configured(directory.path(), None);
        fs::write(
            directory.path().join("config.toml"),
            format!("{imports}\n{own}"),
        )
        .unwrap();
        Self::run(directory, command)
    }

    fn started(directory: TempDir, command: Command, certs: &Path) -> Self {
        let own = configured(directory.path(), Some(certs));
        fs::write(directory.path().join("config.toml"), own).unwrap();
        Self::run(directory, command)
    }

    /// What `command` becomes with the configuration in `directory`.
    fn run(directory: TempDir, mut command: Command) -> Self {
        command
            .arg("--config")
            .arg(directory.path().join("config.toml"));
        let mut daemon = Daemon::start("containerd", &mut command, directory.path());
        let address = directory.path().join("containerd.sock");
        daemon.wait_until(|| {
            address.exists() && outcome(ctr(&address).arg("version")).status.success()
        });
        Self {
            _daemon: daemon,
            directory,
        }
    }

    fn address(&self) -> PathBuf {
        self.directory.path().join("containerd.sock")
    }

    /// `ctr images pull`: the pull runs in `ctr`, the store and the unpacking are the daemon's.
    fn pull(&self, reference: &str, platforms: &[&str]) {
        run(ctr(&self.address())
            .args(["images", "pull"])
            .args(platforms)
            .arg("--hosts-dir")
            .arg(self.directory.path().join("hosts"))
            .arg(reference));
    }

    /// Whether `ctr images pull` works for somebody who has `user`, a name and a password, as a pod's secret has.
    pub(super) fn pulls_as(&self, user: &str, reference: &str) -> bool {
        let (_, password) = user.split_once(':').unwrap();
        secrets::plant(password);
        outcome(
            ctr(&self.address())
                .args(["images", "pull", "--user", user])
                .arg("--hosts-dir")
                .arg(self.directory.path().join("hosts"))
                .arg(reference),
        )
        .status
        .success()
    }

    /// What the kubelet does: `PullImage` of the Container Runtime Interface, over the socket. Returns the image's id.
    pub(super) fn pull_by_cri(&self, reference: &str) -> String {
        let image = field(1, reference.as_bytes());
        let answer = self.call("PullImage", &field(1, &image));
        let (tag, len) = (answer[0], usize::from(answer[1]));
        assert_eq!(tag, key(1), "PullImageResponse holds an image_ref");
        String::from_utf8(answer[2..2 + len].to_vec()).unwrap()
    }

    /// One call of the CRI image service: gRPC is a POST over HTTP/2, which curl speaks.
    fn call(&self, method: &str, message: &[u8]) -> Vec<u8> {
        let file = |name: &str| self.directory.path().join(name);
        // No compression, then the length of the message.
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend(message);
        fs::write(file("request"), framed).unwrap();
        run(command("curl")
            .args(["--silent", "--show-error", "--http2-prior-knowledge"])
            .args([
                "--header",
                "Content-Type: application/grpc",
                "--header",
                "TE: trailers",
            ])
            .arg("--unix-socket")
            .arg(self.address())
            .arg("--data-binary")
            .arg(format!("@{}", file("request").display()))
            .arg("--dump-header")
            .arg(file("head"))
            .arg("--output")
            .arg(file("answer"))
            .arg(format!("http://localhost/runtime.v1.ImageService/{method}")));
        let head = fs::read_to_string(file("head")).unwrap();
        assert!(head.contains("grpc-status: 0"), "{method}: {head}");
        fs::read(file("answer")).unwrap()[5..].to_vec()
    }

    /// The store holds manifest, configuration and layers of `image`, and every byte is right.
    pub(super) fn assert_holds(&self, image: &Image) {
        self.assert_holds_blob(&image.digest);
        for (digest, _) in image.blobs() {
            self.assert_holds_blob(digest);
        }
    }

    fn assert_holds_blob(&self, digest: &str) {
        let blobs = "root/io.containerd.content.v1.content/blobs/sha256";
        let file = self.directory.path().join(blobs).join(digest::hex(digest));
        assert_eq!(digest::of_file(&file), digest);
    }
}

fn ctr(address: &Path) -> Command {
    let mut command = command("ctr");
    command
        .arg("--address")
        .arg(address)
        .args(["--namespace", "k8s.io"]);
    command
}

/// Everything in `directory`, and registries as the folders of `certs` say.
fn configured(directory: &Path, certs: Option<&Path>) -> String {
    let directory = directory.display();
    let registry = certs.map_or_else(String::new, |certs| {
        format!(
            "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"{}\"\n",
            certs.display()
        )
    });
    format!(
        r#"version = 2
root = "{directory}/root"
state = "{directory}/state"
[debug]
  level = "warn"
[grpc]
  address = "{directory}/containerd.sock"
[ttrpc]
  address = "{directory}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = "{directory}/net.d"
{registry}"#
    )
}

/// The first byte of a protobuf field that holds bytes.
fn key(number: u8) -> u8 {
    const LENGTH_DELIMITED: u8 = 2;
    number << 3 | LENGTH_DELIMITED
}

/// A protobuf field of few bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u8::try_from(bytes.len()).unwrap();
    assert!(len < 0x80, "a length of one byte");
    [&[key(number), len], bytes].concat()
}

#[test]
fn the_first_pull_fetches_each_blob_once_and_the_second_asks_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let multi = format!("{EXAMPLE}/{}", upstream.catalogue.multi.name);

    let catalogue = upstream.catalogue.clone();

    let pull = || {
        let containerd = Containerd::start(&mirror);
        containerd.pull(&multi, &["--all-platforms"]);
        containerd.assert_holds_blob(&catalogue.multi.digest);
        for image in &catalogue.multi.images {
            containerd.assert_holds(image);
        }
    };
    pull();
    let first = upstream.restart();
    for (digest, size) in catalogue.multi.images.iter().flat_map(Image::blobs) {
        assert_eq!(
            blob_bytes(&first.example, digest),
            size,
            "{digest}: {:#?}",
            first.example
        );
    }
    assert_eq!(first.hub, [], "the wrong upstream was asked");

    pull();
    let second = upstream.stop();
    assert_eq!(second.example, [], "the second pull asked upstream");
    assert_eq!(second.hub, []);

    pull();
}

#[test]
fn every_image_is_pulled_again_with_the_upstream_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let catalogue = upstream.catalogue.clone();
    let pull = || {
        let containerd = Containerd::start(&mirror);
        for tagged in [&catalogue.oci, &catalogue.docker, &catalogue.large] {
            containerd.pull(&format!("{EXAMPLE}/{}", tagged.name), &[]);
            containerd.assert_holds(&tagged.image);
        }
        containerd.pull(&format!("{HUB}/{}", catalogue.official.name), &[]);
        containerd.assert_holds(&catalogue.official.image);
    };
    pull();
    let asked = upstream.stop();
    assert_ne!(asked.hub, [], "Docker Hub's images come from Docker Hub");
    let layer = &catalogue.large.image.layers[0];
    assert_eq!(blob_bytes(&asked.example, &layer.digest), layer.size);
    pull();
}

#[test]
fn the_kubelets_way_works_cold_and_with_the_upstream_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let catalogue = upstream.catalogue.clone();
    let pull = || {
        let containerd = Containerd::start(&mirror);
        let multi = catalogue.multi.image(native_architecture());
        let pulled = [
            (format!("{EXAMPLE}/{}", catalogue.multi.name), multi),
            (
                format!("{EXAMPLE}/{}", catalogue.docker.name),
                &catalogue.docker.image,
            ),
            (
                format!("{EXAMPLE}/team/large@{}", catalogue.large.image.digest),
                &catalogue.large.image,
            ),
            // What a manifest of a pod says when it means Docker Hub.
            ("official:1.0".to_owned(), &catalogue.official.image),
        ];
        for (reference, image) in pulled {
            assert_eq!(
                containerd.pull_by_cri(&reference),
                image.config,
                "{reference}"
            );
            containerd.assert_holds(image);
        }
    };
    pull();
    upstream.stop();
    pull();
}

#[test]
fn tags_that_are_asked_for_every_time_are_pulled_again_with_the_upstream_in_any_trouble() {
    pulls_in_any_trouble(EXAMPLE, "team/oci", |mirror, catalogue| {
        let containerd = Containerd::start(mirror);
        for tagged in [&catalogue.oci, &catalogue.docker] {
            containerd.pull(&format!("{EXAMPLE}/{}", tagged.name), &[]);
            containerd.assert_holds(&tagged.image);
        }
        containerd.pull(&format!("{HUB}/{}", catalogue.official.name), &[]);
        containerd.assert_holds(&catalogue.official.image);
    });
}
