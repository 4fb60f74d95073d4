//! skopeo, which copies manifests and blobs as they are and needs no privileges.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::digest;
use crate::harness::images::Image;
use crate::harness::process::{command, run};
use crate::harness::upstream::{EXAMPLE, Upstream};

/// Copies `name` into the directory `target`: manifests and blobs as they came.
pub(crate) fn copy(name: &str, target: &Path) {
    run(&mut copying(name, target));
}

/// The command that copies, for when it is to fail.
pub(crate) fn copying(name: &str, target: &Path) -> Command {
    let mut command = command("skopeo");
    command
        .args([
            "--insecure-policy",
            "copy",
            "--all",
            "--preserve-digests",
            "--quiet",
        ])
        .arg("--src-tls-verify=false")
        .arg(format!("docker://{name}"))
        .arg(format!("dir:{}", target.display()));
    command
}

/// `directory` holds `image`, and every byte is right.
pub(crate) fn assert_image(directory: &Path, image: &Image) {
    assert_manifest(directory, &image.digest);
    assert_blobs(directory, image);
}

fn assert_manifest(directory: &Path, digest: &str) {
    assert_eq!(digest::of_file(&directory.join("manifest.json")), digest);
}

fn assert_blobs(directory: &Path, image: &Image) {
    for (digest, _) in image.blobs() {
        assert_eq!(
            digest::of_file(&directory.join(digest::hex(digest))),
            digest
        );
    }
}

#[test]
fn images_and_artifacts_come_by_path_cold_and_with_the_upstream_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let catalogue = upstream.catalogue.clone();
    let pull = || {
        let store = tempfile::tempdir_in(directory.path()).unwrap();
        let copied = |name: &str| {
            let target = store.path().join(name.replace(['/', ':', '@'], "-"));
            copy(&format!("{}/{name}", mirror.host()), &target);
            target
        };

        let multi = copied(&format!("{EXAMPLE}/{}", catalogue.multi.name));
        assert_manifest(&multi, &catalogue.multi.digest);
        for image in &catalogue.multi.images {
            let member = multi.join(format!("{}.manifest.json", digest::hex(&image.digest)));
            assert_eq!(digest::of_file(&member), image.digest);
            assert_blobs(&multi, image);
        }
        for tagged in [&catalogue.oci, &catalogue.docker, &catalogue.large] {
            let single = copied(&format!("{EXAMPLE}/{}", tagged.name));
            assert_image(&single, &tagged.image);
        }
        let official = copied("docker.io/official:1.0");
        assert_image(&official, &catalogue.official.image);

        let statement = copied(&format!("{EXAMPLE}/{}", catalogue.statement.name));
        assert_manifest(&statement, &catalogue.statement.digest);
        let text = fs::read_to_string(statement.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(manifest["subject"]["digest"], catalogue.statement.subject);
    };
    pull();
    upstream.stop();
    pull();
}

#[test]
fn an_image_is_inspected_by_tag_and_by_digest() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let multi = &upstream.catalogue.multi;
    for reference in [format!(":{}", "1.0"), format!("@{}", multi.digest)] {
        let manifest = run(command("skopeo")
            .args(["inspect", "--raw", "--tls-verify=false"])
            .arg(format!(
                "docker://{}/{EXAMPLE}/team/multi{reference}",
                mirror.host()
            )));
        assert_eq!(
            digest::of_bytes(manifest.as_bytes()),
            multi.digest,
            "{reference}"
        );
    }
}

#[test]
fn tags_are_listed_by_path_cold_and_with_the_upstream_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let mirror = upstream.mirror(directory.path());
    let oci = upstream.catalogue.oci.name.clone();
    let (name, tag) = oci.split_once(':').unwrap();
    let repository = format!("docker://{}/{EXAMPLE}/{name}", mirror.host());
    let list = || {
        let printed = run(command("skopeo")
            .args(["list-tags", "--tls-verify=false"])
            .arg(&repository));
        let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let tags = printed["Tags"].as_array().unwrap();
        assert!(tags.contains(&tag.into()), "{printed}");
    };
    list();
    upstream.stop();
    list();
}
