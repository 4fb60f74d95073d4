//! Certificates that are replaced while clients pull.

use std::fs;

use futures_util::future::join_all;

use super::client::TlsClient;
use super::{files, listening, pair};
use crate::harness::client::{Pull, Request};
use crate::harness::content::{KIB, bytes};
use crate::harness::gate::Gate;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Authority, Body, Upstream};
use crate::harness::world::REGISTRY;

const HOST: &str = "mirror.test";

#[tokio::test]
async fn a_certificate_is_replaced_while_fifty_pulls_run_and_none_fails() {
    let authority = Authority::new();
    let upstream = Upstream::start().await;
    let content = bytes(1, 512 * KIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(100 * KIB, &gate);
    let digest = upstream.put_blob("team/app", body);
    let setup = Setup::new().upstream(REGISTRY, &upstream);
    let (old, new) = (authority.certify(&[HOST]), authority.certify(&[HOST]));
    let [certificate, key] = files(&setup, "own", &old);
    let mirror = listening(setup, &pair(&[certificate.clone(), key.clone()]));
    let mirror = mirror.start().await;
    let client = TlsClient::new(&authority);
    let target = format!("/v2/team/app/blobs/{digest}");

    let mut pulls = Vec::new();
    for _ in 0..50 {
        let agreed = client.connect(mirror.addresses[1], HOST).await;
        let agreed = agreed.expect("a handshake");
        assert_eq!(agreed.certificate, old.0.der().to_vec());
        let pull = agreed.connection.ask(&Request::get(&target)).await;
        pulls.push(pull.expect("a head"));
    }
    gate.reached().await;
    fs::write(&key, new.1.serialize_pem()).expect("written");
    fs::write(&certificate, new.0.pem()).expect("written");
    let late = client.connect(mirror.addresses[1], HOST).await;
    let late = late.expect("a handshake");
    assert_eq!(late.certificate, new.0.der().to_vec());
    gate.open();
    let late = late.connection.ask(&Request::get(&target)).await;
    pulls.push(late.expect("a head"));
    let answers = join_all(pulls.into_iter().map(Pull::finish_and_keep)).await;
    for (answer, connection) in answers {
        assert_eq!(answer.expect(200), content);
        // And the connection is good for more.
        let again = connection.ask(&Request::head(&target)).await;
        assert_eq!(again.expect("a head").status, 200);
    }
}
