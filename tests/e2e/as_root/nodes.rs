//! Nodes as `entrepot node install` leaves them, with a real containerd on them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::containerd::Containerd;
use crate::command_line::{FAILURE, assert_refused};
use crate::harness::images::native_architecture;
use crate::harness::mirror::{Mirror, entrepot};
use crate::harness::process::outcome;
use crate::harness::upstream::{EXAMPLE, HUB, Upstream};

/// Longest time until containerd has asked the registry itself, where the mirror is gone.
const FALLBACK: Duration = Duration::from_secs(2);

/// What Debian 12 installs, with the path set.
const CONFIG: &str = r#"version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"
"#;

/// Every file and folder below `root`, with its mode and bytes.
fn tree(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        let bytes = if path.is_dir() {
            found.extend(tree(&path));
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        found.insert(path.display().to_string(), (mode, bytes));
    }
    found
}

/// Runs `entrepot node` on `root`; gives what it said.
fn node(root: &Path, arguments: &[&str], status: i32, words: &[&str]) {
    let mut command = entrepot();
    command.arg("node").args(arguments).arg("--root").arg(root);
    assert_refused(&outcome(&mut command), status, words);
}

#[test]
fn a_node_that_was_set_up_pulls_through_the_mirror_and_without_it_from_the_registry() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    // A registry with a name that leads somewhere, so that there is something to fall back to.
    let private = upstream.example().url().replace("https://", "");
    let mut flags = upstream.flags();
    flags.push(format!("--upstream={private}=https://{private}"));
    let mut mirror = Mirror::start(directory.path(), &flags);
    let authority = fs::read(&upstream.certificates.authority).unwrap();

    let root = directory.path().join("root");
    let certs = root.join("etc/containerd/certs.d");
    fs::create_dir_all(certs.join(&private)).unwrap();
    fs::create_dir_all(certs.join(HUB)).unwrap();
    fs::write(root.join("etc/containerd/config.toml"), CONFIG).unwrap();
    fs::write(certs.join(&private).join("ca.crt"), authority).unwrap();
    let theirs = format!(
        "server = \"{}\"\nca = \"{}\"\n",
        upstream.hub_url(),
        upstream.certificates.authority.display()
    );
    fs::write(certs.join(HUB).join("hosts.toml"), theirs).unwrap();
    let before = tree(&root);

    let url = mirror.url();
    let install = ["install", "--mirror", &url];
    node(&root, &install, 0, &["containerd reads"]);
    node(&root, &install, 0, &["nothing to change"]);
    let multi = upstream
        .catalogue
        .multi
        .image(native_architecture())
        .clone();
    let name = format!("{EXAMPLE}/{}", upstream.catalogue.multi.name);
    let verify = ["verify", "--mirror", &url, "--pull", &name];
    node(&root, &verify, 0, &["every one of them right"]);

    let containerd = Containerd::of_node(&root);
    assert_eq!(containerd.pull_by_cri(&name), multi.config);
    let oci = &upstream.catalogue.oci;
    let pulled = containerd.pull_by_cri(&format!("{private}/{}", oci.name));
    assert_eq!(pulled, oci.image.config);
    // By the mirror, which stores what it has given behind its answers.
    mirror.wait_until(|mirror| {
        let stored = mirror.stored_blobs();
        let mut pulled = multi.blobs().chain(oci.image.blobs());
        pulled.all(|(digest, _)| stored.iter().any(|one| one == digest))
    });

    mirror.stop();
    // The image is there already: what takes its time is to find out that the mirror is gone, and to ask the registry.
    let name = format!("{private}/{}", upstream.catalogue.multi.name);
    let began = Instant::now();
    assert_eq!(containerd.pull_by_cri(&name), multi.config);
    let took = began.elapsed();
    eprintln!("without the mirror the registry was asked within {took:?}");
    assert!(took < FALLBACK, "{took:?}");
    let docker = &upstream.catalogue.docker;
    let official = &upstream.catalogue.official;
    for (name, image) in [
        (format!("{private}/{}", docker.name), &docker.image),
        (format!("{HUB}/{}", official.name), &official.image),
    ] {
        assert_eq!(containerd.pull_by_cri(&name), image.config);
        containerd.assert_holds(image);
    }
    node(&root, &verify, FAILURE, &[&url]);

    node(&root, &["remove"], 0, &["restore"]);
    assert_eq!(tree(&root), before);
}
