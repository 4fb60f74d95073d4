//! The pods of the chart, applied to a process of this machine as a node would: its user, its environment, its volumes,
//! and a root that takes no writes. What is read are the golden files, which Helm has rendered.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::containerd::Containerd;
use crate::harness::images::native_architecture;
use crate::harness::mirror::{BINARY, Mirror};
use crate::harness::process::{daemon_with_own_mounts, free_port};
use crate::harness::upstream::{EXAMPLE, HUB, Upstream};

/// What the binary of a test needs beside itself. That of the image needs nothing.
const LIBRARIES: [&str; 3] = ["/lib", "/lib64", "/usr/lib"];

/// What `chroot` takes; it is gone with the user that it changes to.
const CAPABILITIES: &str = "-all,+sys_chroot,+setuid,+setgid";

/// Where an image keeps the binary.
const ENTRYPOINT: &str = "/entrepot";

/// What every object has.
#[derive(Deserialize)]
struct Object {
    kind: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

/// A `ConfigMap` or `Secret`.
#[derive(Deserialize)]
struct Data {
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Workload {
    spec: WorkloadSpec,
}

#[derive(Deserialize)]
struct WorkloadSpec {
    template: Template,
}

#[derive(Deserialize)]
struct Template {
    spec: Pod,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    security_context: Identity,
    containers: Vec<Container>,
    #[serde(default)]
    volumes: Vec<Volume>,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "runAsUser")]
    user: u32,
    #[serde(rename = "runAsGroup")]
    group: u32,
    #[serde(rename = "fsGroup")]
    volumes: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    args: Vec<String>,
    env: Vec<Variable>,
    volume_mounts: Vec<Mount>,
    security_context: Restrictions,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Restrictions {
    read_only_root_filesystem: bool,
    allow_privilege_escalation: bool,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    name: String,
    #[serde(rename = "mountPath")]
    path: String,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    config_map: Option<Metadata>,
    secret: Option<SecretVolume>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretVolume {
    secret_name: String,
}

/// A release, as Helm has rendered it: the YAML of every object.
struct Release(Vec<String>);

impl Release {
    fn read(mode: &str) -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart/golden");
        let text = fs::read_to_string(golden.join(format!("{mode}.yaml"))).unwrap();
        Self(text.split("\n---\n").map(str::to_owned).collect())
    }

    /// The pod that serves.
    fn mirror(&self, kind: &str) -> Pod {
        let workload: Workload = self.named(kind, "mirror-entrepot");
        workload.spec.template.spec
    }

    fn named<T: DeserializeOwned>(&self, kind: &str, name: &str) -> T {
        let mut objects = self.0.iter();
        let is_it = |text: &&String| {
            serde_yaml::from_str(text)
                .is_ok_and(|object: Object| object.kind == kind && object.metadata.name == name)
        };
        let text = objects.find(is_it);
        serde_yaml::from_str(text.unwrap_or_else(|| panic!("no {kind} {name}"))).unwrap()
    }

    /// The files of a volume; `None` where it is one to write to.
    fn files(&self, volume: &Volume) -> Option<Vec<(String, Vec<u8>)>> {
        if let Some(config) = &volume.config_map {
            let config: Data = self.named("ConfigMap", &config.name);
            let files = config.data.into_iter();
            return Some(
                files
                    .map(|(name, text)| (name, text.into_bytes()))
                    .collect(),
            );
        }
        let secret = volume.secret.as_ref()?;
        let secret: Data = self.named("Secret", &secret.secret_name);
        let files = secret.data.into_iter();
        Some(
            files
                .map(|(name, encoded)| (name, STANDARD.decode(encoded).unwrap()))
                .collect(),
        )
    }
}

/// Makes the volumes of `pod` below `directory`, owned and open as a node's are.
fn volumes(release: &Release, pod: &Pod, directory: &Path) -> BTreeMap<String, PathBuf> {
    let group = Some(pod.security_context.volumes);
    let mut made = BTreeMap::new();
    for mount in &pod.containers[0].volume_mounts {
        let path = directory.join(&mount.name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(0), group).unwrap();
        let mut volumes = pod.volumes.iter();
        let files = volumes
            .find(|volume| volume.name == mount.name)
            .and_then(|volume| release.files(volume));
        let mode = if files.is_some() { 0o755 } else { 0o2777 };
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        for (name, bytes) in files.unwrap_or_default() {
            let file = path.join(name);
            fs::write(&file, bytes).unwrap();
            chown(&file, Some(0), group).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o440)).unwrap();
        }
        made.insert(mount.name.clone(), path);
    }
    made
}

