//! From a request's method and target to a [`Route`]. Pure and total: every request has one, or an error.

use std::borrow::Cow;

use hyper::{Method, Uri};
use percent_encoding::percent_decode_str;

use super::query::{Filter, Page, QueryError};
use crate::oci::{
    Digest, DigestError, NameError, Namespace, NamespaceError, Reference, ReferenceError,
    RepositoryName,
};
use crate::upstream::Directory;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v2/`: is this a registry?
    Base {
        /// The registry asked about, where the request names one.
        namespace: Option<Namespace>,
    },
    /// `/v2/<name>/manifests/<reference>`
    Manifest(Target, Reference),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Target, Digest),
    /// `/v2/<name>/tags/list`
    Tags(Target, Written, Page),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Target, Written, Digest, Filter),
}

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The registry, in its canonical form.
    pub(super) namespace: Namespace,
    /// The registry as the client wrote it in `ns`, which the answer echoes.
    pub(super) asked: Option<Namespace>,
    /// The repository, as that registry calls it.
    pub(super) repository: RepositoryName,
    /// The name as it was written, where nothing of the request names a registry.
    pub(super) unplaced: Option<RepositoryName>,
}

/// How a client wrote what it asks for: the answer has it in the same words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// The path, as it stood in the request.
    pub(super) path: String,
    /// The name in it, be it with or without the registry in front.
    pub(super) name: String,
}

/// Why a request is none that is answered here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RouteError {
    /// A method that would change something, or that no registry knows.
    #[error("this mirror only serves GET and HEAD")]
    Method,
    /// Nothing of a registry.
    #[error("there is nothing here: this is a registry mirror, images are below /v2/")]
    Path,
    /// Something of a registry that this one does not have.
    #[error("this mirror does not serve {0}")]
    Unsupported(&'static str),
    /// `ns` is not a registry.
    #[error("ns: {0}")]
    Namespace(#[from] NamespaceError),
    /// `ns` stands in the query more than once.
    #[error("ns may be given only once")]
    Namespaces,
    /// The rest of the query is not one of a list.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The name does not fit the grammar.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An escape in the path stands for something that has a meaning in paths.
    #[error("a name is written without escapes")]
    Escape,
    /// The tag or digest does not fit the grammar.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The digest does not fit the grammar.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// What stands behind a name, read from the right, so that any part of a name may itself be called `manifests`.
enum Kind {
    Manifest(Reference),
    Blob(Digest),
    Tags,
    Referrers(Digest),
}

/// Reads a request. `directory` says which names are registries.
pub(super) fn parse(
    method: &Method,
    target: &Uri,
    directory: &Directory,
) -> Result<Route, RouteError> {
    if method != Method::GET && method != Method::HEAD {
        return Err(RouteError::Method);
    }
    let path = match target.path() {
        "/v2" => "",
        path => path.strip_prefix("/v2/").ok_or(RouteError::Path)?,
    };
    let asked = asked_namespace(target.query().unwrap_or_default())?;
    if path.is_empty() {
        return Ok(Route::Base { namespace: asked });
    }
    let segments = path.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
    let (name, kind) = split(&segments)?;
    let located = locate(name, asked, directory)?;
    let query = target.query().unwrap_or_default();
    let written = || Written {
        path: target.path().to_owned(),
        name: name.join("/"),
    };
    Ok(match kind {
        Kind::Manifest(reference) => Route::Manifest(located, reference),
        Kind::Blob(digest) => Route::Blob(located, digest),
        Kind::Tags => Route::Tags(located, written(), Page::parse(query)?),
        Kind::Referrers(digest) => {
            Route::Referrers(located, written(), digest, Filter::parse(query)?)
        }
    })
}

/// The registry that a request which could not be read names all the same.
pub(super) fn asked(target: &Uri) -> Option<Namespace> {
    asked_namespace(target.query().unwrap_or_default()).ok()?
}

/// The registry named by `?ns=` (distribution-spec, "Registry Proxying").
fn asked_namespace(query: &str) -> Result<Option<Namespace>, RouteError> {
    let mut values = form_urlencoded::parse(query.as_bytes())
        .filter(|(key, _)| key == "ns")
        .map(|pair| pair.1);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(value.parse()?)),
        (Some(_), Some(_)) => Err(RouteError::Namespaces),
    }
}

/// Decodes a segment of the path, once. Only what has no meaning of its own in a path may be escaped: clients write
/// `sha256%3A…`, nobody honest writes `%2e%2e%2f`.
fn decode(segment: &str) -> Result<Cow<'_, str>, RouteError> {
    if segment.is_empty() {
        return Err(NameError::Grammar.into());
    }
    let decoded = percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| RouteError::Escape)?;
    let count = |text: &str, c: char| text.matches(c).count();
    let same = ['/', '.', '\\']
        .iter()
        .all(|&c| count(&decoded, c) == count(segment, c));
    if same && !decoded.contains(['%', '\0']) {
        Ok(decoded)
    } else {
        Err(RouteError::Escape)
    }
}

/// Parts the segments into the name and what is asked of it.
fn split<'a>(segments: &'a [Cow<'a, str>]) -> Result<(&'a [Cow<'a, str>], Kind), RouteError> {
    let (name, kind) = match segments {
        [name @ .., kind, reference] if kind == "manifests" => {
            (name, Kind::Manifest(reference.parse()?))
        }
        [name @ .., kind, digest] if kind == "blobs" => (name, Kind::Blob(digest.parse()?)),
        [name @ .., kind, list] if kind == "tags" && list == "list" => (name, Kind::Tags),
        [name @ .., kind, digest] if kind == "referrers" => {
            (name, Kind::Referrers(digest.parse()?))
        }
        [only] if only == "_catalog" => return Err(RouteError::Unsupported("a catalog")),
        _ => return Err(RouteError::Path),
    };
    if name.is_empty() {
        Err(NameError::Grammar.into())
    } else {
        Ok((name, kind))
    }
}

/// Finds out which registry a name belongs to: the one `ns` names, else the one its first part names, else the
/// default one.
fn locate(
    name: &[Cow<'_, str>],
    asked: Option<Namespace>,
    directory: &Directory,
) -> Result<Target, RouteError> {
    let (first, whole) = (first_as_namespace(name, directory), name.len());
    let (namespace, rest) = match (&asked, first) {
        (Some(asked), first) => {
            let namespace = directory.canonical(asked);
            // BuildKit's `mirrors`, k3s's rewrites and `override_path` say it twice.
            let said_twice = first.as_ref() == Some(&namespace);
            (namespace, &name[usize::from(said_twice)..])
        }
        (None, Some(first)) if directory.serves(&first) => (first, &name[1..]),
        (None, _) => (directory.default_upstream().clone(), name),
    };
    let name: RepositoryName = rest.join("/").parse()?;
    let is_placed = asked.is_some() || rest.len() < whole;
    let unplaced = (!is_placed).then(|| name.clone());
    let repository = directory.repository_name(&namespace, name)?;
    Ok(Target {
        namespace,
        asked,
        repository,
        unplaced,
    })
}

/// The first part of a name as a registry, where it looks like one and a repository follows.
fn first_as_namespace(name: &[Cow<'_, str>], directory: &Directory) -> Option<Namespace> {
    let [first, _, ..] = name else {
        return None;
    };
    let host_shaped = first.contains(['.', ':']) || first == "localhost";
    let namespace: Namespace = host_shaped.then(|| first.parse().ok())??;
    Some(directory.canonical(&namespace))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::Algorithm;
    use crate::upstream::{
        AccessPolicy, Config, Credentials, Limits, Proxies, UnknownNamespaces, UpstreamConfig,
    };

    fn directory() -> Directory {
        let named = |namespace: &str| UpstreamConfig {
            namespace: namespace.parse().expect("a namespace"),
            endpoints: vec!["http://127.0.0.1:1".parse().expect("a URL")],
            aliases: Vec::new(),
            ca: None,
            realms: Vec::new(),
            limits: Limits::default(),
            access: AccessPolicy::default(),
        };
        Directory::new(&Config {
            default_upstream: "docker.io".parse().expect("a namespace"),
            unknown_namespaces: UnknownNamespaces::Public,
            upstreams: vec![named("localhost:5000"), named("registry.example.com:5000")],
            credentials: Credentials::default(),
            proxies: Proxies::default(),
        })
    }

    fn route(target: &str) -> Result<Route, RouteError> {
        parse(
            &Method::GET,
            &target.parse().expect("a request target"),
            &directory(),
        )
    }

    /// Namespace and repository of a manifest route.
    fn check(target: &str, namespace: &str, repository: &str) {
        match route(target) {
            Ok(
                Route::Manifest(target, _)
                | Route::Blob(target, _)
                | Route::Tags(target, ..)
                | Route::Referrers(target, ..),
            ) => assert_eq!(
                (target.namespace.as_str(), target.repository.as_str()),
                (namespace, repository)
            ),
            other => panic!("{target}: {other:?}"),
        }
    }

    fn refuse(target: &str, expected: &RouteError) {
        assert_eq!(route(target).as_ref(), Err(expected), "{target}");
    }

    #[test]
    fn the_base_is_answered_with_and_without_a_slash() {
        for target in ["/v2", "/v2/", "/v2/?x=y"] {
            assert_eq!(route(target), Ok(Route::Base { namespace: None }));
        }
        let namespace = Some("ghcr.io".parse().expect("a namespace"));
        assert_eq!(route("/v2/?ns=ghcr.io"), Ok(Route::Base { namespace }));
    }

    #[test]
    fn ns_comes_before_the_path_and_the_path_before_the_default() {
        check("/v2/org/app/manifests/v1?ns=ghcr.io", "ghcr.io", "org/app");
        check(
            "/v2/quay.io/app/manifests/v1?ns=ghcr.io",
            "ghcr.io",
            "quay.io/app",
        );
        check("/v2/quay.io/org/app/manifests/v1", "quay.io", "org/app");
        check("/v2/org/app/manifests/v1", "docker.io", "org/app");
        check(
            "/v2/app/manifests/v1?ns=registry.example.com%3A5000",
            "registry.example.com:5000",
            "app",
        );
    }

    #[test]
    fn a_registry_that_is_said_twice_is_heard_once() {
        check(
            "/v2/ghcr.io/org/app/manifests/v1?ns=ghcr.io",
            "ghcr.io",
            "org/app",
        );
        check(
            "/v2/index.docker.io/library/x/manifests/v1?ns=docker.io",
            "docker.io",
            "library/x",
        );
        check(
            "/v2/docker.io/nginx/manifests/v1?ns=registry-1.docker.io",
            "docker.io",
            "library/nginx",
        );
    }

    #[test]
    fn names_of_one_part_are_the_hubs_library() {
        check("/v2/nginx/manifests/v1", "docker.io", "library/nginx");
        check(
            "/v2/nginx/manifests/v1?ns=DOCKER.IO",
            "docker.io",
            "library/nginx",
        );
        check(
            "/v2/docker.io/nginx/manifests/v1",
            "docker.io",
            "library/nginx",
        );
        check("/v2/nginx/manifests/v1?ns=quay.io", "quay.io", "nginx");
    }

    #[test]
    fn only_a_registry_that_is_served_takes_the_first_part() {
        check(
            "/v2/localhost:5000/app/manifests/v1",
            "localhost:5000",
            "app",
        );
        check("/v2/node.js/app/manifests/v1", "node.js", "app");
        // Nobody configured these, and they cannot be public: they are parts of a name of the default upstream.
        check(
            "/v2/localhost/app/manifests/v1",
            "docker.io",
            "localhost/app",
        );
        check(
            "/v2/registry.local/app/manifests/v1",
            "docker.io",
            "registry.local/app",
        );
        refuse(
            "/v2/localhost:5001/app/manifests/v1",
            &NameError::Grammar.into(),
        );
    }

    #[test]
    fn names_are_read_from_the_right() {
        check(
            "/v2/a/manifests/b/manifests/latest",
            "docker.io",
            "a/manifests/b",
        );
        check(
            "/v2/manifests/blobs/tags/manifests/latest",
            "docker.io",
            "manifests/blobs/tags",
        );
        check(
            "/v2/a/b/c/d/e/f/g/h/manifests/latest",
            "docker.io",
            "a/b/c/d/e/f/g/h",
        );
    }

    #[test]
    fn escapes_are_decoded_once_and_make_no_new_parts() {
        let digest = Digest::of(Algorithm::Sha256, b"").to_string();
        let escaped = digest.replace(':', "%3A");
        check(&format!("/v2/a/b/blobs/{escaped}"), "docker.io", "a/b");
        for name in [
            "%2e%2e/x", "a%2Fb", "a%252eb", "%2e", "a%5Cb", "a%00", "%ff",
        ] {
            refuse(&format!("/v2/{name}/manifests/v1"), &RouteError::Escape);
        }
    }

    #[test]
    fn bad_names_are_refused() {
        for name in [
            "", "/a", "a/", "a//b", "..", "a/../b", "A", "a..b", "_x", "a___b",
        ] {
            refuse(
                &format!("/v2/{name}/manifests/v1"),
                &NameError::Grammar.into(),
            );
        }
        refuse("/v2/manifests/v1", &NameError::Grammar.into());
        refuse(
            &format!("/v2/{}/manifests/v1", "a".repeat(256)),
            &NameError::TooLong.into(),
        );
    }

    #[test]
    fn bad_references_are_refused() {
        refuse("/v2/a/manifests/.x", &ReferenceError::Tag.into());
        refuse(
            &format!("/v2/a/manifests/{}", "a".repeat(129)),
            &ReferenceError::Tag.into(),
        );
        refuse("/v2/a/blobs/sha256", &DigestError::NoAlgorithm.into());
        refuse("/v2/a/blobs/md5:00", &DigestError::UnknownAlgorithm.into());
        refuse("/v2/a/manifests/v1/", &NameError::Grammar.into());
    }

    #[test]
    fn bad_namespaces_are_refused() {
        for ns in [
            "",
            "user:pw@host",
            "host/path",
            "a%0d%0ab",
            "host%23x",
            "b%C3%BCcher.example",
        ] {
            refuse(
                &format!("/v2/a/manifests/v1?ns={ns}"),
                &NamespaceError.into(),
            );
        }
        refuse(
            "/v2/a/manifests/v1?ns=a.io&ns=a.io",
            &RouteError::Namespaces,
        );
    }

    #[test]
    fn what_is_not_served_says_so() {
        for target in [
            "/",
            "/v1/",
            "/v3/",
            "/v2x",
            "/v2/a",
            "/v2/_oci/ext/discover",
        ] {
            refuse(target, &RouteError::Path);
        }
        assert!(matches!(
            route("/v2/_catalog"),
            Err(RouteError::Unsupported(_))
        ));
        let target = "/v2/a/manifests/v1".parse().expect("a target");
        for method in [
            Method::PUT,
            Method::POST,
            Method::DELETE,
            Method::PATCH,
            Method::OPTIONS,
        ] {
            assert_eq!(
                parse(&method, &target, &directory()),
                Err(RouteError::Method)
            );
        }
    }

    proptest! {
        #[test]
        fn every_target_has_an_answer(path in "/v2/[a-zA-Z0-9._:%/@-]{0,40}", ns in "[a-z0-9.:%@/-]{0,12}") {
            if let Ok(target) = format!("{path}?ns={ns}").parse::<Uri>() {
                let _ = parse(&Method::GET, &target, &directory());
            }
        }
    }
}
