//! Through the proxies of the environment.

use super::*;

/// What `proxy-user:proxy-password` looks like on its way.
const PROXY_BASIC: &str = "Basic cHJveHktdXNlcjpwcm94eS1wYXNzd29yZA==";

/// A proxy on loopback: whatever it is asked for, it gets from one registry.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    tunnelled: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    async fn start(registry: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = Self {
            address: listener.local_addr().expect("an address"),
            heads: Arc::default(),
            tunnelled: Arc::default(),
        };
        let (heads, tunnelled) = (Arc::clone(&proxy.heads), Arc::clone(&proxy.tunnelled));
        spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (heads, tunnelled) = (Arc::clone(&heads), Arc::clone(&tunnelled));
                spawn(async move {
                    let head = String::from_utf8(read_head(&mut client).await).expect("text");
                    heads.lock().expect("no panic").push(head.clone());
                    let server = TcpStream::connect(registry).await.expect("the registry");
                    if head.starts_with("CONNECT ") {
                        let opened = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                        opened.expect("sent");
                        tunnel(client, server, &tunnelled).await;
                    } else {
                        forward(client, server, &head).await;
                    }
                });
            }
        });
        proxy
    }

    fn url(&self) -> String {
        format!("http://proxy-user:proxy-password@{}", self.address)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }

    /// The first lines of the requests.
    fn log(&self) -> Vec<String> {
        let lines = |head: String| head.lines().next().unwrap_or_default().to_owned();
        self.heads().into_iter().map(lines).collect()
    }
}

/// Carries bytes both ways, and keeps those of the client. Either side may hang up.
async fn tunnel(client: TcpStream, server: TcpStream, tunnelled: &Mutex<Vec<u8>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        let mut buffer = vec![0; 4096];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            tunnelled.lock().expect("no panic").extend(&buffer[..n]);
            if to_server.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    let back = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        () = there => {}
        _ = back => {}
    }
}

/// Passes one request on as a proxy does, and the answer back.
async fn forward(mut client: TcpStream, mut server: TcpStream, head: &str) {
    let (line, fields) = head.split_once("\r\n").expect("a line");
    let (method, rest) = line.split_once(" http://").expect("an absolute form");
    let (_, path) = rest.split_once('/').expect("a path");
    let kept = fields
        .lines()
        .filter(|field| !field.is_empty() && !field.starts_with("proxy-"))
        .map(|field| format!("{field}\r\n"));
    let kept: String = kept.collect();
    let head = format!("{method} /{path}\r\n{kept}connection: close\r\n\r\n");
    server.write_all(head.as_bytes()).await.expect("sent");
    let _ = tokio::io::copy(&mut server, &mut client).await;
}

fn by(proxy: &Proxy, mut setup: Setup) -> Setup {
    setup.config.proxies.http = proxy.url();
    setup.config.proxies.https = proxy.url();
    setup
}

