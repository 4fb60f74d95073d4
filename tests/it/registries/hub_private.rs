//! Docker Hub says 401 of what is missing and of what is private alike, whatever token it is shown.

use super::{mirror_of, pulls};
use crate::harness::client::{Answer as Answered, Request};
use crate::harness::content::{Image, sha256};
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Answer, Guard, Seen, Upstream};

const HUB: &str = "docker.io";

/// A private repository, and one that does not exist. Nobody can tell them apart from outside.
const PRIVATE: &str = "team/app";
const MISSING: &str = "library/missing";

/// The token of somebody who may read the private repository, and of somebody who may not.
const MEMBER: &str = "Bearer canary-hub-member";
const STRANGER: &str = "Bearer canary-hub-stranger";
const EXPIRED: &str = "Bearer canary-hub-expired";

/// A hub with a public repository beside those two. Its token service gives everybody a token that reads that one.
async fn hub() -> Upstream {
    let hub = Upstream::start().await;
    hub.put_image("library/nginx", "v1", &Image::new(1));
    hub.put_image(PRIVATE, "v1", &Image::new(2));
    let token = Answer::ok("application/json", r#"{"token":"canary-hub-anonymous"}"#);
    hub.answer("/token", token);
    let realm = hub.url("/token");
    hub.rule(move |request: &Seen| {
        let (name, _, _) = request.parts()?;
        let error = match request.header("Authorization") {
            Some(MEMBER) if name == PRIVATE => return None,
            Some(EXPIRED) => r#",error="invalid_token""#,
            Some(_) if name == "library/nginx" => return None,
            Some(_) => r#",error="insufficient_scope""#,
            None => "",
        };
        let challenge = format!(
            r#"Bearer realm="{realm}",service="registry.docker.io",scope="repository:{name}:pull"{error}"#
        );
        let refusal = Answer::error(401, "UNAUTHORIZED");
        Some(refusal.header("WWW-Authenticate", &challenge))
    });
    hub
}

async fn ask(mirror: &Mirror, path: &str, token: Option<&str>) -> Answered {
    let request = Request::get(&format!("/v2/{path}?ns={HUB}"));
    let request = match token {
        Some(token) => request.header("Authorization", token),
        None => request,
    };
    mirror.send(request).await
}

/// Everything there is to ask for in `name`, and the code that says that it is not there.
fn everything(name: &str) -> Vec<(String, &'static str)> {
    let image = Image::new(2);
    let (manifest, layer) = (image.manifest.digest(), sha256(&image.blobs[0]));
    vec![
        (format!("{name}/manifests/v1"), "MANIFEST_UNKNOWN"),
        (format!("{name}/manifests/{manifest}"), "MANIFEST_UNKNOWN"),
        (format!("{name}/blobs/{layer}"), "BLOB_UNKNOWN"),
        (format!("{name}/tags/list"), "NAME_UNKNOWN"),
    ]
}

#[tokio::test]
async fn p2_hub_missing_repo() {
    let hub = hub().await;
    let mirror = mirror_of(HUB, &hub).await;
    // Who shows nothing might have something to show: the way to show it.
    let path = format!("{MISSING}/manifests/v1");
    let answer = ask(&mirror, &path, None).await;
    let expected = format!(
        r#"Bearer realm="{}",service="registry.docker.io",scope="repository:{MISSING}:pull""#,
        hub.url("/token")
    );
    assert_eq!(answer.header("WWW-Authenticate"), Some(&*expected));
    answer.expect_error(401, "UNAUTHORIZED");
    assert!(hub.requests("GET", "/token").len() <= 2, "one refresh");
    assert!(hub.requests("GET", "/v2/library/missing/*").len() <= 3);
    // With a token that is good, and not for this, 404 is the last word, for one question each.
    hub.forget();
    for (path, code) in everything(MISSING) {
        let answer = ask(&mirror, &path, Some(STRANGER)).await;
        answer.expect_error(404, code);
    }
    assert!(
        hub.log().len() <= everything(MISSING).len(),
        "{:?}",
        hub.log()
    );
    // And nobody else suffers.
    pulls(&mirror, HUB, "library/nginx", &Image::new(1)).await;
}

#[tokio::test]
async fn a_private_repository_of_the_hub_is_served_to_those_who_may_read_it_and_to_nobody_else() {
    let hub = hub().await;
    let mirror = mirror_of(HUB, &hub).await;
    for round in 0..2 {
        for (path, code) in everything(PRIVATE) {
            ask(&mirror, &path, Some(MEMBER)).await.expect(200);
            let answer = ask(&mirror, &path, None).await;
            answer.expect_error(401, "UNAUTHORIZED");
            let answer = ask(&mirror, &path, Some(STRANGER)).await;
            answer.expect_error(404, code);
            // A token that is over is renewed, not taken for the wrong one.
            let answer = ask(&mirror, &path, Some(EXPIRED)).await;
            answer.expect_error(401, "UNAUTHORIZED");
        }
        let layer = sha256(&Image::new(2).blobs[0]);
        mirror.wait_until_stored(&layer).await;
        // Once more, cached.
        hub.forget();
        assert!(round < 2);
    }
    // What it said to a stranger took nothing from the member: the bytes did not come a second time.
    assert_eq!(hub.body_bytes("/v2/team/app/blobs/*"), 0);
}

#[tokio::test]
async fn p2_hub_repository_that_goes_is_gone() {
    // With no right but the mirror's own to count on, Hub's word is the last, and 404 is what it means.
    for (access, status, code) in [
        ("access: shared", 404, "MANIFEST_UNKNOWN"),
        ("access: auto", 401, "UNAUTHORIZED"),
    ] {
        let hub = Upstream::start().await;
        let guard = Guard::bearer(&hub.url("/token"), "registry.docker.io");
        guard.stand(&hub, &hub, "/token");
        hub.put_image("library/goes", "v1", &Image::new(1));
        let mirror = Setup::new().upstream_with(HUB, &hub, access).start().await;
        let path = "library/goes/manifests/v1";
        ask(&mirror, path, None).await.expect(200);
        let realm = hub.url("/token");
        hub.rule(move |request: &Seen| {
            let (name, _, _) = request.parts()?;
            let challenge = format!(
                r#"Bearer realm="{realm}",service="registry.docker.io",scope="repository:{name}:pull",error="insufficient_scope""#
            );
            Some(Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", &challenge))
        });
        mirror.clock.advance(15 * 60 + 1);
        // Not stale: Hub has said so, in its way.
        ask(&mirror, path, None).await.expect_error(status, code);
        let asked = hub.log().len();
        ask(&mirror, path, None).await.expect_error(status, code);
        let is_remembered = hub.log().len() == asked;
        assert_eq!(is_remembered, status == 404, "404 for a moment, 401 never");
    }
}
