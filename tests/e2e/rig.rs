//! The rig itself, with nothing of ours in between: what fails here is no fault of the mirror.

use crate::harness::digest;
use crate::harness::process::{command, run};
use crate::harness::registry::blob_bytes;
use crate::harness::upstream::Upstream;

#[test]
fn the_upstream_serves_every_image_to_skopeo_directly() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let catalogue = &upstream.catalogue;
    let names = [
        (&catalogue.multi.name, &catalogue.multi.digest),
        (&catalogue.oci.name, &catalogue.oci.image.digest),
        (&catalogue.docker.name, &catalogue.docker.image.digest),
        (&catalogue.large.name, &catalogue.large.image.digest),
        (&catalogue.official.name, &catalogue.official.image.digest),
        (&catalogue.statement.name, &catalogue.statement.digest),
    ];
    for (name, expected) in names {
        let manifest = run(command("skopeo")
            .args(["inspect", "--raw"])
            .arg(format!(
                "--cert-dir={}",
                upstream.certificates.directory.display()
            ))
            .arg(format!(
                "docker://127.0.0.1:{}/{name}",
                upstream.example().port()
            )));
        assert_eq!(&digest::of_bytes(manifest.as_bytes()), expected, "{name}");
    }

    let target = directory.path().join("large");
    run(command("skopeo")
        .args(["--insecure-policy", "copy", "--quiet"])
        .arg(format!(
            "--src-cert-dir={}",
            upstream.certificates.directory.display()
        ))
        .arg(format!(
            "docker://127.0.0.1:{}/{}",
            upstream.example().port(),
            catalogue.large.name
        ))
        .arg(format!("dir:{}", target.display())));
    let layer = catalogue.large.image.layers[0].clone();
    assert!(layer.size > 300 << 20);
    assert_eq!(
        digest::of_file(&target.join(digest::hex(&layer.digest))),
        layer.digest
    );

    let asked = upstream.stop();
    assert_eq!(blob_bytes(&asked.example, &layer.digest), layer.size);
    assert_eq!(asked.hub, []);
}
