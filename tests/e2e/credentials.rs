//! A registry that asks for a name and a password, and a mirror that has them.

use std::fs;
use std::path::Path;

use crate::harness::mirror::Mirror;
use crate::harness::process::outcome;
use crate::harness::registry::Audience;
use crate::harness::secrets;
use crate::harness::upstream::{EXAMPLE, Upstream};
use crate::skopeo;

/// `reader` with the password `correct-horse`, hashed by bcrypt as `htpasswd -B -C 4` does it.
const MEMBERS: &str = "reader:$2b$04$bbfri6kTSXLUqqHZbuM0V.rDXRCt67rirZioxG5TXU1FDi7h3bazy\n";

fn members_only(directory: &Path) -> Upstream {
    let members = directory.join("members");
    fs::write(&members, MEMBERS).unwrap();
    Upstream::start_for(directory, &Audience::Members(members))
}

/// A mirror whose credentials file has `password` for `EXAMPLE`.
fn mirror_with(password: &str, upstream: &Upstream, directory: &Path) -> Mirror {
    let credentials = directory.join("credentials.yaml");
    secrets::plant(password);
    let text = format!("{EXAMPLE}:\n  username: reader\n  password: {password}\n");
    fs::write(&credentials, text).unwrap();
    let mut flags = upstream.flags();
    flags.push(format!("--creds-file={}", credentials.display()));
    Mirror::start(directory, &flags)
}

#[test]
fn a_private_image_comes_with_the_mirrors_own_credentials() {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = members_only(directory.path());
    let mirror = mirror_with("correct-horse", &upstream, directory.path());
    let tagged = upstream.catalogue.docker.clone();
    let pull = || {
        let target = tempfile::tempdir_in(directory.path()).unwrap();
        skopeo::copy(
            &format!("{}/{EXAMPLE}/{}", mirror.host(), tagged.name),
            target.path(),
        );
        skopeo::assert_image(target.path(), &tagged.image);
    };
    pull();
    upstream.stop();
    pull();
}

#[test]
fn wrong_credentials_are_the_clients_to_see_and_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = members_only(directory.path());
    let mirror = mirror_with("wrong-horse", &upstream, directory.path());
    let name = format!(
        "{}/{EXAMPLE}/{}",
        mirror.host(),
        upstream.catalogue.docker.name
    );
    let target = directory.path().join("target");
    let output = outcome(&mut skopeo::copying(&name, &target));
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains("unauthorized") || message.contains("denied"),
        "{message}"
    );
    assert!(!mirror.log().contains("wrong-horse"));
    assert_eq!(mirror.stored_blobs(), Vec::<String>::new());
}
