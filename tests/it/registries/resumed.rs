//! The profiles of registries that redirect, with a body that breaks off in the middle: whatever the way to the bytes,
//! each of them comes once, and nothing of the way is kept longer than it works.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::mirror_of;
use crate::harness::content::{KIB, MIB, bytes, sha256};
use crate::harness::gate::Gate;
use crate::harness::upstream::{Answer, Body, End, Guard, Seen, Upstream};

/// How much of the blob comes before the connection breaks.
const CUT: usize = MIB;

/// A registry, the store behind it, and a blob of theirs.
struct Profile {
    registry: Upstream,
    store: Upstream,
    content: Bytes,
    digest: String,
    /// Where the body breaks off.
    gate: Gate,
    end: End,
}

impl Profile {
    async fn new(end: End) -> Self {
        let content = bytes(1, 2 * MIB);
        Self {
            registry: Upstream::start().await,
            store: Upstream::start_on("127.0.0.2").await,
            digest: sha256(&content),
            content,
            gate: Gate::closed(),
            end,
        }
    }

    /// The blob, which breaks off once, when the mirror has all that was sent.
    fn body(&self) -> Body {
        Body::new(self.content.clone())
            .stall_at(CUT, &self.gate)
            .cut_at(CUT, self.end, 1)
    }

    /// The blob comes whole through `registry`, for one body. When it breaks off, `meanwhile` happens.
    async fn comes_once(&self, namespace: &str, name: &str, meanwhile: impl FnOnce()) {
        let mirror = mirror_of(namespace, &self.registry).await;
        let target = format!("/v2/{name}/blobs/{}?ns={namespace}", self.digest);
        let mut pull = crate::harness::client::Request::get(&target)
            .open(mirror.address)
            .await;
        assert_eq!(pull.status, 200);
        let first = pull.read(CUT).await;
        self.gate.reached().await;
        meanwhile();
        self.gate.open();
        let rest = pull.finish().await.expect(200);
        assert!([first, rest].concat() == self.content);
        mirror.wait_until_stored(&self.digest).await;
        let sent = self.store.body_bytes("*") + self.registry.body_bytes("*");
        let bound = self.content.len() as u64 * 101 / 100;
        // Redirects and tokens have bodies, too.
        assert!(sent <= bound + 4 * KIB as u64, "{sent}");
    }
}

/// What stores say to a signature that is too old.
const EXPIRED: [u16; 5] = [400, 401, 403, 404, 410];

#[tokio::test]
async fn p9_p16_a_signature_that_expires_in_the_middle_is_asked_for_anew_whatever_the_store_says() {
    for (n, status) in EXPIRED.into_iter().enumerate() {
        let profile = Profile::new([End::Fin, End::Rst][n % 2]).await;
        let valid = Arc::new(AtomicUsize::new(1));
        let (now, body, digest) = (Arc::clone(&valid), profile.body(), profile.digest.clone());
        profile.store.put_file(&format!("/files/{digest}"), body);
        profile.store.rule(move |request: &Seen| {
            let signature = format!("sig={}", now.load(Ordering::SeqCst));
            let expired = !request.target.ends_with(&signature);
            expired.then(|| Answer::status(status).body("<Error>Request has expired</Error>"))
        });
        let (now, base) = (Arc::clone(&valid), profile.store.url("/files"));
        profile.registry.rule(move |request: &Seen| {
            let (_, kind, digest) = request.parts()?;
            let signature = now.load(Ordering::SeqCst);
            let answer = Answer::redirect(302, &format!("{base}/{digest}?sig={signature}"));
            (kind == "blobs").then(|| answer.header("Cache-Control", "max-age=31536000"))
        });
        let expires = || valid.store(2, Ordering::SeqCst);
        profile.comes_once("quay.io", "org/app", expires).await;
        let asked = profile.registry.requests("GET", "/v2/org/app/blobs/*");
        assert_eq!(asked.len(), 2, "{status}");
    }
}

#[tokio::test]
async fn p22_two_hops_are_walked_again_only_where_they_stopped_working() {
    for end in [End::Fin, End::Rst] {
        let profile = Profile::new(end).await;
        let between = Upstream::start_on("127.0.0.3").await;
        let digest = &profile.digest;
        profile
            .store
            .put_file(&format!("/files/{digest}"), profile.body());
        between.redirect_blobs(307, &profile.store.url("/files"), "");
        let base = between.url("/v2/k8s-artifacts-prod/images");
        profile.registry.rule(move |request: &Seen| {
            let rest = request.path().strip_prefix("/v2/")?;
            Some(Answer::redirect(307, &format!("{base}/{rest}")))
        });
        profile.comes_once("registry.k8s.io", "pause", || ()).await;
        assert!(profile.registry.log().len() <= 2 && between.log().len() <= 2);
    }
}

#[tokio::test]
async fn p25_a_relative_redirect_is_resumed_with_and_without_a_token() {
    for end in [End::Fin, End::Rst] {
        let profile = Profile::new(end).await;
        let path = format!("/artifacts-downloads/{}", "A".repeat(1000));
        profile.registry.put_file(&path, profile.body());
        profile.registry.rule(move |request: &Seen| {
            let (_, kind, _) = request.parts()?;
            (kind == "blobs").then(|| Answer::redirect(302, &path))
        });
        let gar = "europe-west1-docker.pkg.dev";
        let guard = Guard::bearer(&profile.registry.url("/v2/token"), gar);
        guard.stand(&profile.registry, &profile.registry, "/v2/token");
        profile.comes_once(gar, "project/repo/app", || ()).await;
        assert_eq!(guard.issued(), 1);
    }
}

