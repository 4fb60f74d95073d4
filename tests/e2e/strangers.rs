//! Registries that anybody could set up: what they say that they have they have to send.

use std::fs;
use std::path::Path;

use crate::harness::catalogue::stored;
use crate::harness::certificates::STRANGER;
use crate::harness::digest;
use crate::harness::members::Members;
use crate::harness::mirror::Mirror;
use crate::harness::process::{command, run};
use crate::harness::registry::blob_bytes;
use crate::harness::tunnel::Tunnel;
use crate::harness::upstream::{EXAMPLE, Upstream};

/// Asks for a blob; gives `Cache-Status`, and the digest of what came.
fn fetch(mirror: &Mirror, directory: &Path, path: &str, namespace: &str) -> (String, String) {
    let (head, body) = (directory.join("head"), directory.join("body"));
    let url = format!("{}/v2/{path}?ns={namespace}", mirror.url());
    run(command("curl")
        .args(["--silent", "--show-error", "--fail", "--dump-header"])
        .arg(&head)
        .arg("--output")
        .arg(&body)
        .arg(url));
    let head = fs::read_to_string(head).unwrap().to_ascii_lowercase();
    let status = head
        .lines()
        .find_map(|line| line.strip_prefix("cache-status: "));
    (
        status.unwrap_or_default().to_owned(),
        digest::of_file(&body),
    )
}

#[test]
fn a_stranger_who_says_that_it_has_what_is_private_elsewhere_has_to_send_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let members = Members::start(&stored().storage);
    let tunnel = Tunnel::to(upstream.example().port());
    let file = directory.path().join("entrepot.yaml");
    let text = format!(
        "cache: {{ min_free: 0% }}\nupstreams:\n  {EXAMPLE}:\n    endpoints: [{:?}]\n    \
         credentials: {{ username: alice, password: canary-password }}\n",
        members.url()
    );
    fs::write(&file, text).unwrap();
    let environment = [
        format!(
            "SSL_CERT_FILE={}",
            upstream.certificates.authority.display()
        ),
        format!("HTTPS_PROXY={}", tunnel.url()),
    ];
    let flags = [format!("--config={}", file.display())];
    let mut mirror = Mirror::start_in(&environment, directory.path(), &flags);

    let layer = &upstream.catalogue.oci.image.layers[0].clone();
    let path = format!("team/app/blobs/{}", layer.digest);
    let (status, came) = fetch(&mirror, directory.path(), &path, EXAMPLE);
    assert_eq!(
        (&*status, &came),
        ("entrepot; fwd=miss; stored", &layer.digest)
    );
    mirror.wait_until_idle();
    let (status, _) = fetch(&mirror, directory.path(), &path, EXAMPLE);
    assert_eq!(status, "entrepot; hit");

    // The stranger says that it has it. That is true, as it happens, and shows only when it has sent it: every time.
    let name = upstream
        .catalogue
        .oci
        .name
        .split(':')
        .next()
        .unwrap()
        .to_owned();
    let path = format!("{name}/blobs/{}", layer.digest);
    for _ in 0..2 {
        let (status, came) = fetch(&mirror, directory.path(), &path, STRANGER);
        assert_eq!(
            (&*status, &came),
            ("entrepot; fwd=bypass; detail=not-believed", &layer.digest),
            "{}",
            mirror.log()
        );
    }
    let asked = upstream.stop().example;
    assert_eq!(
        blob_bytes(&asked, &layer.digest),
        2 * layer.size,
        "{asked:#?}"
    );
    let heads = asked.iter().filter(|asked| asked.method == "HEAD").count();
    assert_eq!(heads, 2, "{asked:#?}");
}
