//! What `entrepot hosts` makes of a configuration.

use entrepot::cli::hosts::{Client, Hosts, HostsError, Listener};
use entrepot::config::Config;

const MIRROR: &str = "http://10.0.0.1:30500";

fn hosts_of(yaml: &str, mirror: Option<&str>, registries: &[&str]) -> Result<Hosts, HostsError> {
    let config = Config::from_yaml(yaml).expect("a good configuration");
    let listeners: Vec<_> = config
        .listen
        .iter()
        .map(|listen| Listener {
            address: listen.address,
            is_encrypted: listen.tls.is_some(),
        })
        .collect();
    let registries: Vec<_> = registries.iter().map(|&name| name.to_owned()).collect();
    Hosts::of(
        &listeners,
        &config.ways,
        &config.upstream,
        mirror,
        &registries,
    )
}

/// The files of `client`, as one text with their paths.
fn printed(yaml: &str, mirror: Option<&str>, client: Client) -> String {
    let hosts = hosts_of(yaml, mirror, &[]).expect("hosts");
    let files = hosts.files(client).expect("files");
    let texts = files
        .iter()
        .map(|file| format!("{}:\n{}", file.path, file.text));
    texts.collect::<Vec<_>>().join("\n")
}

/// Where Docker is sent.
fn docker(yaml: &str, mirror: Option<&str>) -> Option<String> {
    let hosts = hosts_of(yaml, mirror, &[]).expect("hosts");
    let files = match hosts.files(Client::Docker) {
        Ok(files) => files,
        Err(HostsError::NoDockerHub) => return None,
        Err(other) => panic!("{other}"),
    };
    let keys: serde_json::Value = serde_json::from_str(&files[0].text).expect("JSON");
    let mirror = keys["registry-mirrors"][0].as_str();
    Some(mirror.expect("a mirror").to_owned())
}

#[test]
fn containerd_is_told_of_one_host_for_every_registry() {
    assert_eq!(
        printed("{}", Some(MIRROR), Client::Containerd),
        "/etc/containerd/certs.d/_default/hosts.toml:\n[host.\"http://10.0.0.1:30500\"]\n\
         capabilities = [\"pull\", \"resolve\"]\ndial_timeout = \"1s\"\n"
    );
}

#[test]
fn a_registry_that_is_not_at_its_name_has_a_folder_of_its_own() {
    let yaml = "upstreams:\n  registry.corp:5000: { endpoints: [\"http://10.0.0.7:5000\"] }\n  \
                docker.io: { endpoints: [\"https://registry-1.docker.io\"] }\n";
    let text = printed(yaml, Some(MIRROR), Client::Containerd);
    assert!(
        text.contains(
            "certs.d/registry.corp_5000_/hosts.toml:\nserver = \"http://10.0.0.7:5000\"\n"
        ),
        "{text}"
    );
    assert!(!text.contains("docker.io"), "{text}");
    let text = printed(yaml, Some(MIRROR), Client::K3s);
    assert!(
        text.contains("  \"registry.corp:5000\":\n    endpoint:\n      - \"http://10.0.0.1:30500\"\n      - \"http://10.0.0.7:5000\"\n"),
        "{text}"
    );
}

#[test]
fn a_registry_that_is_asked_for_has_a_folder_of_its_own() {
    let hosts = hosts_of("{}", Some(MIRROR), &["index.docker.io"]).expect("hosts");
    let files = hosts.files(Client::Containerd).expect("files");
    assert_eq!(
        files[1].path,
        "/etc/containerd/certs.d/docker.io/hosts.toml"
    );
    assert!(
        files[1]
            .text
            .starts_with("server = \"https://registry-1.docker.io\"\n")
    );
    let refused = hosts_of("{}", Some(MIRROR), &["a/b"]);
    assert!(matches!(refused, Err(HostsError::Registry { .. })));
}

#[test]
fn without_a_url_the_mirror_is_where_it_listens() {
    for (yaml, url) in [
        ("{}", "http://127.0.0.1:3000"),
        (
            "listen: [{ address: \"[::]:8080\" }]",
            "http://127.0.0.1:8080",
        ),
        (
            "listen: [{ address: \"10.0.0.3:80\" }]",
            "http://10.0.0.3:80",
        ),
        ("domain: mirror.example", "http://mirror.example:3000"),
    ] {
        let text = printed(yaml, None, Client::Containerd);
        assert!(text.contains(&format!("[host.\"{url}\"]")), "{text}");
    }
    let refused = hosts_of("{}", Some("10.0.0.1:5000"), &[]);
    assert!(matches!(refused, Err(HostsError::Mirror(_))));
}

#[test]
fn docker_is_sent_to_what_stands_for_docker_hub() {
    let listeners =
        "listen: [{ address: \"[::]:3000\" }, { address: \"[::]:5001\", upstream: docker.io }]\n";
    let domain = Some("http://mirror.example:3000");
    for (yaml, mirror, expected) in [
        ("{}", Some(MIRROR), Some(MIRROR)),
        ("default_upstream: quay.io", Some(MIRROR), None),
        (
            "default_upstream: [quay.io, docker.io]",
            Some(MIRROR),
            Some(MIRROR),
        ),
        (
            &format!("{listeners}default_upstream: quay.io"),
            Some(MIRROR),
            Some("http://10.0.0.1:5001"),
        ),
        (
            "domain: mirror.example",
            domain,
            Some("http://docker.io.mirror.example:3000"),
        ),
        ("domain: mirror.example", Some(MIRROR), Some(MIRROR)),
        (
            "hosts: { hub.example: docker.io }",
            domain,
            Some("http://hub.example:3000"),
        ),
        (
            "hosts: { hub.example: docker.io }",
            Some("https://hub.example"),
            Some("https://hub.example"),
        ),
        ("hosts: { quay.example: quay.io }", domain, None),
    ] {
        assert_eq!(docker(yaml, mirror).as_deref(), expected, "{yaml}");
    }
}

#[test]
fn clients_without_a_name_for_all_are_told_of_every_registry_that_is_served() {
    let known = ["docker.io", "ghcr.io", "quay.io", "registry.k8s.io"];
    for client in [Client::Podman, Client::Buildkit] {
        let text = printed("{}", Some(MIRROR), client);
        for name in known {
            assert!(text.contains(&format!("\"{name}\"")), "{text}");
        }
        assert!(!text.contains('*'), "{text}");
    }
    let yaml = "unknown_namespaces: deny\nupstreams: { corp.example: { endpoints: [\"http://corp.example\"] } }\n";
    let text = printed(yaml, Some(MIRROR), Client::Podman);
    assert!(
        text.contains("prefix = \"corp.example\"\nlocation = \"corp.example\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"10.0.0.1:30500/corp.example\"\ninsecure = true\n"),
        "{text}"
    );
    assert!(!text.contains("ghcr.io"), "{text}");
}

#[test]
fn a_mirror_with_tls_is_not_called_insecure() {
    let mirror = Some("https://mirror.example");
    for client in [Client::Docker, Client::Podman, Client::Buildkit] {
        let text = printed("{}", mirror, client);
        assert!(!text.contains("insecure"), "{text}");
        assert!(!text.contains("http = true"), "{text}");
        let notes = hosts_of("{}", mirror, &[]).expect("hosts").notes(client);
        assert!(
            notes[0].contains("authority") || notes[0].contains("ca"),
            "{notes:?}"
        );
    }
}
