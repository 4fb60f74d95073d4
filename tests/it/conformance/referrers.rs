//! A8: what refers to a manifest.

use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::content::{Image, Manifest, OCI_IMAGE, OCI_INDEX, sha256};
use crate::harness::upstream::{Answer as Scripted, Upstream, json as text};
use crate::harness::world::{State, World, everywhere};

const SIGNATURE: &str = "application/vnd.example.signature+json";
const STATEMENT: &str = "application/vnd.example.statement";

/// A manifest that refers to `subject`.
fn referrer(subject: &Manifest, artifact_type: &str, n: usize) -> Manifest {
    Manifest::json(
        OCI_IMAGE,
        json!({
            "artifactType": artifact_type, "annotations": { "n": n.to_string() },
            "subject": { "mediaType": OCI_IMAGE, "digest": subject.digest(), "size": subject.bytes.len() },
        }),
    )
}

/// Puts `team/app:v1` with two signatures and a statement; gives what refers to it.
fn put_signed(upstream: &Upstream) -> [Manifest; 3] {
    let image = Image::new(1);
    upstream.put_image("team/app", "v1", &image);
    let referrers = [(SIGNATURE, 1), (STATEMENT, 2), (SIGNATURE, 3)];
    referrers.map(|(kind, n)| {
        let manifest = referrer(&image.manifest, kind, n);
        upstream.put_manifest_as("team/app", &manifest.digest(), &manifest);
        manifest
    })
}

fn rest(subject: &str) -> String {
    format!("team/app/referrers/{subject}")
}

fn subject() -> String {
    Image::new(1).manifest.digest()
}

/// The descriptors of a list of referrers, which is what A8.1 says.
fn descriptors_of(answer: Answer) -> Vec<Value> {
    assert_eq!(answer.header("Content-Type"), Some(OCI_INDEX));
    let index: Value = serde_json::from_slice(&answer.expect(200)).expect("JSON");
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(index["mediaType"], OCI_INDEX);
    index["manifests"].as_array().expect("a list").clone()
}

fn digests_of(answer: Answer) -> Vec<String> {
    let descriptors = descriptors_of(answer);
    let digests = descriptors.iter().map(|one| one["digest"].as_str());
    digests.map(|one| one.expect("text").to_owned()).collect()
}

fn sorted<const N: usize>(manifests: [&Manifest; N]) -> Vec<String> {
    let mut digests = manifests.map(Manifest::digest).to_vec();
    digests.sort();
    digests
}

#[tokio::test]
async fn a8_1_referrers_are_an_image_index() {
    everywhere(
        |upstream| drop(put_signed(upstream)),
        async |mirror, way, state| {
            let answer = mirror.get(&way.target(&rest(&subject()))).await;
            let expected = match state {
                State::Cold => "entrepot; fwd=miss; stored",
                State::Warm | State::Down => "entrepot; hit",
            };
            assert_eq!(answer.header("Cache-Status"), Some(expected), "{way:?}");
            assert_eq!(answer.header("OCI-Filters-Applied"), None);
            let descriptors = descriptors_of(answer);
            assert_eq!(descriptors.len(), 3);
            let image = Image::new(1).manifest;
            for (kind, n) in [(SIGNATURE, 1), (STATEMENT, 2), (SIGNATURE, 3)] {
                let manifest = referrer(&image, kind, n);
                let expected = json!({
                    "mediaType": OCI_IMAGE, "digest": manifest.digest(), "size": manifest.bytes.len(),
                    "artifactType": kind, "annotations": { "n": n.to_string() },
                });
                assert!(descriptors.contains(&expected), "{descriptors:?}");
            }
            let head = mirror.head(&way.target(&rest(&subject()))).await;
            assert_eq!(head.header("Content-Type"), Some(OCI_INDEX));
            head.expect(200);
        },
    )
    .await;
}

#[tokio::test]
async fn a8_2_what_nobody_refers_to_has_an_empty_list() {
    let unknown = sha256(b"never pushed");
    for (repository, subject) in [
        ("team/app", subject()),
        ("team/app", unknown.clone()),
        ("team/missing", unknown),
    ] {
        let world = World::new().await;
        world.upstream.put_image("team/app", "v1", &Image::new(1));
        let target = format!("/v2/{repository}/referrers/{subject}");
        let descriptors = descriptors_of(world.mirror.get(&target).await);
        assert!(descriptors.is_empty(), "{target}");
        // It costs nothing to ask again.
        world.upstream.forget();
        world.mirror.get(&target).await.expect(200);
        assert!(world.upstream.log().is_empty(), "{target}");
    }
}

