//! The set-up of nodes, on scratch roots: what it writes, what it leaves alone, and that it leaves nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use entrepot::cli::node::{Finding, Mirror, Node, NodeError, watch};
use entrepot::server::{Listener, bind};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

const URL: &str = "http://10.0.0.1:30500";

const HUB: &str = "etc/containerd/certs.d/docker.io/hosts.toml";
const CA_ONLY: &str = "etc/containerd/certs.d/registry.example.com:5000";

const DOCKER_HOSTS: &str = "# ours for years\nserver = \"https://registry-1.docker.io\"\n\n[host.\"https://old.example\"]\n  \
    capabilities = [\"pull\"] # only that\n";

/// containerd 1.x, as its packages configure it, with the path set.
const VERSION_2: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n";

/// containerd 2.x.
const VERSION_3: &str = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n  \
    config_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n";

/// A root with these files.
fn root(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("a scratch root can be read and written");
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(
            path.parent()
                .expect("a scratch root can be read and written"),
        )
        .expect("a scratch root can be read and written");
        fs::write(path, text).expect("a scratch root can be read and written");
    }
    root
}

/// Everything below a root: folders, and files with their mode and bytes.
fn tree(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a scratch root can be read and written") {
            let path = entry
                .expect("a scratch root can be read and written")
                .path();
            let mode = fs::metadata(&path)
                .expect("a scratch root can be read and written")
                .permissions()
                .mode();
            let bytes = if path.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).expect("a scratch root can be read and written")
            };
            found.insert(
                path.to_str()
                    .expect("a scratch root can be read and written")
                    .to_owned(),
                (mode, bytes),
            );
        }
    }
    found
}

fn node(root: &TempDir) -> Node {
    Node::at(root.path().to_owned(), None, None).expect("a scratch root can be read and written")
}

fn mirror() -> Mirror {
    Mirror::at(URL).expect("a scratch root can be read and written")
}

fn problems(root: &TempDir) -> Vec<String> {
    let findings = node(root)
        .verify(&mirror())
        .expect("a scratch root can be read and written");
    let problem = |finding| match finding {
        Finding::Problem(text) => Some(text),
        Finding::Fine(_) | Finding::Warning(_) => None,
    };
    findings.into_iter().filter_map(problem).collect()
}

fn read(root: &TempDir, path: &str) -> String {
    fs::read_to_string(root.path().join(path)).expect("a scratch root can be read and written")
}

#[test]
fn an_install_done_twice_changes_nothing_more_and_remove_puts_every_byte_back() {
    let ca = format!("{CA_ONLY}/ca.crt");
    for config in [VERSION_2, VERSION_3] {
        let root = root(&[
            ("etc/containerd/config.toml", config),
            (HUB, DOCKER_HOSTS),
            (&ca, "a certificate"),
        ]);
        fs::set_permissions(root.path().join(HUB), fs::Permissions::from_mode(0o600)).unwrap();
        let before = tree(root.path());
        assert!(!problems(&root).is_empty());

        let registries = ["ghcr.io".to_owned()];
        assert!(
            !node(&root)
                .install(&mirror(), &registries, false)
                .unwrap()
                .is_empty()
        );
        let installed = tree(root.path());
        assert_eq!(problems(&root), [""; 0]);
        assert!(
            installed
                .keys()
                .any(|path| path.ends_with("certs.d/ghcr.io/hosts.toml"))
        );
        assert_eq!(
            node(&root).install(&mirror(), &registries, false).unwrap(),
            [""; 0]
        );
        assert_eq!(tree(root.path()), installed);

        assert!(!node(&root).remove(false).unwrap().is_empty());
        assert_eq!(tree(root.path()), before);
        assert_eq!(node(&root).remove(false).unwrap(), [""; 0]);
    }
}

#[test]
fn a_bare_root_is_as_bare_after_remove() {
    let root = root(&[]);
    node(&root).install(&mirror(), &[], false).unwrap();
    let text = read(&root, "etc/containerd/certs.d/_default/hosts.toml");
    assert!(text.contains(&format!("[host.\"{URL}\"]\n")), "{text}");
    assert!(!text.contains("server"), "{text}");
    node(&root).remove(false).unwrap();
    assert!(tree(root.path()).is_empty());
}

#[test]
fn a_folder_that_somebody_uses_meanwhile_stays() {
    let root = root(&[]);
    node(&root).install(&mirror(), &[], false).unwrap();
    let mine = root.path().join("etc/containerd/config.toml");
    fs::write(&mine, VERSION_2).unwrap();
    node(&root).remove(false).unwrap();
    assert!(mine.exists());
    assert!(!root.path().join("etc/containerd/certs.d").exists());
}

