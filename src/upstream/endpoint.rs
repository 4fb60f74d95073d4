//! Where one registry answers, and what is known of it.

use std::sync::Arc;

use reqwest::Url;

use super::built_in;
use super::challenge::Challenge;
use super::clients::{ConfiguredClients, Standing};
use super::connections::{Connections, PublicConnections};
use super::guard::host_of;
use super::health::{Health, PublicHealth};
use super::realm::Issuers;
use super::table::{Row, UNKNOWN};
use super::transport::Reach;
use super::{AccessPolicy, Limits, UpstreamConfig};
use crate::metrics::Metrics;
use crate::oci::{Namespace, RepositoryName};

/// The part of every URL of the registry protocol that comes before the repository.
const API: &str = "v2";

/// One registry, as far as requests to it need to know.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Its canonical name.
    pub(super) namespace: Namespace,
    /// Its metric label.
    pub(super) label: String,
    /// Where it answers, in the order they are asked. Empty where its name cannot stand in a URL.
    pub(super) endpoints: Vec<Endpoint>,
    /// Which addresses it may have.
    pub(super) reach: Reach,
    /// Those that carry its blobs.
    pub(super) connections: Connections,
    /// Most of those for one blob.
    pub(super) connections_per_blob: usize,
    /// Who may read what comes from it.
    pub(super) access: AccessPolicy,
    /// Further hosts that issue its tokens.
    realms: Vec<Namespace>,
}

impl Upstream {
    /// An upstream that the operator configured, and that may have private addresses.
    pub(super) fn configured(
        config: &UpstreamConfig,
        clients: ConfiguredClients,
        metrics: &Metrics,
    ) -> Self {
        let namespace = &config.namespace;
        let health = |url: &Url| {
            let health = Health::new(namespace, namespace.as_str(), host_of(url), metrics);
            Arc::new(health)
        };
        let mirror = |url: &Url| Endpoint::mirror(url, namespace, health(url));
        let endpoint = |url: &Url| {
            let mut endpoint = Endpoint::new(url, namespace, health(url));
            endpoint.sees_credentials &= config.way.may_show_credentials(url, &config.endpoints);
            endpoint
        };
        let mirrors = config.way.mirrors.iter().map(mirror);
        Self {
            namespace: namespace.clone(),
            label: namespace.to_string(),
            endpoints: mirrors
                .chain(config.endpoints.iter().map(endpoint))
                .collect(),
            reach: Reach::Configured(clients),
            connections: Connections::bounded(config.limits.connections),
            connections_per_blob: config.limits.connections_per_blob,
            access: config.access,
            realms: config.realms.clone(),
        }
    }

    /// An upstream that nobody configured: over https, at its own name or where the table says.
    pub(super) fn public(
        namespace: &Namespace,
        label: &str,
        connections: &PublicConnections,
        health: &PublicHealth,
    ) -> Self {
        let url = built_in::endpoint(namespace);
        let standing = match Row::find(namespace.as_str()) {
            Some(_) => Standing::Known,
            None => Standing::Stranger,
        };
        Self {
            namespace: namespace.clone(),
            label: label.to_owned(),
            endpoints: url
                .iter()
                .map(|url| {
                    let health = health.of(standing, namespace, label, host_of(url));
                    Endpoint::new(url, namespace, health)
                })
                .collect(),
            reach: Reach::Public(standing),
            connections: connections.of(standing, namespace),
            connections_per_blob: Limits::default().connections_per_blob,
            access: AccessPolicy::default(),
            realms: Vec::new(),
        }
    }

    /// Who may issue tokens for `endpoint`.
    pub(super) fn issuers<'a>(&'a self, endpoint: &Endpoint) -> Issuers<'a> {
        Issuers {
            row: endpoint.row,
            configured: &self.realms,
        }
    }
}

/// One place where an upstream answers.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// `https://host/…/v2/`.
    pub(super) root: Url,
    /// What stands between that and the repository, with a slash at its end where there is anything.
    project: String,
    /// What is known of this host, else of the registry it stands in for.
    pub(super) row: &'static Row,
    /// Whether the credential of the upstream may be shown here.
    pub(super) sees_credentials: bool,
    /// The registry that is meant, where that has to be said: `ns` of the distribution-spec, "Registry Proxying".
    stands_for: Option<Namespace>,
    /// How it is doing.
    pub(super) health: Arc<Health>,
}

