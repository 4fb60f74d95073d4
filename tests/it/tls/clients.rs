//! Clients that show certificates of their own.

use super::client::TlsClient;
use super::{files, listening, pair};
use crate::harness::client::Request;
use crate::harness::content::Image;
use crate::harness::log::Log;
use crate::harness::mirror::{Mirror, Setup};
use crate::harness::upstream::{Authority, Upstream};

const HOST: &str = "mirror.test";

async fn start(servers: &Authority, clients: &Authority, keys: &str) -> Mirror {
    let setup = Setup::new();
    let own = files(&setup, "own", &servers.certify(&[HOST]));
    let ca = setup.file("clients.pem", clients.pem());
    let keys = format!("{}, client_ca: '{}', {keys}", pair(&own), ca.display());
    listening(setup, &keys).start().await
}

async fn status(client: &TlsClient, mirror: &Mirror) -> Option<u16> {
    let request = Request::get("/v2/");
    let answer = client.send(mirror.addresses[1], HOST, &request).await;
    answer.map(|answer| answer.status)
}

#[tokio::test]
async fn where_certificates_are_required_nobody_comes_in_without_a_good_one() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let mirror = start(&servers, &clients, "").await;
    let known = clients.certify_client("ci");
    let known = TlsClient::with_certificate(&servers, &known);
    assert_eq!(status(&known, &mirror).await, Some(200));
    let nobody = TlsClient::new(&servers);
    assert_eq!(status(&nobody, &mirror).await, None);
    // Of another authority.
    let stranger = servers.certify_client("ci");
    let stranger = TlsClient::with_certificate(&servers, &stranger);
    assert_eq!(status(&stranger, &mirror).await, None);
    // Other listeners ask for none.
    mirror.get("/v2/").await.expect(200);
}

#[tokio::test]
async fn where_certificates_are_optional_a_bad_one_is_still_refused() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let mirror = start(&servers, &clients, "client_certificate: optional").await;
    let known = clients.certify_client("ci");
    let known = TlsClient::with_certificate(&servers, &known);
    assert_eq!(status(&known, &mirror).await, Some(200));
    let nobody = TlsClient::new(&servers);
    assert_eq!(status(&nobody, &mirror).await, Some(200));
    let stranger = servers.certify_client("ci");
    let stranger = TlsClient::with_certificate(&servers, &stranger);
    assert_eq!(status(&stranger, &mirror).await, None);
}

#[tokio::test]
async fn f42_a_certificate_out_of_its_time_lets_nobody_in_and_convinces_nobody() {
    let (servers, clients) = (Authority::new(), Authority::new());
    for (years, expected) in [
        ([2020, 2090], Some(200)),
        ([2020, 2021], None),
        ([2090, 2091], None),
    ] {
        let mirror = start(&servers, &clients, "").await;
        let client = clients.certify_client_between("ci", years);
        let client = TlsClient::with_certificate(&servers, &client);
        assert_eq!(status(&client, &mirror).await, expected, "{years:?}");
        let setup = Setup::new();
        let own = files(&setup, "own", &servers.certify_between(&[HOST], years));
        let mirror = listening(setup, &pair(&own)).start().await;
        let client = TlsClient::new(&servers);
        assert_eq!(status(&client, &mirror).await, expected, "{years:?}");
        // Nobody is talked into going on in plain.
        let plain = Request::get("/v2/").send(mirror.addresses[1]).await;
        assert_eq!(plain.status, 400, "{plain:?}");
    }
}

#[tokio::test]
async fn the_log_says_who_asked() {
    let (log, _guard) = Log::start();
    let (servers, clients) = (Authority::new(), Authority::new());
    let mirror = start(&servers, &clients, "").await;
    let identity = clients.certify_client("ci-runner");
    let client = TlsClient::with_certificate(&servers, &identity);
    assert_eq!(status(&client, &mirror).await, Some(200));
    assert!(log.text().contains("ci-runner"), "{}", log.text());
}

#[tokio::test]
async fn the_rules_know_a_client_by_its_certificate() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let upstream = Upstream::start().await;
    for name in ["team/app", "other/app"] {
        upstream.put_image(name, "v1", &Image::new(1));
    }
    let setup = Setup::new();
    let own = files(&setup, "own", &servers.certify(&[HOST]));
    let ca = setup.file("clients.pem", clients.pem());
    let keys = format!(
        "{}, client_ca: {ca:?}, client_certificate: optional",
        pair(&own)
    );
    let rules = "{ rules: [{ users: [ci], repositories: ['registry.example/team/**'] }] }";
    let setup = listening(setup, &keys).line(&format!("authentication: {rules}"));
    let setup = setup.upstream_with("registry.example", &upstream, "access: authenticated");
    let mirror = setup.start().await;
    let client = |name: &str| TlsClient::with_certificate(&servers, &clients.certify_client(name));
    let get = async |client: &TlsClient, name: &str| {
        let request = Request::get(&format!("/v2/{name}/manifests/v1"));
        let answer = client.send(mirror.addresses[1], HOST, &request).await;
        answer.expect("an answer").status
    };
    assert_eq!(get(&client("ci"), "team/app").await, 200);
    assert_eq!(get(&client("ci"), "other/app").await, 403);
    assert_eq!(get(&client("stranger"), "team/app").await, 403);
    assert_eq!(get(&TlsClient::new(&servers), "team/app").await, 401);
}