#[test]
fn the_mirror_is_put_before_what_is_there_and_the_rest_stays() {
    let root = root(&[(HUB, DOCKER_HOSTS)]);
    node(&root).install(&mirror(), &[], false).unwrap();
    let text = read(&root, HUB);
    for line in DOCKER_HOSTS.lines() {
        assert!(text.contains(line), "no {line:?} in: {text}");
    }
    assert!(text.find(URL) < text.find("https://old.example"), "{text}");
    assert_eq!(read(&root, &format!("{HUB}.entrepot-backup")), DOCKER_HOSTS);
}

#[test]
fn a_mirror_that_moved_replaces_itself() {
    let root = root(&[(HUB, DOCKER_HOSTS)]);
    let before = tree(root.path());
    node(&root)
        .install(&Mirror::at("http://10.0.0.2:1/").unwrap(), &[], false)
        .unwrap();
    node(&root).install(&mirror(), &[], false).unwrap();
    assert!(!read(&root, HUB).contains("10.0.0.2"));
    node(&root).remove(false).unwrap();
    assert_eq!(tree(root.path()), before);
}

#[test]
fn a_folder_with_certificates_alone_goes_on_trusting_them() {
    let root = root(&[(&format!("{CA_ONLY}/ca.crt"), "a certificate")]);
    node(&root).install(&mirror(), &[], false).unwrap();
    let text = read(&root, &format!("{CA_ONLY}/hosts.toml"));
    assert!(
        text.contains("server = \"https://registry.example.com:5000\"\nca = [\"ca.crt\"]\n"),
        "{text}"
    );
    assert!(text.contains(URL), "{text}");
}

#[test]
fn what_somebody_wrote_over_ours_is_not_taken_away() {
    let root = root(&[(HUB, DOCKER_HOSTS)]);
    node(&root).install(&mirror(), &[], false).unwrap();
    fs::write(root.path().join(HUB), "server = \"https://new.example\"\n").unwrap();
    node(&root).remove(false).unwrap();
    assert_eq!(read(&root, HUB), "server = \"https://new.example\"\n");
    assert!(!root.path().join(format!("{HUB}.entrepot-backup")).exists());
}

#[test]
fn a_file_that_is_not_toml_leaves_every_file_as_it_was() {
    let root = root(&[(HUB, "server = \n")]);
    let before = tree(root.path());
    let refused = node(&root).install(&mirror(), &[], false).unwrap_err();
    assert!(matches!(refused, NodeError::Hosts { .. }), "{refused}");
    assert!(
        refused
            .to_string()
            .contains("docker.io/hosts.toml: it is not TOML"),
        "{refused}"
    );
    assert_eq!(tree(root.path()), before);
}

#[test]
fn a_dry_run_tells_the_changes_and_makes_none() {
    let root = root(&[(HUB, DOCKER_HOSTS)]);
    let before = tree(root.path());
    let told = node(&root).install(&mirror(), &[], true).unwrap();
    assert_eq!(tree(root.path()), before);
    assert_eq!(node(&root).install(&mirror(), &[], false).unwrap(), told);
    let installed = tree(root.path());
    let told = node(&root).remove(true).unwrap();
    assert_eq!(tree(root.path()), installed);
    assert_eq!(node(&root).remove(false).unwrap(), told);
}

#[test]
fn addresses_names_and_directories_that_cannot_be_are_refused() {
    for url in [
        "10.0.0.1:5000",
        "ftp://a",
        "http://",
        "http://a/path",
        "http://u:p@a",
        "http://$(NODE_IP):1",
        "http://a?b",
    ] {
        assert!(
            matches!(Mirror::at(url), Err(NodeError::Mirror(_))),
            "{url}"
        );
    }
    assert!(Mirror::at("http://[fd00::1]:3000").is_ok());
    let root = root(&[]);
    let gone = Node::at(root.path().join("gone"), None, None);
    assert!(matches!(gone, Err(NodeError::Root(_))));
    let outside = Node::at(root.path().to_owned(), Some("/etc/../..".into()), None);
    assert!(matches!(outside, Err(NodeError::Directory(_))));
    for name in ["../etc", "a/b", "", "..", "_default"] {
        let refused = node(&root).install(&mirror(), &[name.to_owned()], false);
        assert!(matches!(refused, Err(NodeError::Registry(_))), "{name}");
    }
    assert!(tree(root.path()).is_empty());
}

