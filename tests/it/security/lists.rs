//! C-40, C-41: lists without an end, and links that lead elsewhere. What the mirror asks, holds in memory and answers
//! stays bounded, and it asks nobody else.

use serde_json::json;

use crate::harness::content::{OCI_IMAGE, OCI_INDEX, sha256};
use crate::harness::upstream::{Answer, Body, Seen, Upstream, json as text};
use crate::harness::world::World;

const TAGS: &str = "/v2/team/app/tags/list";

fn referrers() -> String {
    format!("/v2/team/app/referrers/{}", sha256(b"a subject"))
}

/// A page that brings something new every time, and leads to the next one.
fn page_after(request: &Seen, link: &str) -> Answer {
    let last = request.query("last").pop().unwrap_or_default();
    let n = last.trim_start_matches('t').parse::<u64>().unwrap_or(0) + 1;
    let link = link.replace("NEXT", &format!("t{n}"));
    let answer = if request.path() == TAGS {
        let list = json!({ "name": "team/app", "tags": [format!("t{n}")] });
        Answer::ok("application/json", text(&list))
    } else {
        let digest = sha256(n.to_string().as_bytes());
        let descriptor = json!({ "mediaType": OCI_IMAGE, "digest": digest, "size": 1 });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        Answer::ok(OCI_INDEX, text(&index))
    };
    answer.header("Link", &format!("<{link}>; rel=\"next\""))
}

#[tokio::test]
async fn c_40_endless_pages_come_to_an_end() {
    for target in [TAGS.to_owned(), referrers()] {
        let world = World::new().await;
        world
            .upstream
            .rule(|request| Some(page_after(request, "?last=NEXT")));
        let answer = world.mirror.get(&target).await;
        answer.expect_error(502, "UNAVAILABLE");
        assert_eq!(world.upstream.log().len(), 1000, "{target}");
    }
}

#[tokio::test]
async fn c_40_an_endless_page_comes_to_an_end() {
    for (target, media_type) in [
        (TAGS.to_owned(), "application/json"),
        (referrers(), OCI_INDEX),
    ] {
        let world = World::new().await;
        let endless = Body::new(vec![b' '; 1024 * 1024]).endlessly();
        world
            .upstream
            .answer("/v2/*", Answer::ok(media_type, endless));
        let answer = world.mirror.get(&target).await;
        answer.expect_error(502, "UNAVAILABLE");
        let sent = world.upstream.body_bytes("*");
        assert!(sent < 48 * 1024 * 1024, "{sent} bytes");
    }
}

#[tokio::test]
async fn c_40_pages_that_are_large_together_come_to_an_end() {
    let world = World::new().await;
    let padding = " ".repeat(3 * 1024 * 1024);
    world.upstream.rule(move |request| {
        let last = request.query("last").pop().unwrap_or_default();
        let n = last.parse::<u64>().unwrap_or(0) + 1;
        let list = format!(r#"{{"name":"x","tags":["t{n}"]}}{padding}"#);
        let link = format!("<?last={n}>; rel=\"next\"");
        Some(Answer::ok("application/json", list).header("Link", &link))
    });
    let answer = world.mirror.get(TAGS).await;
    answer.expect_error(502, "UNAVAILABLE");
    assert!(world.upstream.log().len() <= 11);
}

#[tokio::test]
async fn c_40_more_tags_than_any_repository_has_are_refused() {
    let world = World::new().await;
    let tags: Vec<String> = (0..200_001).map(|n| n.to_string()).collect();
    let list = text(&json!({ "name": "team/app", "tags": tags }));
    world
        .upstream
        .answer(TAGS, Answer::ok("application/json", list));
    let answer = world.mirror.get(TAGS).await;
    answer.expect_error(502, "UNAVAILABLE");
}

#[tokio::test]
async fn a_link_in_a_circle_ends_the_list() {
    for target in [TAGS.to_owned(), referrers()] {
        let world = World::new().await;
        // The third page leads to the first.
        world.upstream.rule(|request| {
            let is_last = request.query("last") == ["t2"];
            let link = if is_last { "?last=" } else { "?last=NEXT" };
            Some(page_after(request, link))
        });
        let answer = world.mirror.get(&target).await;
        answer.expect(200);
        assert_eq!(world.upstream.log().len(), 4, "{target}");
    }
}

#[tokio::test]
async fn a_link_to_another_host_is_not_followed_there() {
    let stranger = Upstream::start_on("127.0.0.2").await;
    let host = stranger.host();
    for link in [
        stranger.url("/v2/team/app/tags/list?last=NEXT"),
        format!("//{host}/v2/team/app/tags/list?last=NEXT"),
        format!("http://user:password@{host}/?last=NEXT"),
        "file:///etc/passwd?last=NEXT".to_owned(),
        "/v2/team/secret/tags/list?last=NEXT".to_owned(),
        "../../../secret/tags/list?last=NEXT".to_owned(),
    ] {
        let world = World::new().await;
        let written = link.clone();
        world.upstream.rule(move |request| {
            let is_last = request.query("last") == ["t2"];
            let page = page_after(request, &written);
            Some(if is_last {
                page.without_header("Link")
            } else {
                page
            })
        });
        let answer = world.mirror.get(TAGS).await;
        assert_eq!(
            &answer.expect(200)[..],
            br#"{"name":"team/app","tags":["t1","t2","t3"]}"#
        );
        let log = world.upstream.log();
        assert_eq!(log.len(), 3, "{link}");
        assert!(log.iter().all(|request| request.path() == TAGS), "{link}");
    }
    assert_eq!(stranger.connections(), 0);
}

#[tokio::test]
async fn what_upstream_writes_into_a_link_stays_out_of_the_answer() {
    let world = World::new().await;
    world.upstream.rule(|request| {
        let is_last = request.query("last") == ["t2"];
        let page = page_after(request, "?last=NEXT&token=planted");
        Some(if is_last {
            page.without_header("Link")
        } else {
            page
        })
    });
    let answer = world.mirror.get(&format!("{TAGS}?n=1")).await;
    let link = answer.header("Link");
    assert_eq!(
        link,
        Some("</v2/team/app/tags/list?n=1&last=t1>; rel=\"next\"")
    );
}
