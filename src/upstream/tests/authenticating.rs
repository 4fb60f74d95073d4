//! Challenges, tokens, credentials.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A registry that wants the token `t<n>` for the current `n`, issues that at its own `/token`, and holds every tag.
struct Guarded {
    fake: Fake,
    current: Arc<AtomicU32>,
}

impl Guarded {
    /// `challenge` makes the challenge for a request that showed, or did not show, an outdated token.
    async fn start(challenge: fn(shown: bool) -> String) -> Self {
        let current = Arc::new(AtomicU32::new(1));
        let n = Arc::clone(&current);
        let fake = Fake::start(move |seen| {
            let good = format!("t{}", n.load(Ordering::Relaxed));
            if seen.target.starts_with("/token") {
                token(&good)
            } else if seen.shows(&format!("Bearer {good}")) {
                reply(200, &[("content-type", "application/json")], "{}")
            } else {
                unauthorized(&challenge(seen.authorization.is_some()))
            }
        });
        Self {
            fake: fake.await,
            current,
        }
    }

    fn revoke(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }
}

fn own_realm(_: bool) -> String {
    r#"Bearer realm="/token",service="s",scope="repository:other/secret:pull,push""#.to_owned()
}

const MANIFEST: &str = "GET /v2/a/b/manifests/latest";
const TOKEN: &str = "GET /token?service=s&scope=repository%3Aa%2Fb%3Apull";

#[tokio::test]
async fn many_callers_cost_one_token_of_our_own_scope() {
    let registry = Guarded::start(own_realm).await;
    let repository = at("r.example", &[&registry.fake.url()]).repository();
    let reference = latest();
    let all = (0..16).map(|_| repository.get_manifest(&reference));
    for outcome in futures_util::future::join_all(all).await {
        assert_eq!(outcome.expect("a manifest").bytes, "{}");
    }
    let log = registry.fake.log();
    let tokens = log.iter().filter(|line| *line == TOKEN).count();
    assert_eq!(tokens, 1, "{log:?}");
}

#[tokio::test]
async fn what_was_asked_for_once_is_brought_along_later() {
    let registry = Guarded::start(own_realm).await;
    let repository = at("r.example", &[&registry.fake.url()]).repository();
    for _ in 0..3 {
        repository
            .get_manifest(&latest())
            .await
            .expect("a manifest");
    }
    let expected = [MANIFEST, TOKEN, MANIFEST, MANIFEST, MANIFEST];
    assert_eq!(registry.fake.log(), expected);
}

#[tokio::test]
async fn a_revoked_token_is_renewed_once() {
    let registry = Guarded::start(own_realm).await;
    let repository = at("r.example", &[&registry.fake.url()]).repository();
    repository
        .get_manifest(&latest())
        .await
        .expect("a manifest");
    registry.revoke();
    repository
        .get_manifest(&latest())
        .await
        .expect("a manifest");
    let expected = [MANIFEST, TOKEN, MANIFEST, MANIFEST, TOKEN, MANIFEST];
    assert_eq!(registry.fake.log(), expected);
}

#[tokio::test]
async fn an_expired_token_that_meets_a_challenge_for_a_password_starts_over() {
    // Harbor.
    let registry = Guarded::start(|shown| {
        if shown {
            r#"Basic realm="harbor""#.to_owned()
        } else {
            own_realm(shown)
        }
    })
    .await;
    let repository = at("r.example", &[&registry.fake.url()]).repository();
    repository
        .get_manifest(&latest())
        .await
        .expect("a manifest");
    registry.revoke();
    repository
        .get_manifest(&latest())
        .await
        .expect("a manifest");
    let seen = registry.fake.seen();
    let shown: Vec<_> = seen
        .iter()
        .map(|seen| seen.authorization.as_deref())
        .collect();
    assert_eq!(
        shown,
        [
            None,
            None,
            Some("Bearer t1"),
            Some("Bearer t1"),
            None,
            None,
            Some("Bearer t2")
        ]
    );
}

