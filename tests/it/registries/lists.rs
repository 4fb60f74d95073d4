//! How the registries of the world list tags and referrers.

use serde_json::{Value, json};

use super::mirror_of;
use crate::harness::content::{Image, Manifest, OCI_IMAGE, OCI_INDEX, sha256};
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Answer, Guard, Seen, Upstream, json as text};

/// The tags of `name` at `namespace`.
async fn tags(mirror: &Mirror, namespace: &str, name: &str) -> Vec<String> {
    let target = format!("/v2/{name}/tags/list?ns={namespace}");
    let body = mirror.get(&target).await.expect(200);
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["name"], name);
    serde_json::from_value(body["tags"].clone()).expect("a list")
}

/// The digests of what refers to `subject` in `name` at `namespace`.
async fn referrers(mirror: &Mirror, namespace: &str, name: &str, subject: &str) -> Vec<String> {
    let target = format!("/v2/{name}/referrers/{subject}?ns={namespace}");
    let body = mirror.get(&target).await.expect(200);
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let list = body["manifests"].as_array().expect("a list").iter();
    list.map(|one| one["digest"].as_str().expect("text").to_owned())
        .collect()
}

/// Lists `all` in pages of at most `n_max`, with links made by `link` of a query.
fn page_tags(upstream: &Upstream, n_max: usize, all: &[&str], link: fn(&str) -> String) {
    let all: Vec<String> = all.iter().map(|&tag| tag.to_owned()).collect();
    upstream.rule(move |request: &Seen| {
        let (name, kind, _) = request.parts()?;
        let n = request.query("n").pop()?.parse().unwrap_or(n_max);
        let last = request.query("last").pop();
        let from = last.map_or(0, |last| {
            let at = all.iter().position(|tag| *tag == last);
            at.expect("a known tag") + 1
        });
        let page: Vec<_> = all.iter().skip(from).take(n.min(n_max)).collect();
        let mut answer = Answer::ok(
            "application/json",
            text(&json!({ "name": name, "tags": page })),
        );
        if let Some(last) = page.last()
            && from + page.len() < all.len()
        {
            let link = link(&format!("n={n_max}&last={last}"));
            answer = answer.header("Link", &format!("<{link}>; rel=\"next\""));
        }
        (kind == "tags").then_some(answer)
    });
}

#[tokio::test]
async fn ghcr_lists_the_oldest_tags_first() {
    let ghcr = Upstream::start().await;
    let in_order = ["v2", "v1", "v10", "a", "latest"];
    page_tags(&ghcr, 2, &in_order, |query| {
        format!("/v2/org/app/tags/list?{query}")
    });
    let mirror = mirror_of("ghcr.io", &ghcr).await;
    let found = tags(&mirror, "ghcr.io", "org/app").await;
    assert_eq!(found, ["a", "latest", "v1", "v10", "v2"]);
    // Pages are cut from the sorted list, not from those of upstream.
    let page = mirror
        .get("/v2/org/app/tags/list?ns=ghcr.io&n=2&last=b")
        .await;
    assert_eq!(
        &page.expect(200)[..],
        br#"{"name":"org/app","tags":["latest","v1"]}"#
    );
    assert_eq!(ghcr.log().len(), 3);
}

#[tokio::test]
async fn p15_ghcr_referrers_303() {
    for (status, body) in [(200, "<html>Sign in</html>"), (429, "slow down")] {
        let (ghcr, page) = (
            Upstream::start().await,
            Upstream::start_on("127.0.0.2").await,
        );
        page.answer("*", Answer::status(status).body(body));
        let image = Image::new(1);
        let subject = image.manifest.digest();
        ghcr.put_image("org/app", "v1", &image);
        let location = page.url("/-/v2/packages/container/package/org%2Fapp%2Freferrers%2Fsha256");
        ghcr.answer("/v2/org/app/referrers/*", Answer::redirect(303, &location));
        let mirror = mirror_of("ghcr.io", &ghcr).await;
        assert!(
            referrers(&mirror, "ghcr.io", "org/app", &subject)
                .await
                .is_empty()
        );
        let signature = Image::new(2).manifest;
        let index = Manifest::index(OCI_INDEX, &[&signature]);
        ghcr.put_manifest("org/app", &subject.replace(':', "-"), &index);
        mirror.clock.advance(61);
        let found = referrers(&mirror, "ghcr.io", "org/app", &subject).await;
        assert_eq!(found, [signature.digest()]);
        assert_eq!(page.connections(), 0, "nobody goes to the web page");
    }
}

