//! The commands that look after a cache, beside a mirror that runs on it.

use std::fs::{self, FileTimes};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use crate::harness::digest;
use crate::harness::mirror::{Mirror, entrepot};
use crate::harness::process::{command, outcome, run};
use crate::harness::registry::Registry;
use crate::harness::upstream::{EXAMPLE, HUB, Upstream};
use crate::skopeo;

/// `entrepot COMMAND…` on the cache of `mirror`.
fn on(mirror: &Mirror, arguments: &[&str]) -> Output {
    outcome(
        entrepot()
            .env("ENTREPOT_CONFIG_YAML", "cache: { min_free: 0% }")
            .args(arguments)
            .arg("--cache-dir")
            .arg(mirror.cache()),
    )
}

#[track_caller]
fn assert_code(output: &Output, code: i32, said: &[&str]) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    for said in said {
        assert!(text.contains(said), "no {said:?} in: {text}");
    }
    text
}

fn pull(mirror: &Mirror, directory: &Path, name: &str) -> tempfile::TempDir {
    let target = tempfile::tempdir_in(directory).unwrap();
    skopeo::copy(
        &format!("{}/{EXAMPLE}/{name}", mirror.host()),
        target.path(),
    );
    target
}

/// Where the cache of `mirror` has a blob.
fn path_of(mirror: &Mirror, digest: &str) -> std::path::PathBuf {
    let hex = digest::hex(digest);
    let place = format!("v1/blobs/sha256/{}/{hex}", &hex[..2]);
    mirror.cache().join(place)
}

/// Flips a bit as a disk does: nothing else shows it.
fn flip_a_bit(path: &Path) {
    let before = fs::metadata(path).unwrap();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 100).unwrap();
    let times = FileTimes::new()
        .set_accessed(before.accessed().unwrap())
        .set_modified(before.modified().unwrap());
    file.set_times(times).unwrap();
}

#[test]
fn a_scrub_beside_a_mirror_finds_what_the_disk_changed_and_the_mirror_fetches_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let mut mirror = upstream.mirror(directory.path());
    let image = upstream.catalogue.official.image.clone();
    let layer = &image.layers[0];
    let fetch = |mirror: &Mirror| mirror.fetch(directory.path(), "library/official", layer);
    assert_eq!(fetch(&mirror).as_ref(), Some(&layer.digest));
    mirror.wait_until_idle();
    let scrubbed = on(&mirror, &["scrub", "--rate", "1GiB"]);
    assert_code(&scrubbed, 0, &["100 %", "1 blobs right, 0 wrong"]);

    flip_a_bit(&path_of(&mirror, &layer.digest));
    let scrubbed = on(&mirror, &["scrub"]);
    let hex = digest::hex(&layer.digest);
    assert_code(&scrubbed, 1, &["0 blobs right, 1 wrong", hex]);
    assert!(!path_of(&mirror, &layer.digest).exists());
    let quarantine = fs::read_dir(mirror.cache().join("v1/quarantine")).unwrap();
    assert_eq!(quarantine.count(), 1);
    assert_eq!(fetch(&mirror).as_ref(), Some(&layer.digest));
    mirror.wait_until_idle();
    assert_eq!(mirror.stored_blobs(), [&*layer.digest]);
    assert_code(&on(&mirror, &["scrub"]), 0, &["1 blobs right"]);
    upstream.stop();
    assert_eq!(fetch(&mirror).as_ref(), Some(&layer.digest));
}

