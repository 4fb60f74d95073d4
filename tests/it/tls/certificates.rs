//! Which certificate a client is shown, and what becomes of one that is of no use.

use std::fs;

use super::client::TlsClient;
use super::{files, listening, pair};
use crate::harness::client::Request;
use crate::harness::mirror::Setup;
use crate::harness::upstream::Authority;

#[tokio::test]
async fn each_name_has_its_own_certificate() {
    let authority = Authority::new();
    let setup = Setup::new();
    let first = authority.certify(&["mirror.test", "127.0.0.1"]);
    let second = authority.certify(&["docker.mirror.test", "*.wild.test"]);
    let pairs = [files(&setup, "a", &first), files(&setup, "b", &second)];
    let keys = format!(
        "{}, certificates: [{{ {} }}]",
        pair(&pairs[0]),
        pair(&pairs[1])
    );
    let mirror = listening(setup, &keys).start().await;
    let client = TlsClient::new(&authority);
    for (name, (certificate, _)) in [
        ("mirror.test", &first),
        // An address is no name that could be asked for, so the first is shown.
        ("127.0.0.1", &first),
        ("docker.mirror.test", &second),
        ("ghcr.wild.test", &second),
    ] {
        let agreed = client.connect(mirror.addresses[1], name).await.expect(name);
        assert_eq!(agreed.certificate, certificate.der().to_vec(), "{name}");
    }
    let stranger = client.connect(mirror.addresses[1], "other.test").await;
    assert!(stranger.is_none(), "nobody vouches for that name");
}

#[tokio::test]
async fn a_pair_that_does_not_fit_leaves_the_old_one_in_place() {
    let authority = Authority::new();
    let setup = Setup::new();
    let old = authority.certify(&["mirror.test"]);
    let new = authority.certify(&["mirror.test"]);
    let [certificate, key] = files(&setup, "own", &old);
    let mirror = listening(setup, &pair(&[certificate.clone(), key.clone()]));
    let mirror = mirror.start().await;
    let client = TlsClient::new(&authority);
    let shown = async || {
        let agreed = client.connect(mirror.addresses[1], "mirror.test").await;
        agreed.expect("a handshake").certificate
    };
    assert_eq!(shown().await, old.0.der().to_vec());
    // Between the two steps of whoever replaces them one by one.
    fs::write(&certificate, new.0.pem()).expect("written");
    assert_eq!(shown().await, old.0.der().to_vec());
    fs::write(&key, "not a key").expect("written");
    assert_eq!(shown().await, old.0.der().to_vec());
    fs::remove_file(&key).expect("removed");
    assert_eq!(shown().await, old.0.der().to_vec());
    fs::write(&key, new.1.serialize_pem()).expect("written");
    assert_eq!(shown().await, new.0.der().to_vec());
}

#[tokio::test]
async fn certificates_are_replaced_as_kubernetes_replaces_them() {
    let authority = Authority::new();
    let setup = Setup::new();
    let (old, new) = (
        authority.certify(&["mirror.test"]),
        authority.certify(&["mirror.test"]),
    );
    // A mounted secret: links to `..data`, which is a link that moves.
    let base = setup.file("unused", "").with_file_name("secret");
    for (version, (certificate, key)) in [("v1", &old), ("v2", &new)] {
        let folder = base.join(version);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("tls.crt"), certificate.pem()).expect("written");
        fs::write(folder.join("tls.key"), key.serialize_pem()).expect("written");
    }
    let link = |to: &str| {
        let (new, data) = (base.join("..new"), base.join("..data"));
        std::os::unix::fs::symlink(to, &new).expect("a link");
        fs::rename(new, data).expect("it takes the place of the other");
    };
    link("v1");
    let paths = ["tls.crt", "tls.key"].map(|name| {
        let path = base.join(name);
        std::os::unix::fs::symlink(format!("..data/{name}"), &path).expect("a link");
        path
    });
    let mirror = listening(setup, &pair(&paths)).start().await;
    let client = TlsClient::new(&authority);
    for (certificate, _) in [&old, &new] {
        let agreed = client.connect(mirror.addresses[1], "mirror.test").await;
        let agreed = agreed.expect("a handshake");
        assert_eq!(agreed.certificate, certificate.der().to_vec());
        let answer = agreed.connection.ask(&Request::get("/v2/")).await;
        answer.expect("an answer").finish().await.expect(200);
        link("v2");
    }
}

#[test]
fn what_is_of_no_use_stops_the_start() {
    let authority = Authority::new();
    let setup = Setup::new();
    let own = files(&setup, "own", &authority.certify(&["a.test"]));
    let other = files(&setup, "other", &authority.certify(&["b.test"]));
    let empty = setup.file("empty", "");
    let mixed = [own[0].clone(), other[1].clone()];
    let no_ca = format!("{}, client_ca: {empty:?}", pair(&own));
    let no_file = format!("{}, client_ca: /nonexistent/ca.pem", pair(&own));
    for (keys, expected) in [
        (pair(&mixed), "is not the key of the certificate"),
        (
            pair(&[empty.clone(), own[1].clone()]),
            "holds no certificate",
        ),
        (pair(&[own[0].clone(), empty.clone()]), "holds no key"),
        (format!("certificate: {:?}", own[0]), "has no key"),
        (format!("key: {:?}", own[1]), "has no certificate"),
        (String::new(), "has no certificate"),
        (no_ca, "holds no certificate"),
        (no_file, "cannot be read"),
        (
            format!("{}, client_certificate: required", pair(&own)),
            "there is no client_ca",
        ),
    ] {
        let problems = listening(setup.clone(), &keys).check();
        let problems = problems.expect_err(&keys);
        assert!(problems.contains(expected), "{problems}");
        assert!(!problems.contains("PRIVATE KEY-----\n"), "{problems}");
    }
}
