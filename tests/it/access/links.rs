//! Links: what one repository's credential brought in is not another's to read, and what was taken back is gone.

use std::fs;

use super::members::{Content, HERE, Kind, Members, OPEN, THERE};
use crate::harness::client::Request;
use crate::harness::clock;
use crate::harness::content::sha256;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Answer, Upstream};
use crate::harness::world::REGISTRY;

const ROBOT_HERE: &str = "registry.example/team/app: { username: robot, password: pw-robot }\n";

/// A registry with two repositories of the same content, and a mirror with a credential for one.
async fn with_a_credential_for_one() -> (Upstream, Members, Content, Mirror) {
    let registry = Upstream::start().await;
    let members = Members::default();
    members.admit("robot", HERE);
    members.stand(&registry);
    let content = Content::put(&registry);
    let setup = Setup::new().upstream(REGISTRY, &registry);
    let mirror = setup.credentials(ROBOT_HERE).start().await;
    for kind in [
        Kind::Get,
        Kind::Child,
        Kind::Tag,
        Kind::Tags,
        Kind::Referrers,
    ] {
        mirror.send(content.request(kind, HERE)).await.expect(200);
    }
    mirror.wait_until_stored(&content.digest()).await;
    registry.forget();
    (registry, members, content, mirror)
}

#[tokio::test]
async fn c26_c27_a_repository_without_a_right_does_not_give_what_another_brought_in() {
    let (registry, _members, content, mirror) = with_a_credential_for_one().await;
    for kind in Kind::ALL {
        registry.forget();
        let answer = mirror.send(content.request(kind, THERE)).await;
        assert_eq!(answer.status, 401, "{kind:?}: {answer:?}");
        assert!(!registry.log().is_empty(), "{kind:?}: upstream decides");
        let answer = mirror.send(content.request(kind, HERE)).await;
        assert_eq!(answer.status, content.expected(kind).0, "{kind:?}");
    }
    // Trouble is no proof.
    registry.behave();
    registry.answer("/v2/team/other/*", Answer::status(500));
    for kind in Kind::ALL {
        let answer = mirror.send(content.request(kind, THERE)).await;
        assert_eq!(answer.status, 502, "{kind:?}: {answer:?}");
    }
}

#[tokio::test]
async fn what_anybody_may_read_elsewhere_is_confirmed_and_not_fetched_again() {
    let (registry, _members, content, mirror) = with_a_credential_for_one().await;
    for kind in [Kind::Head, Kind::Get, Kind::Range] {
        let answer = mirror.send(content.request(kind, OPEN)).await;
        let (status, body) = content.expected(kind);
        assert!(
            body.is_none_or(|body| answer.expect(status) == body),
            "{kind:?}"
        );
    }
    assert_eq!(registry.requests("HEAD", "*").len(), 1);
    assert_eq!(registry.requests("GET", "/v2/*").len(), 0);
}

#[tokio::test]
async fn a_registry_that_refuses_head_is_asked_for_one_byte() {
    let (registry, _members, content, mirror) = with_a_credential_for_one().await;
    let path = format!("/v2/{OPEN}/blobs/{}", content.digest());
    registry.rule(move |request| {
        let is_head = request.method == "HEAD" && request.path() == path;
        is_head.then(|| Answer::status(401))
    });
    let answer = mirror.send(content.request(Kind::Get, OPEN)).await;
    assert_eq!(answer.expect(200), content.layer);
    let asked = registry.requests("GET", "/v2/open/app/blobs/*");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("Range"), Some("bytes=0-0"));
    assert_eq!(asked[0].sent(), 1);
}

#[tokio::test]
async fn a_registry_that_anybody_could_set_up_has_to_send_what_it_claims_to_have() {
    // `elsewhere.example` is served without being configured; its word is believed for nothing.
    let (registry, _members, content, mirror) = with_a_credential_for_one().await;
    let digest = content.digest();
    let target = format!("/v2/{HERE}/blobs/{digest}?ns=elsewhere.example");
    let answer = mirror.get(&target).await;
    assert_ne!(answer.status, 200, "{answer:?}");
    assert_eq!(registry.log().len(), 0);
}

#[tokio::test]
async fn c28_a_refusal_ends_a_right_at_once_and_a_missing_blob_its_link() {
    let (registry, members, content, mirror) = with_a_credential_for_one().await;
    // Something that is not cached: upstream is asked, and refuses.
    members.dismiss_all();
    let other = format!("/v2/{HERE}/manifests/other");
    assert_eq!(mirror.get(&other).await.status, 403);
    for kind in Kind::ALL {
        let answer = mirror.send(content.request(kind, HERE)).await;
        assert_eq!(answer.status, 403, "{kind:?}: {answer:?}");
    }
    // Neither does an outage bring it back.
    registry.stop().await;
    for kind in Kind::ALL {
        let answer = mirror.send(content.request(kind, HERE)).await;
        assert_ne!(answer.status, content.expected(kind).0, "{kind:?}");
    }
    registry.resume().await;
    members.admit("robot", HERE);
    // The mirror leaves an upstream in trouble alone for a while.
    clock::pass(60).await;
    for kind in Kind::ALL {
        let answer = mirror.send(content.request(kind, HERE)).await;
        assert_eq!(answer.status, content.expected(kind).0, "{kind:?}");
    }
    let path = format!("/v2/{HERE}/blobs/{}", content.digest());
    registry.answer(&path, Answer::error(404, "BLOB_UNKNOWN"));
    mirror.clock.advance(10 * 60);
    for _ in 0..2 {
        let answer = mirror.send(content.request(Kind::Get, HERE)).await;
        assert_eq!(answer.status, 404, "{answer:?}");
    }
}

