//! Two registries, one blob: callers of both share a fill, and the trouble of one registry is not the other's.

use std::pin::pin;

use crate::harness::client::Request;
use crate::harness::content::{MIB, bytes};
use crate::harness::gate::Gate;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Body, End, Upstream};

fn target(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

/// Two registries, of which the first is asked first, and only the second has the blob whole. Whoever asks the second
/// gets it, for the price of one body.
async fn second_registry_helps(first_has: impl FnOnce(&Upstream, &str, &Gate)) {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let content = bytes(1, 2 * MIB);
    let digest = second.put_blob("team/app", content.clone());
    let gate = Gate::closed();
    first_has(&first, &digest, &gate);
    let setup = Setup::new().upstream("first.example", &first);
    let mirror = setup.upstream("second.example", &second).start().await;
    let path = target(&digest);
    let asks_first = format!("{path}?ns=first.example");
    let asks_second = format!("{path}?ns=second.example");
    let leader = mirror.get(&asks_first);
    let follower = async {
        gate.reached().await;
        let mut pull = pin!(Request::get(&asks_second).open(mirror.address));
        // It has joined when it has its head, or waits for one as the leader does.
        let pull = loop {
            tokio::select! {
                pull = &mut pull => break pull,
                metrics = mirror.metrics() => if metrics.contains("\nentrepot_fill_waiters 2\n") {
                    gate.open();
                    break pull.await;
                }
            }
        };
        gate.open();
        pull.finish().await
    };
    let (_, answer) = tokio::join!(leader, follower);
    assert_eq!(answer.expect(200), content);
    let sent = first.body_bytes("*") + second.body_bytes("*");
    assert!(sent <= content.len() as u64 * 101 / 100, "{sent}");
}

#[tokio::test]
async fn a_source_that_fails_harms_no_caller_who_brings_another() {
    for status in [401, 403, 404, 500] {
        second_registry_helps(|first, digest, gate| {
            first.answer(&target(digest), Answer::status(status).after(gate));
        })
        .await;
    }
}

#[tokio::test]
async fn another_source_goes_on_in_the_middle_of_a_blob() {
    second_registry_helps(|first, digest, gate| {
        let body = Body::new(bytes(1, 2 * MIB)).stall_at(MIB, gate);
        first.put_blob_as("team/app", digest, body.cut_at(MIB, End::Fin, 1));
        first.rule(|request| request.header("Range").map(|_| Answer::status(500)));
    })
    .await;
}

#[tokio::test]
async fn what_is_no_blob_at_one_registry_is_not_given_to_callers_of_another() {
    let page = Answer::ok("text/html", "<html>Please log in.</html>");
    second_registry_helps(|first, digest, gate| {
        first.answer(&target(digest), page.after(gate));
    })
    .await;
}

#[tokio::test]
async fn wrong_bytes_of_one_registry_are_not_given_to_callers_of_another() {
    second_registry_helps(|first, digest, gate| {
        let body = Body::new(bytes(2, 100)).after(gate);
        first.put_blob_as("team/app", digest, body);
    })
    .await;
}
