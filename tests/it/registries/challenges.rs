//! The zoo of challenges (registries.md section 0.1), and a challenge where none is due.

use super::{mirror_of, pulls};
use crate::harness::content::Image;
use crate::harness::upstream::{Answer, Guard, Seen, Upstream};

const REGISTRY: &str = "registry.example";

/// Challenge lines; `{R}` and `{H}` stand for those of the registry, `|` parts lines.
const ZOO: &[(&str, &str)] = &[
    ("C1", r#"Bearer realm="{R}",service="registry.docker.io""#),
    (
        "C2",
        r#"Bearer realm="{R}",service="x",scope="repository:team/app:pull""#,
    ),
    (
        "C3",
        r#"Bearer realm="{R}",service="ghcr.io",scope="repository:user/image:pull""#,
    ),
    (
        "C4",
        r#"Bearer realm="{R}",scope="repository:team/app:pull""#,
    ),
    ("C5", r#"Bearer realm="{R}",service="x",scope="""#),
    (
        "C6",
        r#"Bearer realm="{R}",service="public.ecr.aws",scope="aws""#,
    ),
    (
        "C7",
        r#"Bearer realm="{R}",service="container_registry",scope="*",Basic realm="http://{H}/v2",service="container_registry",scope="*""#,
    ),
    (
        "C8",
        r#"Negotiate|Basic realm="x"|Bearer realm="{R}",service="x""#,
    ),
    (
        "C9",
        r#"Bearer realm="{R}",service="x",scope="repository:team/app:pull",error="insufficient_scope""#,
    ),
    (
        "C10",
        r#"Bearer realm="{R}",service="SUSE Linux Docker Registry""#,
    ),
    (
        "C11",
        r#"Bearer realm="{R}",service="registry.aliyuncs.com:cn-hangzhou:26842""#,
    ),
    (
        "C12",
        r#"Bearer realm="{R}?host=x-docker.pkg.coding.net",service="docker""#,
    ),
    ("C16", r"Bearer realm={R},service=gcr.io"),
    ("C16 lower", r#"bearer realm="{R}",service="x""#),
    ("C15 upper", r#"BEARER REALM="{R}",SERVICE="x""#),
    (
        "C21 commas",
        r#"Bearer realm="{R}",service="x",scope="repository:a/b:pull,push repository:c/d:pull""#,
    ),
    (
        "C21 escapes",
        r#"Bearer realm="{R}",service="a \"quoted\" one""#,
    ),
    (
        "C21 unterminated",
        r#"Bearer realm="{R}",service="x"|Basic realm="never ends"#,
    ),
    ("C22", r#"Bearer realm="/token",service="x""#),
    ("blanks", "Bearer   realm = \"{R}\" ,\t service = \"x\""),
    ("empty elements", r#", ,Bearer realm="{R}",,service="x","#),
    (
        "unknown",
        r#"Bearer realm="{R}",service="x",as_uri="x://",max-age=5,charset="UTF-8""#,
    ),
    (
        "twice",
        r#"Bearer realm="{R}",realm="http://127.0.0.2:9/token",service="x""#,
    ),
    (
        "token68",
        r#"Negotiate a87421000492aa874209af8bc028==, Bearer realm="{R}",service="x""#,
    ),
    (
        "broken line first",
        r#"=,;"@"|Bearer realm="{R}",service="x""#,
    ),
];

#[tokio::test]
async fn p36_challenge_zoo() {
    for (name, text) in ZOO {
        let registry = Upstream::start().await;
        let image = Image::new(1);
        registry.put_image("team/app", "v1", &image);
        let text = text
            .replace("{R}", &registry.url("/token"))
            .replace("{H}", &registry.host());
        let guard = Guard::challenging(move |_| text.split('|').map(str::to_owned).collect());
        guard.stand(&registry, &registry, "/token");
        let mirror = mirror_of(REGISTRY, &registry).await;
        let answer = mirror.get("/v2/team/app/manifests/v1").await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        for request in registry.requests("GET", "/token") {
            assert_eq!(
                request.query("scope"),
                ["repository:team/app:pull"],
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn p36_the_service_is_sent_as_it_is_said() {
    let registry = Upstream::start().await;
    registry.put_image("team/app", "v1", &Image::new(1));
    let service = "a b&scope=repository:other:push#x+%41";
    let realm = registry.url("/token?host=x%20y");
    let guard =
        Guard::challenging(move |_| vec![format!(r#"Bearer realm="{realm}",service="{service}""#)]);
    guard.stand(&registry, &registry, "/token");
    let mirror = mirror_of(REGISTRY, &registry).await;
    mirror.get("/v2/team/app/manifests/v1").await.expect(200);
    let asked = &registry.requests("GET", "/token")[0];
    assert_eq!(asked.query("service"), [service]);
    assert_eq!(asked.query("scope"), ["repository:team/app:pull"]);
    assert_eq!(asked.query("host"), ["x y"]);
}

#[tokio::test]
async fn p36_a_challenge_that_cannot_be_met_is_a_refusal() {
    for challenge in [
        "",
        "Negotiate",
        "Bearer",
        "Digest realm=\"x\"",
        "\u{7f}",
        "Bearer realm=\"https://api./auth\"",
        "Bearer realm=\"http://a:5002:5002/token\"",
    ] {
        let registry = Upstream::start().await;
        let refusal = Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", challenge);
        registry.answer("/v2/*", refusal);
        let mirror = mirror_of(REGISTRY, &registry).await;
        let answer = mirror.get("/v2/team/app/manifests/v1").await;
        assert!(
            matches!(answer.status, 403 | 502),
            "{challenge}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn p36_a_challenge_on_a_200_asks_for_nothing() {
    let registry = Upstream::start().await;
    let image = Image::new(1);
    registry.put_image("team/app", "v1", &image);
    let manifest = image.manifest.clone();
    let realm = registry.url("/token");
    registry.rule(move |request: &Seen| {
        let (_, kind, _) = request.parts()?;
        let challenge = format!(r#"Bearer realm="{realm}",service="x""#);
        let answer = Answer::ok(&manifest.media_type, manifest.bytes.clone());
        (kind == "manifests").then(|| answer.header("WWW-Authenticate", &challenge))
    });
    let mirror = mirror_of(REGISTRY, &registry).await;
    pulls(&mirror, REGISTRY, "team/app", &image).await;
    assert!(registry.requests("GET", "/token").is_empty());
}