impl Endpoint {
    /// The endpoint at `base`, for `namespace`. A path that holds `v2` says where the repositories are, as that of a
    /// Harbor project does (`https://harbor.example/v2/hub`); one that does not is what `/v2/` is below, as in
    /// Artifactory (`https://artifactory.example/artifactory/api/docker/hub`).
    pub(super) fn new(base: &Url, namespace: &Namespace, health: Arc<Health>) -> Self {
        let path = base.path().trim_matches('/');
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let api = parts.iter().position(|&part| part == API);
        let (before, below) = parts.split_at(api.unwrap_or(parts.len()));
        let join =
            |parts: &[&str]| -> String { parts.iter().flat_map(|part| [part, "/"]).collect() };
        let mut root = base.clone();
        root.set_path(&format!("/{}{API}/", join(before)));
        let host = host_of(base);
        let of_host = base.port().is_none().then(|| Row::find(host)).flatten();
        let row = of_host
            .or_else(|| Row::find(namespace.as_str()))
            .unwrap_or(&UNKNOWN);
        Self {
            root,
            project: join(below.get(1..).unwrap_or_default()),
            row,
            sees_credentials: !row.is_anonymous_mirror || namespace.as_str() == host,
            stands_for: None,
            health,
        }
    }

    /// The mirror at `base`, which is told that `namespace` is meant and knows nothing of what is known of it.
    pub(super) fn mirror(base: &Url, namespace: &Namespace, health: Arc<Health>) -> Self {
        Self {
            row: &UNKNOWN,
            sees_credentials: false,
            stands_for: Some(namespace.clone()),
            ..Self::new(base, namespace, health)
        }
    }

    /// Whether it only stands in for the registry.
    pub(super) fn is_mirror(&self) -> bool {
        self.stands_for.is_some()
    }

    /// What the repository `name` is called here.
    pub(super) fn repository(&self, name: &RepositoryName) -> String {
        format!("{}{name}", self.project)
    }

    /// The URL of `below`, such as `manifests/latest` or `tags/list?n=2`, in the repository that is called `repository`
    /// here.
    pub(super) fn url(&self, repository: &str, below: &str) -> Url {
        let (path, query) = match below.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (below, None),
        };
        let mut url = self.root.clone();
        url.set_path(&format!("{}{repository}/{path}", self.root.path()));
        url.set_query(query);
        if let Some(namespace) = &self.stands_for {
            url.query_pairs_mut().append_pair("ns", namespace.as_str());
        }
        url
    }

    /// The scope of a token that reads `repository`. A challenge may ask for another: that of another repository, or
    /// more than reading. It is not listened to, unless it asks for the one that the table has.
    pub(super) fn scope(&self, repository: &str, challenge: &Challenge) -> String {
        let written = challenge.parameter("scope");
        match self.row.scope {
            // Something else may stand in for the registry, and want what all others want.
            Some(scope) if written == Some(scope) => scope.to_owned(),
            Some(_) | None => pull_scope(repository),
        }
    }
}