#[tokio::test]
async fn a_second_refusal_is_final() {
    let fake = Fake::start(|seen| {
        if seen.target.starts_with("/token") {
            token("useless")
        } else {
            unauthorized(&own_realm(false))
        }
    })
    .await;
    let denied = at("r.example", &[&fake.url()]).repository();
    let denied = denied.get_manifest(&latest()).await;
    assert!(matches!(denied, Err(Error::Denied(_))), "{denied:?}");
    assert_eq!(fake.log(), [MANIFEST, TOKEN, MANIFEST]);
}

#[tokio::test]
async fn on_docker_hub_a_second_refusal_means_that_there_is_no_such_repository() {
    let fake = Fake::start(|seen| {
        if seen.target.starts_with("/token") {
            token("useless")
        } else {
            unauthorized(&format!(
                "{},error=\"insufficient_scope\"",
                own_realm(false)
            ))
        }
    })
    .await;
    let known = at("docker.io", &[&fake.url()]).with_credential();
    let repository = known.repository();
    let missing = repository.get_manifest(&latest()).await;
    assert!(matches!(missing, Err(Error::NotFound)), "{missing:?}");
    let missing = repository.head_blob(&digest_of("x")).await;
    assert!(matches!(missing, Err(Error::NotFound)), "{missing:?}");
    // Without a right of the mirror's own, a caller may have one.
    let repository = at("docker.io", &[&fake.url()]).repository();
    let denied = repository.get_manifest(&latest()).await;
    assert!(
        matches!(&denied, Err(Error::Denied(denial)) if denial.challenge().is_some()),
        "{denied:?}"
    );
}

