//! A private image, and pods with and without the right secret.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::containerd::Containerd;
use crate::harness::catalogue::stored;
use crate::harness::members::{MEMBER, Members};
use crate::harness::mirror::Mirror;
use crate::harness::upstream::EXAMPLE;

/// How long a right is believed with the registry there, and then without it.
const AUTHZ_TTL: Duration = Duration::from_secs(1);
const AUTHZ_GRACE: Duration = Duration::from_secs(10);

/// Longest wait for a right to end.
const ENDS_WITHIN: Duration = Duration::from_mins(1);

fn mirror_before(members: &Members, directory: &Path) -> Mirror {
    let file = directory.join("entrepot.yaml");
    let text = format!(
        "cache: {{ min_free: 0% }}\nupstreams:\n  {EXAMPLE}:\n    endpoints: [{:?}]\n    authz_ttl: {}s\n    authz_grace: {}s\n",
        members.url(),
        AUTHZ_TTL.as_secs(),
        AUTHZ_GRACE.as_secs()
    );
    fs::write(&file, text).unwrap();
    let flags = [
        format!("--config={}", file.display()),
        "--log-level=trace".to_owned(),
    ];
    Mirror::start(directory, &flags)
}

#[test]
fn a_pod_without_the_secret_is_refused_although_the_image_is_cached() {
    let stored = stored();
    let image = &stored.catalogue.oci.image;
    let reference = format!("{EXAMPLE}/{}", stored.catalogue.oci.name);
    let directory = tempfile::tempdir().unwrap();
    let mut members = Members::start(&stored.storage);
    let mirror = mirror_before(&members, directory.path());

    let [with_secret, without, again, late] = std::array::from_fn(|_| Containerd::start(&mirror));
    let unproven = Instant::now();
    assert!(with_secret.pulls_as(MEMBER, &reference), "{}", mirror.log());
    with_secret.assert_holds(image);
    let proven = Instant::now();
    for user in ["bob:canary-password", "alice:wrong-canary"] {
        assert!(!without.pulls_as(user, &reference), "{user}");
    }

    members.stop();
    assert!(again.pulls_as(MEMBER, &reference), "{}", mirror.log());
    again.assert_holds(image);
    assert!(!without.pulls_as("bob:canary-password", &reference));
    // And that ends, too: the tag is asked for anew, although the image is in the store.
    while again.pulls_as(MEMBER, &reference) {
        assert!(proven.elapsed() < ENDS_WITHIN, "it goes on and on");
    }
    assert!(
        unproven.elapsed() >= AUTHZ_GRACE,
        "{:?}",
        unproven.elapsed()
    );
    assert!(!late.pulls_as(MEMBER, &reference), "the store decides");

    // Neither password nor token is in the log, whoever wrote it.
    assert!(!mirror.log().contains("canary"), "{}", mirror.log());
}
