//! ghcr.io: a placeholder for a scope, and stale tokens of people.

use super::{mirror_of, pulls};
use crate::harness::content::Image;
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Guard, Upstream};

const GHCR: &str = "ghcr.io";

#[tokio::test]
async fn p12_ghcr_placeholder() {
    let ghcr = Upstream::start().await;
    let image = Image::new(1);
    ghcr.put_image("owner/app", "v1", &image);
    let realm = ghcr.url("/token");
    let guard = Guard::challenging(move |_| {
        let scope = "repository:user/image:pull";
        vec![format!(
            r#"Bearer realm="{realm}",service="ghcr.io",scope="{scope}""#
        )]
    })
    .issuing(|request, token| {
        let exact = request.query("scope") == ["repository:owner/app:pull"];
        let body = serde_json::json!({ "token": token });
        if exact {
            Answer::ok("application/json", body.to_string())
        } else {
            Answer::error(403, "DENIED")
        }
    });
    guard.stand(&ghcr, &ghcr, "/token");
    let mirror = mirror_of(GHCR, &ghcr).await;
    pulls(&mirror, GHCR, "owner/app", &image).await;
}

#[tokio::test]
async fn p13_ghcr_pat_stale() {
    let ghcr = Upstream::start().await;
    let image = Image::new(1);
    ghcr.put_image("owner/app", "v1", &image);
    let guard = Guard::bearer(&ghcr.url("/token"), GHCR).issuing(|request, token| {
        let body = serde_json::json!({ "token": token });
        match request.header("Authorization") {
            Some(_) => Answer::error(403, "DENIED"),
            None => Answer::ok("application/json", body.to_string()),
        }
    });
    guard.stand(&ghcr, &ghcr, "/token");
    let setup = Setup::new().upstream(GHCR, &ghcr);
    let credentials = "ghcr.io: { username: somebody, password: ghp_stale }\n";
    let mirror = setup.credentials(credentials).start().await;
    // A public image does not need the credential that is refused.
    pulls(&mirror, GHCR, "owner/app", &image).await;
}

#[tokio::test]
async fn private_and_missing_look_alike() {
    let ghcr = Upstream::start().await;
    ghcr.put_image("owner/app", "v1", &Image::new(1));
    let guard = Guard::bearer(&ghcr.url("/token"), GHCR).issuing(|request, token| {
        let private = request.query("scope") != ["repository:owner/app:pull"];
        let body = serde_json::json!({ "token": token });
        if private {
            Answer::error(403, "DENIED")
        } else {
            Answer::ok("application/json", body.to_string())
        }
    });
    guard.stand(&ghcr, &ghcr, "/token");
    let mirror = mirror_of(GHCR, &ghcr).await;
    let private = "/v2/owner/private/manifests/v1?ns=ghcr.io";
    let answer = mirror.get(private).await;
    let challenge = answer.header("WWW-Authenticate").unwrap_or_default();
    assert!(
        challenge.contains("repository:owner/private:pull"),
        "{answer:?}"
    );
    answer.expect_error(401, "UNAUTHORIZED");
    // Asking for one that is refused spoils nothing for the other.
    pulls(&mirror, GHCR, "owner/app", &Image::new(1)).await;
}