#[test]
fn usage_counts_what_is_shared_once_and_prune_leaves_what_others_have() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(directory.path());
    let mut mirror = upstream.mirror(directory.path());
    let catalogue = upstream.catalogue.clone();
    for tagged in [&catalogue.oci, &catalogue.docker] {
        pull(&mirror, directory.path(), &tagged.name);
    }
    mirror.wait_until_idle();
    let official = format!("{}/{HUB}/library/official:1.0", mirror.host());
    let target = tempfile::tempdir_in(directory.path()).unwrap();
    skopeo::copy(&official, target.path());
    // Records are written behind the answers.
    mirror.wait_until(|mirror| {
        let usage = on(mirror, &["usage"]);
        !String::from_utf8_lossy(&usage.stdout).contains("no repository")
    });
    assert_code(
        &on(&mirror, &["usage"]),
        0,
        &[
            "registry.example.test/team/oci",
            "registry.example.test/team/docker",
            "docker.io/library/official",
            "(all, each blob once)",
        ],
    );

    // Bad input is told, and nothing goes.
    let stored = mirror.stored_blobs().len();
    for (arguments, code, word) in [
        (&["prune"][..], 1, "--unused-for"),
        (&["prune", "--to", "5"], 64, "--to"),
        (&["prune", "--namespace", "a/b"], 64, "--namespace"),
        (&["prune", "--repository", "Team"], 64, "--repository"),
        (&["prune", "--unused-for", "soon"], 64, "--unused-for"),
        (&["usage", "extra"], 64, "extra"),
    ] {
        assert_code(&on(&mirror, arguments), code, &[word]);
    }
    let dry = on(&mirror, &["prune", "--repository", "team/*", "--dry-run"]);
    assert_code(&dry, 0, &["would remove"]);
    assert_eq!(mirror.stored_blobs().len(), stored);

    // What the other repository has, too, stays.
    let own = |image: &crate::harness::images::Image, other: &crate::harness::images::Image| {
        let others: Vec<_> = other.blobs().map(|(digest, _)| digest).collect();
        let own = image.blobs().map(|(digest, _)| digest);
        own.filter(|digest| !others.contains(digest))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let gone = own(&catalogue.oci.image, &catalogue.docker.image);
    let pruned = on(&mirror, &["prune", "--repository", "team/oci"]);
    assert_code(&pruned, 0, &["removed"]);
    let left = mirror.stored_blobs();
    assert!(gone.iter().all(|digest| !left.contains(digest)));
    for (digest, _) in catalogue.docker.image.blobs() {
        assert!(left.iter().any(|stored| stored == digest));
    }
    // The mirror, which was told nothing, fetches what has gone.
    let again = pull(&mirror, directory.path(), &catalogue.oci.name);
    skopeo::assert_image(again.path(), &catalogue.oci.image);

    // By age: what was used long ago.
    mirror.wait_until_idle();
    let old = path_of(&mirror, &catalogue.docker.image.layers[0].digest);
    // Looking at them counts as using them, so it comes first.
    let n_stored = mirror.stored_blobs().len();
    let file = fs::File::open(&old).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    file.set_times(FileTimes::new().set_accessed(then)).unwrap();
    let pruned = on(&mirror, &["prune", "--unused-for", "365d"]);
    assert_code(&pruned, 0, &["removed 1 blobs"]);
    assert!(!old.exists());
    assert_eq!(mirror.stored_blobs().len(), n_stored - 1);
    let pruned = on(&mirror, &["prune", "--to", "0B"]);
    assert_code(&pruned, 0, &["0 blobs, 0 B are left"]);
    assert_eq!(mirror.stored_blobs(), Vec::<String>::new());
}

#[test]
fn a_directory_without_a_cache_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    for arguments in [&["scrub"][..], &["usage"], &["prune", "--to", "1GiB"]] {
        let mut command = entrepot();
        command.args(arguments).arg("-d").arg(&missing);
        assert_code(&outcome(&mut command), 1, &["no cache", "missing"]);
    }
    assert!(!missing.exists());
}

/// `entrepot import` into the cache of `mirror`.
fn import(mirror: &Mirror, source: &Path, more: &[&str]) -> Output {
    let source = source.to_str().unwrap();
    on(mirror, &[&["import", source], more].concat())
}