#[tokio::test]
async fn p20_quay_abs_link() {
    for host in ["https://quay.io", "http://quay.io:8443", "//quay.io", ""] {
        let quay = Upstream::start().await;
        let all: Vec<String> = (100..350).map(|n| format!("t{n}")).collect();
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        let link: fn(&str) -> String = match host {
            "https://quay.io" => |query| format!("https://quay.io/v2/o/r/tags/list?{query}"),
            "http://quay.io:8443" => {
                |query| format!("http://quay.io:8443/v2/o/r/tags/list?{query}")
            }
            "//quay.io" => |query| format!("//quay.io/v2/o/r/tags/list?{query}"),
            _ => |query| format!("?{query}"),
        };
        page_tags(&quay, 100, &names, link);
        let mirror = mirror_of("quay.io", &quay).await;
        assert_eq!(tags(&mirror, "quay.io", "o/r").await, all);
        assert_eq!(quay.log().len(), 3);
    }
}

#[tokio::test]
async fn quay_refuses_subjects_that_it_does_not_have() {
    let quay = Upstream::start().await;
    quay.answer(
        "/v2/org/app/referrers/*",
        Answer::error(400, "MANIFEST_INVALID"),
    );
    quay.put_image("org/app", "v1", &Image::new(1));
    let mirror = mirror_of("quay.io", &quay).await;
    let found = referrers(&mirror, "quay.io", "org/app", &sha256(b"unknown")).await;
    assert!(found.is_empty());
}

#[tokio::test]
async fn p22_k8s_lists_come_from_elsewhere_without_a_query() {
    let (front, backend) = (
        Upstream::start().await,
        Upstream::start_on("127.0.0.2").await,
    );
    let base = backend.url("/v2/k8s-artifacts-prod/images");
    front.rule(move |request: &Seen| {
        let rest = request.path().strip_prefix("/v2/")?;
        Some(Answer::redirect(307, &format!("{base}/{rest}")))
    });
    for tag in ["3.9", "3.10", "3.8"] {
        backend.put_image("k8s-artifacts-prod/images/pause", tag, &Image::new(1));
    }
    // It says that there is more, and gives the same again: what follows `?` is lost on the way.
    let list = Answer::ok(
        "application/json",
        text(
            &json!({ "child": [], "manifest": { "sha256:00": { "tag": ["3.8"] } },
            "name": "k8s-artifacts-prod/images/pause", "tags": ["3.8", "3.9", "3.10"] }),
        ),
    );
    let list = list.header("Link", "</v2/x/tags/list?last=3.9>; rel=\"next\"");
    backend.answer("/v2/k8s-artifacts-prod/images/pause/tags/list", list);
    backend.answer(
        "/v2/k8s-artifacts-prod/images/pause/referrers/*",
        Answer::ok("text/html; charset=utf-8", "<html>Sign in</html>"),
    );
    let mirror = mirror_of("registry.k8s.io", &front).await;
    let found = tags(&mirror, "registry.k8s.io", "pause").await;
    assert_eq!(found, ["3.10", "3.8", "3.9"]);
    let subject = Image::new(1).manifest.digest();
    let found = referrers(&mirror, "registry.k8s.io", "pause", &subject).await;
    assert!(found.is_empty());
    assert!(front.log().len() <= 4);
}

#[tokio::test]
async fn p23_k8s_lists_survive_a_second_401() {
    let (front, backend) = (
        Upstream::start().await,
        Upstream::start_on("127.0.0.2").await,
    );
    let base = backend.url("/v2/k8s-artifacts-prod/images");
    front.rule(move |request: &Seen| {
        let rest = request.path().strip_prefix("/v2/")?;
        Some(Answer::redirect(307, &format!("{base}/{rest}")))
    });
    let image = Image::new(1);
    backend.put_image("k8s-artifacts-prod/images/pause", "3.9", &image);
    let guard = Guard::bearer(&backend.url("/token"), "pkg.dev");
    guard.stand(&backend, &backend, "/token");
    let mirror = mirror_of("registry.k8s.io", &front).await;
    assert_eq!(tags(&mirror, "registry.k8s.io", "pause").await, ["3.9"]);
    let subject = image.manifest.digest();
    let found = referrers(&mirror, "registry.k8s.io", "pause", &subject).await;
    assert!(found.is_empty());
}