#[tokio::test]
async fn a8_3_a_bad_digest_is_refused() {
    let world = World::new().await;
    for digest in [
        "sha256:baddigeststring",
        "sha256",
        "v1",
        "blake3:00",
        "md5:00",
    ] {
        let answer = world.mirror.get(&format!("/v2/{}", rest(digest))).await;
        answer.expect_error(400, "DIGEST_INVALID");
    }
    assert!(world.upstream.log().is_empty());
}

#[tokio::test]
async fn a8_4_a_filter_is_applied_and_said_to_be() {
    let world = World::new().await;
    let [first, statement, second] = put_signed(&world.upstream);
    let ask = async |kind: &str| {
        let kind = kind.replace('+', "%2B");
        let target = format!("/v2/{}?artifactType={kind}", rest(&subject()));
        let answer = world.mirror.get(&target).await;
        assert_eq!(answer.header("OCI-Filters-Applied"), Some("artifactType"));
        digests_of(answer)
    };
    assert_eq!(ask(SIGNATURE).await, sorted([&first, &second]));
    assert_eq!(ask(STATEMENT).await, [statement.digest()]);
    assert!(ask("application/vnd.example.other").await.is_empty());
    assert_eq!(
        world.upstream.requests("GET", "*").len(),
        1,
        "one list for every filter"
    );
    let asked = &world.upstream.requests("GET", "*")[0];
    assert!(asked.query("artifactType").is_empty());
    assert_eq!(asked.header("Accept"), Some(OCI_INDEX));
}

/// The tag that stands in for the referrers of [`subject`].
fn fallback_tag() -> String {
    subject().replace(':', "-")
}

#[tokio::test]
async fn a8_5_the_tag_stands_in_where_upstream_knows_no_referrers() {
    for status in [400, 404, 405, 501] {
        let world = World::new().await;
        let [first, statement, second] = put_signed(&world.upstream);
        let mut index = Manifest::index(OCI_INDEX, &[&first, &statement, &second]);
        let mut document: Value = serde_json::from_slice(&index.bytes).expect("JSON");
        for (position, kind) in [SIGNATURE, STATEMENT, SIGNATURE].iter().enumerate() {
            document["manifests"][position]["artifactType"] = json!(kind);
        }
        index.bytes = text(&document);
        world
            .upstream
            .put_manifest("team/app", &fallback_tag(), &index);
        let referrers = format!("/v2/team/app/referrers/{}", subject());
        world
            .upstream
            .answer(&referrers, Scripted::error(status, "UNSUPPORTED"));
        let found = digests_of(world.mirror.get(&referrers).await);
        assert_eq!(found, sorted([&first, &statement, &second]), "{status}");
        let filtered = format!("{referrers}?artifactType={STATEMENT}");
        let answer = world.mirror.get(&filtered).await;
        assert_eq!(answer.header("OCI-Filters-Applied"), Some("artifactType"));
        assert_eq!(digests_of(answer), [statement.digest()]);
        // The tag itself can be pulled as any other.
        let tag = format!("/v2/team/app/manifests/{}", fallback_tag());
        assert_eq!(world.mirror.get(&tag).await.expect(200), index.bytes);
    }
}

#[tokio::test]
async fn a8_5_without_the_tag_nothing_refers_to_it() {
    let world = World::new().await;
    let referrers = format!("/v2/team/app/referrers/{}", subject());
    world.upstream.answer(&referrers, Scripted::status(404));
    assert!(descriptors_of(world.mirror.get(&referrers).await).is_empty());
    let tag = format!("/v2/team/app/manifests/{}", fallback_tag());
    assert_eq!(world.upstream.requests("GET", &tag).len(), 1);
}

#[tokio::test]
async fn a8_5_a_tag_that_is_no_index_is_ignored() {
    let world = World::new().await;
    let referrers = format!("/v2/team/app/referrers/{}", subject());
    world.upstream.answer(&referrers, Scripted::status(404));
    world
        .upstream
        .put_image("team/app", &fallback_tag(), &Image::new(2));
    assert!(descriptors_of(world.mirror.get(&referrers).await).is_empty());
}