/// The scope of a token that reads `repository`.
pub(super) fn pull_scope(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

/// The scope of a token for `url`, where it is one of the registry protocol: where a redirect led to another registry.
pub(super) fn scope_of(url: &Url) -> Option<String> {
    let (_, rest) = url.path().split_once("/v2/")?;
    let (name, _) = rest
        .rsplit_once("/manifests/")
        .or_else(|| rest.rsplit_once("/blobs/"))
        .or_else(|| rest.rsplit_once("/referrers/"))
        .or_else(|| rest.rsplit_once("/tags/"))?;
    let name: RepositoryName = name.parse().ok()?;
    Some(pull_scope(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(base: &str, namespace: &str) -> Endpoint {
        let namespace = namespace.parse().expect("a namespace");
        let health = Health::new(&namespace, "", "", &Metrics::new());
        Endpoint::new(&base.parse().expect("a URL"), &namespace, Arc::new(health))
    }

    fn public(namespace: &str) -> Upstream {
        let namespace = namespace.parse().expect("a namespace");
        let health = PublicHealth::new(Metrics::new());
        Upstream::public(&namespace, "", &PublicConnections::new(), &health)
    }

    #[test]
    fn the_path_of_an_endpoint_is_kept() {
        let challenge = challenge(r#"Bearer realm="/t""#);
        let check = |base: &str, url: &str, scope: &str| {
            let endpoint = endpoint(base, "r.example");
            let name = endpoint.repository(&"a/b".parse().expect("a name"));
            assert_eq!(endpoint.url(&name, "manifests/latest").as_str(), url);
            assert_eq!(endpoint.scope(&name, &challenge), scope);
        };
        check(
            "https://r.example",
            "https://r.example/v2/a/b/manifests/latest",
            "repository:a/b:pull",
        );
        check(
            "http://r.example:5000/prefix/x/",
            "http://r.example:5000/prefix/x/v2/a/b/manifests/latest",
            "repository:a/b:pull",
        );
        check(
            "https://harbor.example/v2/hub",
            "https://harbor.example/v2/hub/a/b/manifests/latest",
            "repository:hub/a/b:pull",
        );
        check(
            "https://h.example/x/v2/",
            "https://h.example/x/v2/a/b/manifests/latest",
            "repository:a/b:pull",
        );
    }

    fn challenge(line: &'static str) -> Challenge {
        let value = reqwest::header::HeaderValue::from_static(line);
        let headers = [(reqwest::header::WWW_AUTHENTICATE, value)].into_iter();
        crate::upstream::challenge::challenges(&headers.collect()).remove(0)
    }

    #[test]
    fn a_challenge_chooses_no_scope_but_the_one_that_the_table_has() {
        let check = |base: &str, line: &'static str, expected: &str| {
            let endpoint = endpoint(base, "public.ecr.aws");
            assert_eq!(endpoint.scope("a/b", &challenge(line)), expected, "{line}");
        };
        let ours = "repository:a/b:pull";
        let own = "https://public.ecr.aws";
        check(own, r#"Bearer scope="aws""#, "aws");
        check(own, r#"Bearer scope="aws registry:catalog:*""#, ours);
        check(
            own,
            r#"Bearer scope="repository:other/secret:pull,push""#,
            ours,
        );
        let harbor = "https://harbor.corp.example/v2/ecr";
        check(harbor, r#"Bearer scope="repository:ecr/a/b:pull""#, ours);
        check("https://r.example", "Bearer", ours);
    }

    #[test]
    fn the_colon_of_a_digest_stands_in_the_path_as_it_is() {
        let upstream = public("ghcr.io");
        let url = upstream.endpoints[0].url("a", "blobs/sha256:00");
        assert_eq!(url.as_str(), "https://ghcr.io/v2/a/blobs/sha256:00");
        let url = upstream.endpoints[0].url("a", "tags/list?n=2&last=a%2Fb");
        assert_eq!(
            url.as_str(),
            "https://ghcr.io/v2/a/tags/list?n=2&last=a%2Fb"
        );
    }

    #[test]
    fn a_mirror_is_told_which_registry_is_meant() {
        let namespace: Namespace = "r.example:5000".parse().expect("a namespace");
        let health = Arc::new(Health::new(&namespace, "", "", &Metrics::new()));
        let base = "http://mirror.example:3000".parse().expect("a URL");
        let mirror = Endpoint::mirror(&base, &namespace, health);
        let check = |below: &str, url: &str| assert_eq!(mirror.url("a/b", below).as_str(), url);
        check(
            "manifests/v1",
            "http://mirror.example:3000/v2/a/b/manifests/v1?ns=r.example%3A5000",
        );
        check(
            "tags/list?n=2",
            "http://mirror.example:3000/v2/a/b/tags/list?n=2&ns=r.example%3A5000",
        );
        assert!(!mirror.sees_credentials);
    }

    #[test]
    fn the_hub_answers_at_another_host() {
        let root = |namespace: &str| {
            let upstream = public(namespace);
            upstream
                .endpoints
                .first()
                .map(|endpoint| endpoint.root.to_string())
        };
        assert_eq!(
            root("docker.io").as_deref(),
            Some("https://registry-1.docker.io/v2/")
        );
        assert_eq!(
            root("r.example:5000").as_deref(),
            Some("https://r.example:5000/v2/")
        );
        assert_eq!(root("xn--0.example"), None);
    }

    #[test]
    fn a_mirror_of_others_does_not_see_their_credentials() {
        let sees = |base: &str, namespace: &str| endpoint(base, namespace).sees_credentials;
        assert!(!sees("https://mirror.gcr.io", "docker.io"));
        assert!(sees("https://mirror.gcr.io", "mirror.gcr.io"));
        assert!(sees("https://harbor.corp.example/v2/hub", "docker.io"));
    }

    #[test]
    fn the_scope_of_a_foreign_registry_is_read_from_its_url() {
        let check = |url: &str, expected: Option<&str>| {
            let url = url.parse().expect("a URL");
            assert_eq!(scope_of(&url).as_deref(), expected, "{url}");
        };
        check(
            "https://europe-docker.pkg.dev/v2/k8s-artifacts-prod/images/pause/manifests/3.9",
            Some("repository:k8s-artifacts-prod/images/pause:pull"),
        );
        check(
            "https://r.example/v2/a/blobs/sha256:00",
            Some("repository:a:pull"),
        );
        check(
            "https://r.example/v2/a/referrers/sha256:00",
            Some("repository:a:pull"),
        );
        check(
            "https://r.example/v2/a/b/tags/list?n=2",
            Some("repository:a/b:pull"),
        );
        check("https://cdn.example/a/blobs/sha256:00", None);
        check("https://r.example/v2/A%20b/blobs/sha256:00", None);
    }
}