#[tokio::test]
async fn p24_html_in_place_of_referrers_is_no_list() {
    let upstream = Upstream::start().await;
    let page = Answer::ok("text/html; charset=utf-8", "<html>Log in</html>");
    upstream.answer("/v2/*", page);
    let mirror = mirror_of("registry.example", &upstream).await;
    let target = format!("/v2/a/b/referrers/{}", sha256(b"x"));
    mirror.get(&target).await.expect_error(502, "UNAVAILABLE");
    mirror
        .get("/v2/a/b/tags/list")
        .await
        .expect_error(502, "UNAVAILABLE");
}

#[tokio::test]
async fn p27_an_endpoint_without_the_list_falls_through() {
    let (cache, hub) = (Upstream::start().await, Upstream::start().await);
    hub.put_image("library/app", "v1", &Image::new(1));
    let urls = [cache.url(""), hub.url("")];
    let mirror = Setup::new().endpoints("docker.io", &urls, "").start().await;
    assert_eq!(tags(&mirror, "docker.io", "app").await, ["v1"]);
    let missing = mirror.get("/v2/other/tags/list?ns=docker.io").await;
    missing.expect_error(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn p32_no_more_tags_are_asked_for_than_amazon_gives() {
    let ecr = Upstream::start().await;
    ecr.rule(|request: &Seen| {
        let n: u64 = request.query("n").pop()?.parse().expect("a number");
        let words = "Member must have value less than or equal to 1000";
        (n > 1000).then(|| Answer::status(405).body(words))
    });
    ecr.put_image("team/app", "v1", &Image::new(1));
    let registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    let mirror = mirror_of(registry, &ecr).await;
    let target = format!("/v2/team/app/tags/list?n=5000&ns={registry}");
    mirror.get(&target).await.expect(200);
}

#[tokio::test]
async fn p40_tags_zoo() {
    // Nexus and Artifactory: entries that are no tags.
    let zoo = Upstream::start().await;
    let list =
        json!({ "name": "a/b", "tags": [null, "v1", format!("sha256:{}", "0".repeat(64)), null] });
    let answer = Answer::ok("application/json;charset=ISO-8859-1", text(&list));
    zoo.answer("/v2/a/b/tags/list", answer);
    let mirror = mirror_of("registry.example", &zoo).await;
    assert_eq!(tags(&mirror, "registry.example", "a/b").await, ["v1"]);

    // Artifactory: a link without the front of the path. Azure: a parameter without a value.
    for link in [
        (|query| format!("/v2/b/tags/list?{query}")) as fn(&str) -> String,
        |query| format!("/v2/repo/a/b/tags/list?{query}&orderby="),
    ] {
        let zoo = Upstream::start().await;
        page_tags(&zoo, 1, &["a", "b", "c"], link);
        let mirror = mirror_of("registry.example", &zoo).await;
        let found = tags(&mirror, "registry.example", "repo/a/b").await;
        assert_eq!(found, ["a", "b", "c"]);
    }

    // A state that only upstream can read.
    let zoo = Upstream::start().await;
    zoo.rule(|request: &Seen| {
        let is_second = request.query("next_page") == ["gAAAA/x+y=="];
        let page = json!({ "name": "a/b", "tags": if is_second { ["b"] } else { ["a"] } });
        let answer = Answer::ok("application/json", text(&page));
        Some(if is_second {
            answer
        } else {
            let link = "</v2/a/b/tags/list?n=1&next_page=gAAAA%2Fx%2By%3D%3D>; rel=\"next\"";
            answer.header("Link", link)
        })
    });
    let mirror = mirror_of("registry.example", &zoo).await;
    assert_eq!(tags(&mirror, "registry.example", "a/b").await, ["a", "b"]);
}

#[tokio::test]
async fn p40_a_last_tag_that_was_deleted_meanwhile_starts_the_list_again() {
    let zot = Upstream::start().await;
    page_tags(&zot, 1, &["a", "c"], |query| {
        format!("/v2/a/b/tags/list?{query}")
    });
    let times = std::sync::atomic::AtomicUsize::new(0);
    zot.rule(move |request: &Seen| {
        let is_second_page = request.query("last") == ["a"];
        let before = times.fetch_add(
            usize::from(is_second_page),
            std::sync::atomic::Ordering::Relaxed,
        );
        (is_second_page && before == 0).then(|| Answer::error(404, "NAME_UNKNOWN"))
    });
    let mirror = mirror_of("registry.example", &zot).await;
    assert_eq!(tags(&mirror, "registry.example", "a/b").await, ["a", "c"]);
    // Always so is trouble, and no word about the repository.
    let zot = Upstream::start().await;
    page_tags(&zot, 1, &["a", "c"], |_| "?last=gone".to_owned());
    zot.rule(|request: &Seen| {
        let is_second_page = request.query("last") == ["gone"];
        is_second_page.then(|| Answer::error(404, "NAME_UNKNOWN"))
    });
    let mirror = mirror_of("registry.example", &zot).await;
    let answer = mirror.get("/v2/a/b/tags/list").await;
    answer.expect_error(502, "UNAVAILABLE");
}

#[tokio::test]
async fn lists_are_asked_for_with_the_token_of_the_repository() {
    let hub = Upstream::start().await;
    hub.put_image("library/app", "v1", &Image::new(1));
    let guard =
        Guard::bearer(&hub.url("/token"), "registry.docker.io").issuing(|request, token| {
            if request.query("scope") == ["repository:library/app:pull"] {
                Answer::ok("application/json", text(&json!({ "token": token })))
            } else {
                Answer::status(403)
            }
        });
    guard.stand(&hub, &hub, "/token");
    let mirror = mirror_of("docker.io", &hub).await;
    assert_eq!(tags(&mirror, "docker.io", "app").await, ["v1"]);
    let subject = sha256(b"x");
    assert!(
        referrers(&mirror, "docker.io", "app", &subject)
            .await
            .is_empty()
    );
    assert_eq!(guard.issued(), 1);
}

#[tokio::test]
async fn microsoft_says_in_xml_that_a_repository_is_missing() {
    let mcr = Upstream::start().await;
    let words = "<?xml version=\"1.0\"?><Error><Code>BlobNotFound</Code></Error>";
    let answer = Answer::status(404).header("Content-Type", "application/xml");
    mcr.answer("/v2/*", answer.body(words));
    let mirror = mirror_of("mcr.microsoft.com", &mcr).await;
    let target = "/v2/dotnet/missing/tags/list?ns=mcr.microsoft.com";
    mirror.get(target).await.expect_error(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn a_registry_in_an_organisation_lists_what_is_below_its_project() {
    // A Harbor project, and Artifactory below a path: the name upstream is another one.
    for base in ["/v2/hub", "/artifactory/api/docker/hub"] {
        let upstream = Upstream::start().await;
        upstream.rule(|request: &Seen| {
            let is_list = request.path().ends_with("/library/app/tags/list");
            let list = json!({ "name": "hub/library/app", "tags": ["v1"] });
            is_list.then(|| Answer::ok("application/json; charset=utf-8", text(&list)))
        });
        let urls = [upstream.url(base)];
        let mirror = Setup::new().endpoints("docker.io", &urls, "").start().await;
        assert_eq!(tags(&mirror, "docker.io", "app").await, ["v1"]);
    }
}

#[tokio::test]
async fn docker_hub_serves_referrers_of_its_own() {
    let hub = Upstream::start().await;
    let image = Image::new(1);
    hub.put_image("library/app", "v1", &image);
    let subject = image.manifest.digest();
    let document = json!({
        "artifactType": "application/vnd.in-toto+json",
        "subject": { "mediaType": OCI_IMAGE, "digest": subject, "size": 1 },
    });
    let statement = Manifest::json(OCI_IMAGE, document);
    hub.put_manifest_as("library/app", &statement.digest(), &statement);
    let mirror = mirror_of("docker.io", &hub).await;
    let found = referrers(&mirror, "docker.io", "app", &subject).await;
    assert_eq!(found, [statement.digest()]);
    // What is listed can be pulled.
    let target = format!("/v2/app/manifests/{}?ns=docker.io", found[0]);
    assert_eq!(mirror.get(&target).await.expect(200), statement.bytes);
}
