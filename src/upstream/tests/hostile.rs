//! Registries that mean harm, or might as well.

use super::*;

#[tokio::test]
async fn a_head_of_any_size_is_read_to_a_limit_only() {
    let long = format!(
        "HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\n{{}}",
        "x".repeat(1 << 20)
    );
    let many = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\n{{}}",
        "X: y\r\n".repeat(10_000)
    );
    for answer in [long, many] {
        let address = hanging_up(answer).await;
        let repository = at("r.example", &[&format!("http://{address}")]).repository();
        let refused = repository.get_manifest(&latest()).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn trailers_without_end_do_not_come_in() {
    let trailers = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n{}",
        "X: y\r\n".repeat(100_000)
    );
    let address = hanging_up(trailers).await;
    let repository = at("r.example", &[&format!("http://{address}")]).repository();
    let refused = repository.get_manifest(&latest()).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
}

/// As [`raw`], for every connection, and for clients that do not hear it out.
async fn hanging_up(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn after_a_log_in_page_the_next_endpoint_is_asked() {
    let page = Fake::start(|_| {
        let headers = [("content-type", "Text/HTML; charset=utf-8")];
        reply(200, &headers, "<html>")
    })
    .await;
    let good = Fake::start(|_| reply(200, &[("content-type", "application/json")], "{}")).await;
    let missing = Fake::start(|_| reply(404, &[], "")).await;
    let neither = at("r.example", &[&page.url(), &missing.url()]).repository();
    let refused = neither.get_manifest(&latest()).await;
    assert!(matches!(refused, Err(Error::Protocol(_))), "{refused:?}");

    let both = at("r.example", &[&page.url(), &good.url()]).repository();
    let manifest = both.get_manifest(&latest()).await;
    assert_eq!(manifest.expect("a manifest").bytes, "{}");
    both.head_manifest(&latest()).await.expect("a head");
}

#[tokio::test]
async fn a_redirect_that_cannot_be_followed_is_trouble_of_the_registry() {
    let huge = format!("/{}", "x".repeat(20_000));
    for location in ["ftp://h/", "http://user:pw@127.0.0.1/", &huge, "http://"] {
        let location = location.to_owned();
        let fake = Fake::start(move |_| reply(307, &[("location", &location)], "")).await;
        let repository = at("r.example", &[&fake.url()]).repository();
        let refused = repository.get_manifest(&latest()).await;
        assert!(matches!(refused, Err(Error::Protocol(_))), "{refused:?}");
    }
    let fake = Fake::start(|_| reply(307, &[], "")).await;
    let repository = at("r.example", &[&fake.url()]).repository();
    let refused = repository.get_manifest(&latest()).await;
    assert!(matches!(refused, Err(Error::Protocol(_))), "{refused:?}");
}

#[tokio::test]
async fn a_realm_does_not_choose_what_a_token_is_for() {
    let fake = Fake::start(|seen| {
        if seen.target.starts_with("/token") {
            token("t")
        } else {
            unauthorized(r#"Bearer realm="/token?scope=repository:other/secret:pull""#)
        }
    })
    .await;
    let repository = at("r.example", &[&fake.url()])
        .with_credential()
        .repository();
    let refused = repository.get_manifest(&latest()).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_service_of_any_length_is_not_sent_on() {
    let long = "s".repeat(5000);
    let fake = Fake::start(move |seen| {
        if seen.target.starts_with("/token") {
            token("t")
        } else if seen.shows("Bearer t") {
            reply(200, &[], "{}")
        } else {
            unauthorized(&format!(r#"Bearer realm="/token",service="{long}""#))
        }
    })
    .await;
    let repository = at("r.example", &[&fake.url()]).repository();
    repository
        .get_manifest(&latest())
        .await
        .expect("a manifest");
    assert_eq!(fake.log()[1], "GET /token?scope=repository%3Aa%2Fb%3Apull");
}