#[test]
fn verify_tells_the_line_that_containerd_lacks() {
    let k3s = format!("mirrors:\n  \"*\":\n    endpoint: [\"{URL}\"]\n");
    let cases = [
        (
            "etc/containerd/config.toml",
            "version = 2\n",
            Some("[plugins.\"io.containerd.grpc.v1.cri\".registry]"),
        ),
        (
            "etc/containerd/config.toml",
            "version = 3\n",
            Some("[plugins.\"io.containerd.cri.v1.images\".registry]"),
        ),
        (
            "etc/containerd/config.toml",
            "[plugins.cri.registry.mirrors.\"docker.io\"]\n",
            Some("registry.mirrors"),
        ),
        ("etc/containerd/config.toml", "version = ", Some("not TOML")),
        ("etc/containerd/config.toml", VERSION_2, None),
        ("etc/containerd/config.toml", VERSION_3, None),
        (
            "usr/bin/containerd",
            "",
            Some("config_path = \"/etc/containerd/certs.d\""),
        ),
        (
            "etc/rancher/k3s/config.yaml",
            "",
            Some("mirrors: {\"*\": {endpoint: [\"http://10.0.0.1:30500\"]}}"),
        ),
        ("etc/rancher/k3s/registries.yaml", &k3s, None),
    ];
    for (path, text, problem) in cases {
        let root = root(&[(path, text)]);
        node(&root).install(&mirror(), &[], false).unwrap();
        let problems = problems(&root).join("\n");
        match problem {
            Some(part) => assert!(problems.contains(part), "{text}: {problems}"),
            None => assert_eq!(problems, "", "{text}"),
        }
    }
}

#[test]
fn a_path_that_is_set_in_an_imported_file_counts() {
    let root = root(&[
        (
            "etc/containerd/config.toml",
            "version = 2\nimports = [\"conf.d/*.toml\"]\n",
        ),
        ("etc/containerd/conf.d/registry.toml", VERSION_2),
        ("etc/containerd/conf.d/notes.txt", "none of it"),
    ]);
    node(&root).install(&mirror(), &[], false).unwrap();
    assert_eq!(problems(&root), [""; 0]);
}

#[test]
fn a_root_without_a_runtime_is_a_warning() {
    let root = root(&[]);
    let found = node(&root).runtime(&mirror());
    assert!(matches!(found, Finding::Warning(_)), "{found}");
}

#[test]
fn verify_names_the_folders_that_hide_the_mirror() {
    let root = root(&[("etc/containerd/config.toml", VERSION_2)]);
    node(&root).install(&mirror(), &[], false).unwrap();
    fs::create_dir_all(root.path().join(CA_ONLY)).unwrap();
    let problems = problems(&root);
    assert!(
        problems[0].contains("hides the mirror from registry.example.com:5000"),
        "{problems:?}"
    );
}

#[test]
fn what_containerd_asks_first_is_what_its_folders_say() {
    let port = "etc/containerd/certs.d/registry.example.com_5000_/hosts.toml";
    let other = "[host.\"https://push\"]\ncapabilities = [\"push\"]\n[host.\"https://first\"]\n[host.\"https://second\"]\n";
    let root = root(&[
        (HUB, "server = \"https://registry-1.docker.io\"\n"),
        (port, other),
    ]);
    let asked = |registry| node(&root).asks_first(registry).unwrap();
    assert_eq!(asked("docker.io"), None);
    assert_eq!(asked("quay.io"), None);
    assert_eq!(
        asked("registry.example.com:5000").as_deref(),
        Some("https://first")
    );
    node(&root).install(&mirror(), &[], false).unwrap();
    for registry in ["docker.io", "quay.io", "registry.example.com:5000"] {
        assert_eq!(asked(registry).as_deref(), Some(URL), "{registry}");
    }
}

/// What Prometheus is told of the node at `address`.
async fn gauge(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a page");
    let head = "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("a page");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("a page");
    let mut lines = page.lines();
    let line = lines.find(|line| line.starts_with("entrepot_node_mirror_configured"));
    line.expect("the gauge").to_owned()
}

#[tokio::test(start_paused = true)]
async fn prometheus_is_told_whether_a_node_uses_the_mirror_for_as_long_as_it_runs() {
    let root = root(&[("etc/containerd/config.toml", VERSION_2)]);
    node(&root).install(&mirror(), &[], false).unwrap();
    let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let (found, mut told) = mpsc::unbounded_channel();
    let (end, ended) = oneshot::channel::<()>();
    let (node, mirror) = (node(&root), mirror());
    let tell = move |findings: &[Finding]| found.send(findings.to_vec()).unwrap();
    let listener = Listener { socket, tls: None };
    let watching = watch(&node, &mirror, listener, tell, async {
        drop(ended.await);
    });
    let looking = async {
        told.recv().await.unwrap();
        assert_eq!(
            gauge(address).await,
            format!("entrepot_node_mirror_configured{{mirror=\"{URL}\"}} 1")
        );
        fs::write(
            root.path().join("etc/containerd/config.toml"),
            "version = 2\n",
        )
        .unwrap();
        let findings = told.recv().await.unwrap();
        assert!(matches!(findings[1], Finding::Problem(_)), "{findings:?}");
        assert!(gauge(address).await.ends_with(" 0"));
        drop(end);
    };
    tokio::join!(watching, looking);
}