#[tokio::test]
async fn p28_a_path_with_two_slashes_is_resumed_to_the_byte() {
    for end in [End::Fin, End::Rst] {
        let profile = Profile::new(end).await;
        let exact = "/shard//docker/sha256%3Aff/data?se=2024%2d&sig=a%2Fb%3d&&x=";
        profile
            .store
            .put_file("/shard//docker/sha256%3Aff/data", profile.body());
        profile
            .store
            .rule(move |request: &Seen| (request.target != exact).then(|| Answer::status(404)));
        let location = profile.store.url(exact);
        profile.registry.rule(move |request: &Seen| {
            let (_, kind, _) = request.parts()?;
            (kind == "blobs").then(|| Answer::redirect(307, &location))
        });
        profile
            .comes_once("mcr.microsoft.com", "dotnet/runtime", || ())
            .await;
    }
}

#[tokio::test]
async fn p31_a_registry_without_head_is_resumed_without_asking_who_we_are_again() {
    for end in [End::Fin, End::Rst] {
        let profile = Profile::new(end).await;
        let digest = &profile.digest;
        profile
            .store
            .put_file(&format!("/files/{digest}"), profile.body());
        profile
            .registry
            .redirect_blobs(307, &profile.store.url("/files"), "?Signature=x");
        profile.registry.rule(|request: &Seen| {
            (request.method == "HEAD").then(|| Answer::error(401, "UNAUTHORIZED"))
        });
        profile.comes_once("public.ecr.aws", "org/app", || ()).await;
        assert_eq!(profile.registry.requests("HEAD", "*").len(), 0);
        let asked = profile.registry.requests("GET", "*").len();
        assert!(asked <= 2, "{asked}");
    }
}

#[tokio::test]
async fn p38_a_part_that_is_shorter_than_asked_is_asked_on_from_there() {
    let registry = Upstream::start().await;
    let content = bytes(1, 2 * MIB);
    let digest = registry.put_blob(
        "team/app",
        Body::new(content.clone()).cut_at(CUT, End::Fin, 1),
    );
    let whole = content.clone();
    // Never more than 300 KiB at a time, whatever is asked for.
    registry.rule(move |request: &Seen| {
        let asked = request.header("Range")?.strip_prefix("bytes=")?;
        let from: usize = asked.split('-').next()?.parse().ok()?;
        let to = (from + 300 * KIB).min(whole.len());
        let range = format!("bytes {from}-{}/{}", to - 1, whole.len());
        let answer = Answer::status(206).header("Content-Range", &range);
        Some(answer.body(whole.slice(from..to)))
    });
    let mirror = mirror_of("registry.example", &registry).await;
    let target = format!("/v2/team/app/blobs/{digest}");
    assert_eq!(mirror.get(&target).await.expect(200), content);
    let sent = registry.body_bytes("*");
    assert!(sent <= content.len() as u64 * 101 / 100, "{sent}");
}

#[tokio::test]
async fn p39_wrong_bytes_of_a_blob_now_and_then_are_asked_for_again() {
    for length in [1000, MIB] {
        let registry = Upstream::start().await;
        let (content, other) = (bytes(1, length), bytes(2, length));
        let digest = registry.put_blob("org/app", content.clone());
        let target = format!("/v2/org/app/blobs/{digest}");
        let (asked, wanted) = (AtomicUsize::new(0), target.clone());
        registry.rule(move |request: &Seen| {
            let first = request.path() == wanted && asked.fetch_add(1, Ordering::Relaxed) == 0;
            first.then(|| Answer::ok("application/octet-stream", other.clone()))
        });
        let mirror = mirror_of("registry.redhat.io", &registry).await;
        let target = format!("{target}?ns=registry.redhat.io");
        let answer = mirror.get(&target).await;
        // Whoever was given wrong bytes already gets no more of them; whoever was not never knows.
        let is_short = answer.ending == crate::harness::client::Ending::Short;
        assert!(answer.body == content || (is_short && length > 64 * KIB));
        mirror.wait_until_stored(&digest).await;
        assert_eq!(mirror.get(&target).await.expect(200), content);
        assert_eq!(registry.requests("GET", "*").len(), 2);
    }
}

#[tokio::test]
async fn p39_wrong_bytes_of_a_blob_every_time_are_a_502_after_two() {
    let registry = Upstream::start().await;
    let digest = sha256(&bytes(1, 1000));
    registry.put_blob_as("org/app", &digest, bytes(2, 1000));
    let mirror = mirror_of("registry.redhat.io", &registry).await;
    let target = format!("/v2/org/app/blobs/{digest}?ns=registry.redhat.io");
    mirror.get(&target).await.expect_error(502, "UNAVAILABLE");
    assert_eq!(registry.requests("GET", "*").len(), 2);
    assert!(!mirror.has(&digest));
}