/// A registry that wants a token, and issues it to `user:password`.
fn wanting(seen: &Seen) -> Reply {
    if seen.target.starts_with("/token") {
        let is_known = seen.shows(BASIC);
        return if is_known {
            token("t")
        } else {
            reply(401, &[], "")
        };
    }
    if seen.shows("Bearer t") {
        reply(200, &[], "{}")
    } else {
        unauthorized(r#"Bearer realm="/token""#)
    }
}

#[tokio::test]
async fn plain_http_is_asked_by_the_proxy_which_keeps_its_password() {
    let fake = Fake::start(|_| reply(200, &[], "{}")).await;
    let proxy = Proxy::start(fake.address).await;
    // No such name: only the proxy knows the way.
    let setup = by(&proxy, at("r.example", &["http://registry.example:5000"]));
    let manifest = setup.repository().get_manifest(&latest()).await;
    assert_eq!(manifest.expect("a manifest").bytes, "{}");
    let line = "GET http://registry.example:5000/v2/a/b/manifests/latest HTTP/1.1";
    assert_eq!(proxy.log(), [line]);
    let password = format!("proxy-authorization: {PROXY_BASIC}");
    assert!(proxy.heads()[0].contains(&password), "{:?}", proxy.heads());
    assert_eq!(fake.seen()[0].proxy_authorization, None);
}

#[tokio::test]
async fn https_is_tunnelled_and_neither_side_sees_the_password_of_the_other() {
    let (fake, authority) = Fake::certified("registry.example", wanting).await;
    let proxy = Proxy::start(fake.address).await;
    let setup = by(&proxy, at("r.example", &["https://registry.example"]));
    let upstreams = setup.with_credential().trusting(&authority);
    let manifest = upstreams.a_b("r.example").get_manifest(&latest()).await;
    assert_eq!(manifest.expect("a manifest").bytes, "{}");

    assert!(fake.seen().iter().any(|seen| seen.shows(BASIC)));
    let mut seen = fake.seen().into_iter();
    assert!(seen.all(|seen| seen.proxy_authorization.is_none()));

    for head in proxy.heads() {
        assert!(head.starts_with("CONNECT registry.example:443 HTTP/1.1"));
        assert!(head.contains(PROXY_BASIC), "{head}");
        assert!(!head.contains("\nauthorization"), "{head}");
    }
    let tunnelled = proxy.tunnelled.lock().expect("no panic").clone();
    let tunnelled = String::from_utf8_lossy(&tunnelled).into_owned();
    assert!(!tunnelled.is_empty());
    for secret in [BASIC, "Bearer", PROXY_BASIC, "manifests"] {
        assert!(!tunnelled.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn what_no_proxy_lists_is_asked_directly_and_does_not_see_the_password_of_the_proxy() {
    let fake = Fake::start(|_| reply(200, &[], "{}")).await;
    let proxy = Proxy::start(fake.address).await;
    let port = fake.address.port();
    for (host, no) in [
        ("127.0.0.1", "10.0.0.0/8, 127.0.0.0/8"),
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "registry.example,localhost"),
        ("localhost", "*"),
    ] {
        let mut setup = by(&proxy, at("r.example", &[&format!("http://{host}:{port}")]));
        setup.config.proxies.no = no.to_owned();
        let manifest = setup.repository().get_manifest(&latest()).await;
        assert!(manifest.is_ok(), "{host} {no} {manifest:?}");
    }
    assert_eq!(proxy.log(), [""; 0]);
    assert_eq!(fake.seen().len(), 4);
    let mut seen = fake.seen().into_iter();
    assert!(seen.all(|seen| seen.proxy_authorization.is_none()));
}

#[tokio::test]
async fn the_proxy_hears_nothing_of_internal_names_that_nobody_configured() {
    let (fake, authority) = Fake::certified("registry.example.com", |seen| {
        let location = |to| reply(307, &[("location", to)], "");
        match seen.target.rsplit('/').next().expect("a part") {
            "inside" => location("https://10.0.0.7/v2/"),
            "metadata" => location("https://metadata.google.internal/token"),
            "service" => location("https://registry.default.svc/v2/"),
            "short" => location("https://registry/v2/"),
            "realm" => unauthorized(r#"Bearer realm="https://169.254.169.254/token""#),
            _ => reply(200, &[], "{}"),
        }
    })
    .await;
    let proxy = Proxy::start(fake.address).await;
    let setup = by(&proxy, at("r.example", &["http://127.0.0.1:1"]));
    let upstreams = setup.trusting(&authority);
    for namespace in [
        "127.0.0.1:5000",
        "10.0.0.7",
        "[::1]:443",
        "169.254.169.254",
        "localhost:5000",
        "registry",
        "registry:5000",
        "registry.default.svc",
        "registry.svc.cluster.local",
        "metadata.google.internal",
    ] {
        let refused = upstreams.a_b(namespace).get_manifest(&latest()).await;
        assert!(
            matches!(refused, Err(Error::Refused(_))),
            "{namespace} {refused:?}"
        );
    }
    assert_eq!(proxy.log(), [""; 0]);

    // A public name is the proxy's to resolve; where that leads on to is not.
    let public = upstreams.a_b("registry.example.com");
    for tag in ["inside", "metadata", "service", "short", "realm"] {
        let tag = Reference::Tag(tag.parse().expect("a tag"));
        let refused = public.get_manifest(&tag).await;
        assert!(
            matches!(refused, Err(Error::Refused(_))),
            "{tag} {refused:?}"
        );
    }
    let manifest = public.get_manifest(&latest()).await;
    assert_eq!(manifest.expect("a manifest").bytes, "{}");
    for line in proxy.log() {
        assert_eq!(line, "CONNECT registry.example.com:443 HTTP/1.1");
    }
}

#[tokio::test]
async fn the_proxy_itself_may_be_private_however_its_name_is_written() {
    let (fake, authority) =
        Fake::certified("registry.example.com", |_| reply(200, &[], "{}")).await;
    let proxy = Proxy::start(fake.address).await;
    for host in ["localhost", "LocalHost"] {
        let mut setup = at("r.example", &["http://127.0.0.1:1"]);
        setup.config.proxies.all = format!("{host}:{}", proxy.address.port());
        let public = setup.trusting(&authority).a_b("registry.example.com");
        let manifest = public.get_manifest(&latest()).await;
        assert_eq!(manifest.expect(host).bytes, "{}");
    }
    assert_eq!(proxy.log().len(), 2);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_trouble_and_says_nothing_of_the_image() {
    let no = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
    let proxy = raw(vec![no; 2]).await;
    for endpoint in ["http://registry.example", "https://registry.example"] {
        let mut setup = at("r.example", &[endpoint]);
        setup.config.proxies.all = format!("http://{proxy}");
        let outcome = setup.repository().get_manifest(&latest()).await;
        let error = outcome.expect_err("refused");
        assert!(error.is_trouble(), "{error:?}");
    }
}