#[tokio::test]
async fn a_password_is_sent_where_one_is_asked_for() {
    let fake = Fake::start(|seen| {
        if seen.shows(BASIC) {
            reply(200, &[], "{}")
        } else {
            unauthorized(r#"BASIC realm="Sonatype Nexus Repository Manager""#)
        }
    })
    .await;
    let anonymous = at("r.example", &[&fake.url()]).repository();
    let denied = anonymous.get_manifest(&latest()).await;
    assert!(matches!(denied, Err(Error::Denied(_))), "{denied:?}");
    assert_eq!(fake.seen().len(), 1);

    let known = at("r.example", &[&fake.url()])
        .with_credential()
        .repository();
    known.get_manifest(&latest()).await.expect("a manifest");
    known.get_manifest(&latest()).await.expect("a manifest");
    assert_eq!(fake.seen().len(), 4);
}

#[tokio::test]
async fn a_wrong_password_is_sent_once() {
    let fake = Fake::start(|_| unauthorized("Basic")).await;
    let repository = at("r.example", &[&fake.url()])
        .with_credential()
        .repository();
    let denied = repository.get_manifest(&latest()).await;
    assert!(
        matches!(&denied, Err(Error::Denied(reason)) if reason.reason().contains("credential")),
        "{denied:?}"
    );
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn a_stale_credential_does_not_keep_public_images_away() {
    // ghcr.io.
    let fake = Fake::start(|seen| {
        match (
            seen.target.starts_with("/token"),
            seen.authorization.as_deref(),
        ) {
            (true, Some(BASIC)) => reply(403, &[], r#"{"errors":[{"code":"DENIED"}]}"#),
            (true, _) => token("anonymous"),
            (false, Some("Bearer anonymous")) if seen.target.ends_with("latest") => {
                reply(200, &[], "{}")
            }
            (false, Some("Bearer anonymous")) => reply(403, &[], ""),
            (false, _) => unauthorized(&own_realm(false)),
        }
    })
    .await;
    let repository = at("r.example", &[&fake.url()])
        .with_credential()
        .repository();
    repository
        .get_manifest(&latest())
        .await
        .expect("a manifest");
    let private = Reference::Tag("private".parse().expect("a tag"));
    let denied = repository.get_manifest(&private).await;
    assert!(
        matches!(&denied, Err(Error::Denied(reason)) if reason.reason().contains("credential")),
        "{denied:?}"
    );
}

#[tokio::test]
async fn no_foreign_realm_is_asked() {
    let issuer = Fake::start(|_| token("t")).await;
    // The same machine by another name: another host.
    let realm = format!("http://localhost:{}/token", issuer.address.port());
    let fake = Fake::start(move |_| unauthorized(&format!("Bearer realm=\"{realm}\""))).await;
    let repository = at("r.example", &[&fake.url()])
        .with_credential()
        .repository();
    let refused = repository.get_manifest(&latest()).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    assert_eq!(issuer.seen().len(), 0);
}

#[tokio::test]
async fn a_token_endpoint_that_redirects_is_not_followed() {
    let elsewhere = Fake::start(|_| token("t")).await;
    let location = elsewhere.url();
    let fake = Fake::start(move |seen| {
        if seen.target.starts_with("/token") {
            reply(302, &[("location", &location)], "")
        } else {
            unauthorized(&own_realm(false))
        }
    })
    .await;
    let repository = at("r.example", &[&fake.url()])
        .with_credential()
        .repository();
    let refused = repository.get_manifest(&latest()).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    assert_eq!(elsewhere.seen().len(), 0);
}

#[tokio::test]
async fn a_token_answer_of_any_size_is_read_to_its_limit_only() {
    let fake = Fake::start(|seen| {
        if seen.target.starts_with("/token") {
            token(&"x".repeat(100_000))
        } else {
            unauthorized(&own_realm(false))
        }
    })
    .await;
    let repository = at("r.example", &[&fake.url()]).repository();
    let refused = repository.get_manifest(&latest()).await;
    assert!(
        matches!(refused, Err(Error::TooLarge { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_password_that_has_expired_is_told_from_one_that_was_never_right() {
    // Amazon's private registries.
    let fake = Fake::start(|seen| match seen.authorization {
        Some(_) => {
            let message = "Your authorization token has expired. Reauthenticate and try again.";
            let body = format!(r#"{{"errors":[{{"code":"DENIED","message":"{message}"}}]}}"#);
            reply(403, &[], &body)
        }
        None => unauthorized(r#"Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/""#),
    })
    .await;
    let repository = at("r.example", &[&fake.url()])
        .with_credential()
        .repository();
    let denied = repository.get_manifest(&latest()).await;
    assert!(
        matches!(&denied, Err(Error::Denied(reason)) if reason.reason().contains("expired")),
        "{denied:?}"
    );
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn one_token_of_the_public_registry_of_amazon_reads_every_repository() {
    let fake = Fake::start(|seen| match (&*seen.method, seen.target.split_once('?')) {
        (_, Some(("/token/", query))) => {
            assert_eq!(query, "service=public.ecr.aws&scope=aws");
            token("t")
        }
        ("GET", None) if seen.shows("Bearer t") => reply(200, &[], "{}"),
        (_, _) => unauthorized(r#"Bearer realm="/token/",service="public.ecr.aws",scope="aws""#),
    })
    .await;
    let upstreams = at("public.ecr.aws", &[&fake.url()]).upstreams();
    let repository = upstreams.a_b("public.ecr.aws");
    repository
        .get_manifest(&latest())
        .await
        .expect("a manifest");
    // HEAD on a blob is 401 there, with any token: it is not tried.
    let size = repository.head_blob(&digest_of("{}")).await;
    assert_eq!(size.expect("a size"), 2);
    let name = "c/d".parse().expect("a name");
    let other = upstreams.repository(repository.namespace(), &name, &Via::default());
    other.get_manifest(&latest()).await.expect("a manifest");
    let log = fake.log();
    let tokens = log.iter().filter(|line| line.contains("/token/"));
    assert_eq!(tokens.count(), 1, "{log:?}");
}