#[tokio::test]
async fn a8_5_trouble_with_the_tag_is_no_empty_list() {
    for (answer, status) in [
        (Scripted::status(500), 502),
        (Scripted::status(429), 429),
        (Scripted::status(403), 403),
        (Scripted::ok("text/html", "<html>Log in</html>"), 502),
        (Scripted::ok(OCI_INDEX, "<html>Log in</html>"), 502),
        (Scripted::ok(OCI_INDEX, "{}"), 502),
    ] {
        let world = World::new().await;
        let referrers = format!("/v2/team/app/referrers/{}", subject());
        world.upstream.answer("/v2/*", answer.clone());
        world.upstream.answer(&referrers, Scripted::status(404));
        let found = world.mirror.get(&referrers).await;
        assert_eq!(found.status, status, "{answer:?}");
    }
}

#[tokio::test]
async fn a8_6_pages_of_upstream_are_put_together() {
    let world = World::new().await;
    let manifests = put_signed(&world.upstream);
    let referrers = format!("/v2/team/app/referrers/{}", subject());
    let path = referrers.clone();
    let pages = manifests.clone();
    world.upstream.rule(move |request| {
        let page: usize = match &*request.query("page") {
            [page] => page.parse().expect("a number"),
            _ => 0,
        };
        let answer = Scripted::ok(OCI_INDEX, Manifest::index(OCI_INDEX, &[&pages[page]]).bytes);
        let link = format!(
            "<https://elsewhere.example/?page={}>; rel=\"next\"",
            page + 1
        );
        let answer = if page < 2 {
            answer.header("Link", &link)
        } else {
            answer
        };
        (request.path() == path).then_some(answer)
    });
    let [first, second, third] = &manifests;
    assert_eq!(
        digests_of(world.mirror.get(&referrers).await),
        sorted([first, second, third])
    );
}

#[tokio::test]
async fn a8_6_a_list_too_long_for_containerd_is_cut_into_pages() {
    let world = World::new().await;
    let filler = "x".repeat(100_000);
    let mut all = Vec::new();
    let descriptors: Vec<Value> = (0..60_u8)
        .map(|n| {
            let digest = sha256(&[n]);
            all.push(digest.clone());
            json!({
                "mediaType": OCI_IMAGE, "digest": digest, "size": 1, "artifactType": STATEMENT,
                "annotations": { "text": filler },
            })
        })
        .collect();
    all.sort();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors });
    world.upstream.answer(
        "/v2/team/app/referrers/*",
        Scripted::ok(OCI_INDEX, text(&index)),
    );
    let ns = "ns=registry.example";
    let mut target = format!("/v2/{}?artifactType={STATEMENT}&{ns}", rest(&subject()));
    let mut found = Vec::new();
    let mut pages = 0;
    loop {
        let answer = world.mirror.get(&target).await;
        pages += 1;
        assert!(answer.body.len() <= 4_393_216, "what containerd reads");
        let link = answer.header("Link").map(str::to_owned);
        found.extend(digests_of(answer));
        let Some(link) = link else { break };
        let next = link.strip_prefix('<').expect("a link");
        next.split('>')
            .next()
            .expect("a target")
            .clone_into(&mut target);
        assert!(target.starts_with(&format!("/v2/{}?", rest(&subject()))));
        assert!(target.ends_with(ns), "{target}");
    }
    assert_eq!((pages, found), (2, all));
}

#[tokio::test]
async fn a8_7_a_signature_is_seen_soon_after_it_was_made() {
    let world = World::new().await;
    let image = Image::new(1);
    world.upstream.put_image("team/app", "v1", &image);
    let target = format!("/v2/{}", rest(&subject()));
    assert!(descriptors_of(world.mirror.get(&target).await).is_empty());
    let signature = referrer(&image.manifest, SIGNATURE, 1);
    let digest = signature.digest();
    world
        .upstream
        .put_manifest_as("team/app", &digest, &signature);
    world.mirror.clock.advance(61);
    assert_eq!(digests_of(world.mirror.get(&target).await), [digest]);
}

#[tokio::test]
async fn a8_what_upstream_refuses_is_refused() {
    for (upstream, status) in [(401, 403), (403, 403), (429, 429), (500, 502)] {
        let world = World::new().await;
        world.upstream.answer("/v2/*", Scripted::status(upstream));
        let answer = world.mirror.get(&format!("/v2/{}", rest(&subject()))).await;
        assert_eq!(answer.status, status);
    }
}
