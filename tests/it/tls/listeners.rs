//! What is said over TLS is what is said without.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::TlsClient;
use super::{files, listening, pair};
use crate::harness::client::{Ending, Request};
use crate::harness::clock;
use crate::harness::content::{MIB, bytes};
use crate::harness::gate::Gate;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Authority, Body, Upstream};
use crate::harness::world::REGISTRY;

const HOST: &str = "mirror.test";

async fn start(authority: &Authority, upstream: &Upstream) -> Mirror {
    let setup = Setup::new().upstream(REGISTRY, upstream);
    let own = files(&setup, "own", &authority.certify(&[HOST]));
    listening(setup, &pair(&own)).start().await
}

#[tokio::test]
async fn plain_and_encrypted_listeners_give_the_same_bytes() {
    let (authority, upstream) = (Authority::new(), Upstream::start().await);
    let content = bytes(1, 5 * MIB + 7);
    let digest = upstream.put_blob("team/app", content.clone());
    let mirror = start(&authority, &upstream).await;
    let client = TlsClient::new(&authority);
    let target = format!("/v2/team/app/blobs/{digest}");
    // Cold, from the file, and a part of it.
    for (range, expected) in [
        (None, &content[..]),
        (None, &content),
        (Some("bytes=4000000-"), &content[4_000_000..]),
    ] {
        let mut request = Request::get(&target);
        if let Some(range) = range {
            request = request.header("Range", range);
        }
        let answer = client.send(mirror.addresses[1], HOST, &request).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.ending, Ending::Complete);
        assert_eq!(answer.body, expected);
        mirror.wait_until_stored(&digest).await;
    }
    assert_eq!(mirror.get(&target).await.expect(200), content);
    assert_eq!(upstream.requests("GET", &target).len(), 1);
}

#[tokio::test]
async fn http_1_1_is_spoken_with_clients_that_offer_more() {
    let (authority, upstream) = (Authority::new(), Upstream::start().await);
    let mirror = start(&authority, &upstream).await;
    let client = TlsClient::new(&authority);
    let agreed = client.connect(mirror.addresses[1], HOST).await;
    let agreed = agreed.expect("a handshake");
    assert_eq!(agreed.protocol.as_deref(), Some(&b"http/1.1"[..]));
    // Two requests, one connection.
    let first = agreed.connection.ask(&Request::get("/v2/")).await;
    let (answer, connection) = first.expect("an answer").finish_and_keep().await;
    answer.expect(200);
    let second = connection.ask(&Request::get("/livez")).await;
    second.expect("an answer").finish().await.expect(200);
}

#[tokio::test]
async fn who_speaks_http_to_it_is_told_that_it_is_https() {
    let (authority, upstream) = (Authority::new(), Upstream::start().await);
    let mirror = start(&authority, &upstream).await;
    let answer = Request::get("/v2/").send(mirror.addresses[1]).await;
    assert_eq!(
        answer.expect(400),
        &b"this port speaks https, and not http"[..]
    );
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_ends_in_time() {
    let (authority, upstream) = (Authority::new(), Upstream::start().await);
    let mirror = start(&authority, &upstream).await;
    for first in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(mirror.addresses[1]).await.expect("up");
        stream.write_all(first).await.expect("sent");
        // It has come to wait for the rest once another one is through.
        let client = TlsClient::new(&authority);
        client.connect(mirror.addresses[1], HOST).await.expect("up");
        clock::pass(10).await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut rest));
        let ended = ended.await.expect("it ends");
        assert!(ended.is_err() || rest.is_empty(), "{rest:?}");
    }
}

#[tokio::test]
async fn a_body_that_fails_ends_short_over_tls_too() {
    let (authority, upstream) = (Authority::new(), Upstream::start().await);
    let content = bytes(1, 2 * MIB);
    let digest = upstream.put_blob("team/app", Body::new(content.clone()).wrong_byte_at(MIB));
    let mirror = start(&authority, &upstream).await;
    let target = format!("/v2/team/app/blobs/{digest}");
    let client = TlsClient::new(&authority);
    let answer = client
        .send(mirror.addresses[1], HOST, &Request::get(&target))
        .await;
    let answer = answer.expect("a head");
    assert_ne!(answer.ending, Ending::Complete);
    assert!(answer.body.len() < content.len());
}

#[tokio::test]
async fn a_drain_completes_what_is_under_way_over_tls() {
    let (authority, upstream) = (Authority::new(), Upstream::start().await);
    let content = bytes(1, 2 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(MIB, &gate);
    let digest = upstream.put_blob("team/app", body);
    let mut mirror = start(&authority, &upstream).await;
    let client = TlsClient::new(&authority);
    let idle = client.connect(mirror.addresses[1], HOST).await;
    let idle = idle.expect("a handshake");
    let request = Request::get(&format!("/v2/team/app/blobs/{digest}"));
    let pull = client.send(mirror.addresses[1], HOST, &request);
    let drain = async {
        gate.reached().await;
        mirror.begin_to_stop();
        // A connection at rest is closed, properly.
        assert!(idle.connection.read_to_end().await.is_empty());
        gate.open();
        mirror.ended().await;
    };
    let (answer, ()) = tokio::join!(pull, drain);
    assert_eq!(answer.expect("an answer").expect(200), content);
}
