//! Manifests, endpoints in order, trust.

use super::*;

#[tokio::test]
async fn a_head_says_what_it_says() {
    let digest = digest_of("{}");
    let stated = digest.to_string();
    let fake = Fake::start(move |_| {
        let headers = [
            (
                "content-type",
                "application/vnd.oci.image.index.v1+json; x=y",
            ),
            ("docker-content-digest", &*stated),
        ];
        reply(200, &headers, "{}")
    })
    .await;
    let repository = at("r.example", &[&fake.url()]).repository();
    let head = repository.head_manifest(&latest()).await.expect("a head");
    let media_type = "application/vnd.oci.image.index.v1+json".parse().ok();
    let expected = ManifestHead {
        media_type,
        digest: Some(digest),
        size: Some(2),
    };
    assert_eq!(head, expected);
}

#[tokio::test]
async fn where_head_is_not_answered_get_is_asked_and_hashed() {
    let fake = Fake::start(|seen| match &*seen.method {
        "HEAD" => reply(405, &[], ""),
        _ => reply(200, &[("content-type", "application/json")], "{}"),
    })
    .await;
    let get = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let dropping = raw(vec!["", "", get]).await;
    for url in [fake.url(), format!("http://{dropping}")] {
        let repository = at("r.example", &[&url]).repository();
        let head = repository.head_manifest(&latest()).await.expect("a head");
        assert_eq!((head.digest, head.size), (Some(digest_of("{}")), Some(2)));
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_in_the_moment_of_use_costs_nothing() {
    let get = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let address = raw(vec!["", get]).await;
    let repository = at("r.example", &[&format!("http://{address}")]).repository();
    repository
        .get_manifest(&latest())
        .await
        .expect("a manifest");
}

#[tokio::test]
async fn no_manifest_is_larger_than_8_mib() {
    let large = "x".repeat(8 * 1024 * 1024 + 1);
    let fake = Fake::start(move |_| reply(200, &[], &large)).await;
    let repository = at("r.example", &[&fake.url()]).repository();
    let refused = repository.get_manifest(&latest()).await;
    assert!(
        matches!(refused, Err(Error::TooLarge { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn endpoints_are_asked_in_order_and_only_all_together_say_not_found() {
    let missing = Fake::start(|_| reply(404, &[], "")).await;
    let broken = Fake::start(|_| reply(503, &[], "")).await;
    let limited = Fake::start(|_| reply(429, &[("retry-after", "7")], "")).await;
    let denying = Fake::start(|_| reply(403, &[], "")).await;
    let good = Fake::start(|_| reply(200, &[], "{}")).await;
    let check = async |fakes: &[&Fake], expected: &str| {
        let urls: Vec<_> = fakes.iter().map(|fake| fake.url()).collect();
        let urls: Vec<_> = urls.iter().map(|url| &**url).collect();
        let outcome = at("r.example", &urls)
            .repository()
            .get_manifest(&latest())
            .await;
        let outcome = outcome.map_or_else(|error| error.as_str(), |_| "found");
        assert_eq!(outcome, expected);
    };
    check(&[&missing, &good], "found").await;
    check(&[&broken, &limited, &good], "found").await;
    check(&[&missing, &missing], "not_found").await;
    check(&[&missing, &broken], "unavailable").await;
    check(&[&limited, &missing], "rate_limited").await;
    check(&[&denying, &good], "denied").await;
}

#[tokio::test]
async fn nobody_at_home_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let outcome = at("r.example", &[&url])
        .repository()
        .get_manifest(&latest())
        .await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_certificate_is_trusted_where_its_authority_is_configured() {
    let (fake, authority) = Fake::certified("127.0.0.1", |_| reply(200, &[], "{}")).await;
    let url = format!("https://{}", fake.address);

    let stranger = at("r.example", &[&url]).repository();
    let refused = stranger.get_manifest(&latest()).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert_eq!(fake.seen().len(), 0);

    let mut setup = at("r.example", &[&url]);
    setup.config.upstreams[0].ca = Some(authority.into_bytes().into());
    let outcome = setup.repository().get_manifest(&latest()).await;
    assert_eq!(outcome.expect("a manifest").bytes, "{}");
}
