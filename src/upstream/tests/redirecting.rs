//! Redirects, and the hosts that nobody configured.

use super::*;

const BLOB: &str = "some blob";

/// A host that holds the blob at every URL and takes no credential.
async fn cdn() -> Fake {
    Fake::start(|seen| match seen.authorization {
        None => reply(200, &[], BLOB),
        Some(_) => reply(400, &[], "InvalidArgument"),
    })
    .await
}

async fn read(repository: &Repository) -> Result<String, Error> {
    let mut stream = repository.get_blob(&digest_of(BLOB), Extent::Whole).await?;
    let mut content = Vec::new();
    while let Some(chunk) = stream.chunk().await? {
        content.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(content).expect("text"))
}

#[tokio::test]
async fn a_credential_stays_behind_and_the_url_arrives_as_it_was_signed() {
    let cdn = cdn().await;
    let target = "/shard//docker/sha256%3Aabc/data?se=2024-07-17T23%3A35%3A00Z&sig=a%2Bb%3D";
    let location = format!("{}{target}", cdn.url());
    let fake = Fake::start(move |seen| {
        if seen.shows(BASIC) {
            reply(307, &[("location", &location)], "<a>")
        } else {
            unauthorized("Basic")
        }
    })
    .await;
    let repository = at("r.example", &[&fake.url()])
        .with_credential()
        .repository();
    assert_eq!(read(&repository).await.expect("a blob"), BLOB);
    assert_eq!(cdn.log(), [format!("GET {target}")]);
}

#[tokio::test]
async fn a_credential_is_not_picked_up_again_on_the_way_back() {
    let home = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let back = format!("http://{}/back", home.local_addr().expect("an address"));
    let elsewhere = Fake::start(move |_| reply(307, &[("location", &back)], "")).await;
    let away = elsewhere.url();
    let fake = Fake::serve(home, None, move |seen| match seen.target.as_str() {
        "/back" => reply(200, &[], BLOB),
        _ if seen.shows(BASIC) => reply(307, &[("location", &away)], ""),
        _ => unauthorized("Basic"),
    });
    let repository = at("r.example", &[&fake.url()])
        .with_credential()
        .repository();
    assert_eq!(read(&repository).await.expect("a blob"), BLOB);
    assert_eq!(fake.seen().last().expect("asked").authorization, None);
    assert_eq!(elsewhere.seen()[0].authorization, None);
}

#[tokio::test]
async fn a_relative_redirect_keeps_its_host_and_the_credential() {
    let fake = Fake::start(|seen| match (seen.shows(BASIC), seen.target.as_str()) {
        (true, "/artifacts-downloads/x?y") => reply(200, &[], BLOB),
        (true, _) => reply(302, &[("location", "/artifacts-downloads/x?y")], ""),
        (false, _) => unauthorized("Basic"),
    })
    .await;
    let repository = at("r.example", &[&fake.url()])
        .with_credential()
        .repository();
    assert_eq!(read(&repository).await.expect("a blob"), BLOB);
}

#[tokio::test]
async fn a_circle_of_redirects_ends() {
    let fake = Fake::start(|_| reply(307, &[("location", "/again")], "")).await;
    let endless = read(&at("r.example", &[&fake.url()]).repository()).await;
    assert!(matches!(endless, Err(Error::Protocol(_))), "{endless:?}");
    assert_eq!(fake.seen().len(), 6);
}

#[tokio::test]
async fn a_second_registry_gets_an_anonymous_token_of_its_own() {
    // registry.k8s.io, with a back end that wants to know who asks.
    let second = Fake::start(|seen| match seen.target.split_once('?') {
        Some(("/token", query)) => {
            assert_eq!(query, "scope=repository%3Aprod%2Fimages%2Fb%3Apull");
            token("visitor")
        }
        _ if seen.shows("Bearer visitor") => reply(200, &[], "{}"),
        _ => unauthorized(r#"Bearer realm="/token""#),
    })
    .await;
    let location = format!("{}/v2/prod/images/b/manifests/latest", second.url());
    let fake = Fake::start(move |_| reply(307, &[("location", &location)], "")).await;
    let repository = at("r.example", &[&fake.url()])
        .with_credential()
        .repository();
    for _ in 0..2 {
        repository
            .get_manifest(&latest())
            .await
            .expect("a manifest");
    }
    let shown: Vec<_> = second
        .seen()
        .into_iter()
        .map(|seen| seen.authorization)
        .collect();
    let once = [None, None, Some("Bearer visitor".to_owned())];
    assert_eq!(shown, [once.clone(), once].concat());
    assert!(fake.seen().iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn an_expired_url_is_asked_for_again_at_the_registry() {
    let expired = Fake::start(|_| reply(403, &[], "<Error>Request has expired</Error>")).await;
    let good = cdn().await;
    let locations = Mutex::new(vec![good.url(), expired.url()]);
    let fake = Fake::start(move |_| {
        let location = locations.lock().expect("no panic").pop();
        reply(307, &[("location", &location.expect("asked twice"))], "")
    })
    .await;
    let repository = at("r.example", &[&fake.url()]).repository();
    assert_eq!(read(&repository).await.expect("a blob"), BLOB);
    assert_eq!((expired.seen().len(), good.seen().len()), (1, 1));
}

#[tokio::test]
async fn what_nobody_configured_is_not_asked_on_this_machine() {
    let fake = cdn().await;
    let upstreams = at("r.example", &[&fake.url()]).upstreams();
    let port = fake.address.port();
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
    ] {
        let repository = upstreams.a_b(&host);
        assert!(!upstreams.directory().serves(repository.namespace()));
        let refused = read(&repository).await;
        assert!(
            matches!(refused, Err(Error::Refused(_))),
            "{host} {refused:?}"
        );
    }
    assert_eq!(fake.seen().len(), 0);
}

#[tokio::test]
async fn a_request_that_comes_back_is_refused() {
    let fake = cdn().await;
    let upstreams = at("r.example", &[&fake.url()]).upstreams();
    let (namespace, name) = (
        "r.example".parse().expect("fits"),
        "a/b".parse().expect("fits"),
    );
    let chain = HeaderValue::from_static("1.1 other");
    let via = Via::parse([&chain]);
    assert!(!upstreams.is_circle(&via));
    read(&upstreams.repository(&namespace, &name, &via))
        .await
        .expect("a blob");
    let sent = fake.seen()[0].via.clone().expect("Via is sent");
    assert_eq!(sent, format!("1.1 other, 1.1 {}", upstreams.own_via()));

    let via = Via::parse([&sent.parse().expect("a value")]);
    assert!(upstreams.is_circle(&via));
    let refused = read(&upstreams.repository(&namespace, &name, &via)).await;
    assert!(matches!(refused, Err(Error::Loop)), "{refused:?}");
    assert_eq!(fake.seen().len(), 1);
}