/// A command that becomes the serving container of `pod`, with `more` in its environment.
fn container(
    pod: &Pod,
    volumes: &BTreeMap<String, PathBuf>,
    root: &Path,
    more: &[(&str, String)],
) -> Command {
    let container = &pod.containers[0];
    let user = &pod.security_context;
    assert!(!container.security_context.allow_privilege_escalation);
    fs::create_dir(root).unwrap();
    fs::copy(BINARY, root.join("entrepot")).unwrap();

    let root = root.display();
    let mut script = vec!["set -e".to_owned(), format!("mount --bind {root} {root}")];
    let mut bind = |source: &str, target: &str, read_only: bool| {
        script.push(format!("mkdir -p {root}{target}"));
        script.push(format!("mount --bind {source} {root}{target}"));
        if read_only {
            script.push(format!("mount -o remount,bind,ro {root}{target}"));
        }
    };
    for library in LIBRARIES {
        bind(library, library, true);
    }
    for mount in &container.volume_mounts {
        let source = volumes[&mount.name].display().to_string();
        bind(&source, &mount.path, mount.read_only);
    }
    if container.security_context.read_only_root_filesystem {
        script.push(format!("mount -o remount,bind,ro {root}"));
    }
    script.push(r#"exec "$@""#.to_owned());

    let mut command = daemon_with_own_mounts("sh");
    command.args(["-c", &script.join("\n"), "sh", "/usr/bin/env", "-i"]);
    for Variable { name, value } in &container.env {
        command.arg(format!("{name}={value}"));
    }
    for (name, value) in more {
        command.arg(format!("{name}={value}"));
    }
    command
        .args(["/usr/bin/setpriv", "--no-new-privs", "--inh-caps=-all"])
        .arg(format!("--bounding-set={CAPABILITIES}"))
        .arg("/usr/sbin/chroot")
        .arg(format!("--userspec={}:{}", user.user, user.group))
        .arg(format!("--groups={}", user.volumes))
        .arg(root.to_string())
        .arg(ENTRYPOINT)
        .args(&container.args);
    command
}

/// The value of a line of `/proc/<pid>/status`.
fn status(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name));
    line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

/// Runs the serving pod of the golden file of `mode`, and has containerd pull through it.
fn containerd_pulls_through(mode: &str, kind: &str) {
    let directory = tempfile::tempdir().unwrap();
    // The user of the pod has to get at its volumes.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let upstream = Upstream::start(directory.path());
    let release = Release::read(mode);
    let pod = release.mirror(kind);
    let volumes = volumes(&release, &pod, directory.path());
    // How full the disk of this machine is must not decide what the test finds in the cache.
    let config = volumes["config"].join("entrepot.yaml");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.starts_with("cache:\n"), "{text}");
    fs::write(
        &config,
        text.replacen("cache:\n", "cache:\n  min_free: 0%\n", 1),
    )
    .unwrap();
    let authority = volumes["config"].join("ca.pem");
    fs::copy(&upstream.certificates.authority, &authority).unwrap();
    fs::set_permissions(&authority, Permissions::from_mode(0o444)).unwrap();

    let port = free_port();
    // What `extraEnvVars` would say. The port is any that is free here.
    let more = [
        ("ENTREPOT_PORT", port.to_string()),
        ("ENTREPOT_UPSTREAM", upstream.variable()),
        ("ENTREPOT_UPSTREAM_CA", "/etc/entrepot/ca.pem".to_owned()),
    ];
    let root = directory.path().join("root");
    let mut command = container(&pod, &volumes, &root, &more);
    let mirror = Mirror::started(
        &mut command,
        directory.path(),
        port,
        volumes["cache"].clone(),
    );

    let pid = mirror.pid();
    assert_eq!(status(pid, "Uid:"), "65532");
    assert_eq!(status(pid, "CapEff:"), "0000000000000000");
    assert_eq!(status(pid, "NoNewPrivs:"), "1");
    let written = fs::write(format!("/proc/{pid}/root/file"), "");
    assert!(written.is_err(), "the root of the pod takes writes");

    let containerd = Containerd::start(&mirror);
    let multi = upstream.catalogue.multi.image(native_architecture());
    let name = format!("{EXAMPLE}/{}", upstream.catalogue.multi.name);
    assert_eq!(containerd.pull_by_cri(&name), multi.config);
    containerd.assert_holds(multi);
    let official = &upstream.catalogue.official;
    let name = format!("{HUB}/{}", official.name);
    assert_eq!(containerd.pull_by_cri(&name), official.image.config);
    mirror.wait_until(|mirror| {
        let stored = mirror.stored_blobs();
        let mut pulled = multi.blobs().chain(official.image.blobs());
        pulled.all(|(digest, _)| stored.iter().any(|one| one == digest))
    });
}

#[test]
fn containerd_pulls_through_the_pod_of_a_daemonset() {
    containerd_pulls_through("daemonset", "DaemonSet");
}

#[test]
fn containerd_pulls_through_the_pod_of_a_deployment() {
    containerd_pulls_through("deployment", "Deployment");
}

#[test]
fn containerd_pulls_through_the_pod_of_a_statefulset() {
    containerd_pulls_through("statefulset", "StatefulSet");
}