#[tokio::test]
async fn links_and_rights_outlive_a_restart_and_an_outage() {
    let (registry, _members, content, mut mirror) = with_a_credential_for_one().await;
    mirror.stop().await;
    registry.stop().await;
    let mirror = mirror.start_again().await;
    for kind in Kind::ALL {
        let answer = mirror.send(content.request(kind, HERE)).await;
        let (status, body) = content.expected(kind);
        assert!(
            body.is_none_or(|body| answer.expect(status) == body),
            "{kind:?}"
        );
        let answer = mirror.send(content.request(kind, THERE)).await;
        assert_eq!(answer.status, 502, "{kind:?}: {answer:?}");
    }
    // But not for ever.
    mirror.clock.advance(8 * 24 * 60 * 60);
    let answer = mirror.send(content.request(Kind::Get, HERE)).await;
    assert_eq!(answer.status, 502, "{answer:?}");
}

#[tokio::test]
async fn another_credential_is_another_right() {
    let (registry, _members, content, mut mirror) = with_a_credential_for_one().await;
    mirror.stop().await;
    registry.stop().await;
    let other = ROBOT_HERE.replace("robot", "bob");
    let setup = Setup::new().upstream(REGISTRY, &registry);
    let again = setup.credentials(&other);
    let again = again
        .start_on(std::sync::Arc::clone(&mirror.directory))
        .await;
    for kind in Kind::ALL {
        let answer = again.send(content.request(kind, HERE)).await;
        assert_eq!(answer.status, 502, "{kind:?}: {answer:?}");
    }
}

#[tokio::test]
async fn damaged_records_cost_a_question_and_nothing_else() {
    for damage in [&b""[..], b"{", b"{\"namespace\":7}", b"\xff\xfe"] {
        let (registry, _members, content, mut mirror) = with_a_credential_for_one().await;
        mirror.stop().await;
        let mut damaged = 0;
        for (path, _) in mirror.files() {
            let is_record = ["v1/links", "v1/rights", "v1/origins"]
                .iter()
                .any(|shelf| path.starts_with(shelf));
            if is_record {
                fs::write(mirror.directory.path().join(path), damage).expect("written");
                damaged += 1;
            }
        }
        assert!(damaged >= 3, "there are records of each kind: {damaged}");
        let mirror = mirror.start_again().await;
        for kind in Kind::ALL {
            let answer = mirror.send(content.request(kind, HERE)).await;
            assert_eq!(answer.status, content.expected(kind).0, "{kind:?}");
        }
        assert_eq!(registry.body_bytes("/v2/team/app/blobs/*"), 0);
    }
}

#[tokio::test]
async fn what_is_everybodys_is_read_without_a_question() {
    let registry = Upstream::start().await;
    let members = Members::default();
    members.stand(&registry);
    let content = Content::put(&registry);
    let mut mirror = Setup::new().upstream(REGISTRY, &registry).start().await;
    for kind in [
        Kind::Get,
        Kind::Child,
        Kind::Tag,
        Kind::Tags,
        Kind::Referrers,
    ] {
        mirror.send(content.request(kind, OPEN)).await.expect(200);
    }
    mirror.wait_until_stored(&content.digest()).await;
    registry.forget();
    for _ in 0..2 {
        // That nothing refers to a digest is not kept for long.
        let kept = Kind::ALL.into_iter();
        for kind in kept.filter(|kind| *kind != Kind::Referrers) {
            let answer = mirror.send(content.request(kind, OPEN)).await;
            assert_eq!(answer.status, content.expected(kind).0);
        }
        // The bytes are no secret, whatever repository they are asked through; what it calls a manifest is its own.
        for kind in [Kind::Head, Kind::Get, Kind::Range] {
            let answer = mirror.send(content.request(kind, HERE)).await;
            assert_eq!(answer.status, content.expected(kind).0);
        }
        assert_eq!(registry.log().len(), 0);
        let links = mirror.files();
        let mut links = links.iter().map(|(path, _)| path);
        assert!(!links.any(|path| path.starts_with("v1/links") || path.starts_with("v1/private")));
        mirror.stop().await;
        mirror = mirror.start_again().await;
    }
}

#[tokio::test]
async fn c29_nobody_can_tell_what_is_cached_and_not_theirs_from_what_is_not_there() {
    // Of one repository the mirror has a credential, and has brought in what it holds. Through the other one, what is
    // cached and what nobody has is answered alike: with the same words, after as many questions.
    let (registry, _members, content, mirror) = with_a_credential_for_one().await;
    let nowhere = sha256(b"what nobody has");
    for kind in [Kind::Head, Kind::Get, Kind::Range, Kind::Manifest] {
        let cached = content.request(kind, THERE);
        let path = if kind == Kind::Manifest {
            "manifests"
        } else {
            "blobs"
        };
        let absent = format!("/v2/{THERE}/{path}/{nowhere}");
        let absent = if kind == Kind::Head {
            Request::head(&absent)
        } else {
            Request::get(&absent)
        };
        let absent = if kind == Kind::Range {
            absent.header("Range", "bytes=0-9")
        } else {
            absent
        };
        let mut seen = Vec::new();
        // The first question finds out what the registry wants, whatever it is about.
        mirror.send(content.request(kind, THERE)).await;
        for request in [cached, absent] {
            registry.forget();
            let answer = mirror.send(request).await;
            let names = answer.headers.iter().map(|(name, _)| name.clone());
            let names: Vec<_> = names.collect();
            let n_asked = registry.log().len();
            seen.push((answer.status, names, answer.body.clone(), n_asked));
        }
        assert_eq!(seen[0], seen[1], "{kind:?}");
        assert!(seen[0].3 > 0, "{kind:?}: upstream decides");
    }
}