#[test]
fn the_cache_of_a_registry_in_proxy_mode_is_imported_and_pulls_with_the_upstream_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let catalogue = upstream.catalogue.clone();
    let storage = directory.path().join("proxy");
    let mut proxy = Registry::start_as_mirror(
        "proxy",
        directory.path(),
        &storage,
        &upstream.certificates,
        &upstream.example().url(),
    );
    for name in [&catalogue.oci.name, &catalogue.multi.name] {
        let target = tempfile::tempdir_in(directory.path()).unwrap();
        skopeo::copy(&format!("127.0.0.1:{}/{name}", proxy.port()), target.path());
    }
    proxy.stop();
    let mut mirror = upstream.mirror(directory.path());
    let asked = upstream.stop();
    assert!(!asked.example.is_empty(), "the other mirror asked");

    assert_code(&import(&mirror, &storage, &[]), 1, &["--namespace"]);
    let imported = import(&mirror, &storage, &["--namespace", EXAMPLE]);
    assert_code(&imported, 0, &["imported", "2 tags", "0 were wrong"]);
    let pulled = pull(&mirror, directory.path(), &catalogue.oci.name);
    skopeo::assert_image(pulled.path(), &catalogue.oci.image);
    let multi = pull(&mirror, directory.path(), &catalogue.multi.name);
    assert_eq!(
        digest::of_file(&multi.path().join("manifest.json")),
        catalogue.multi.digest
    );
    mirror.wait_until_idle();
    let stored = mirror.stored_blobs();
    assert!(stored.contains(&catalogue.oci.image.digest));
    let again = import(&mirror, &storage, &["--namespace", EXAMPLE]);
    assert_code(&again, 0, &["imported 0 manifests, 0 blobs and 0 tags"]);
}

#[test]
fn layouts_and_saved_images_are_imported_and_what_is_wrong_in_them_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let image = upstream.catalogue.official.image.clone();
    let oci = upstream.catalogue.oci.clone();
    let copy = |name: &str, target: &str| {
        let mut command: Command = command("skopeo");
        command
            .args(["--insecure-policy", "copy", "--quiet"])
            .arg(format!(
                "--src-cert-dir={}",
                upstream.certificates.directory.display()
            ))
            .arg(format!(
                "docker://127.0.0.1:{}/{name}",
                upstream.example().port()
            ))
            .arg(target);
        run(&mut command);
    };
    let at = |name: &str| directory.path().join(name);
    copy(&oci.name, &format!("oci:{}:9.9", at("layout").display()));
    copy(
        &oci.name,
        &format!("oci-archive:{}:8.8", at("layout.tar").display()),
    );
    copy(
        "library/official:1.0",
        &format!("docker-archive:{}:official:7.7", at("saved.tar").display()),
    );
    let mirror = upstream.mirror(directory.path());
    upstream.stop();
    let place = ["--namespace", EXAMPLE, "--repository", "team/oci"];
    assert_code(
        &import(&mirror, &at("layout"), &place[..2]),
        1,
        &["--repository"],
    );
    assert_code(&import(&mirror, &at("layout"), &place), 0, &["1 tags"]);
    assert_code(&import(&mirror, &at("layout.tar"), &place), 0, &["1 tags"]);
    assert_code(&import(&mirror, &at("saved.tar"), &[]), 0, &["1 tags"]);
    for tag in ["9.9", "8.8"] {
        let pulled = pull(&mirror, directory.path(), &format!("team/oci:{tag}"));
        skopeo::assert_image(pulled.path(), &oci.image);
    }
    let target = tempfile::tempdir_in(directory.path()).unwrap();
    let saved = format!("{}/{HUB}/library/official:7.7", mirror.host());
    skopeo::copy(&saved, target.path());
    let config = target.path().join(digest::hex(&image.config));
    assert_eq!(digest::of_file(&config), image.config);

    // A layer with other bytes than it is called is left out, and nothing else.
    mirror.empty_cache();
    let hex = digest::hex(&oci.image.layers[0].digest);
    let layer = at("layout").join("blobs/sha256").join(hex);
    flip_a_bit(&layer);
    assert_code(
        &import(&mirror, &at("layout"), &place),
        1,
        &["1 were wrong", hex],
    );
    assert!(!mirror.stored_blobs().contains(&oci.image.layers[0].digest));
    fs::write(at("nothing"), b"x").unwrap();
    assert_code(&import(&mirror, &at("nothing"), &place), 1, &["nothing"]);
}
