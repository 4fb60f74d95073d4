//! Names of images as sources write them.

use super::ImportRule;
use crate::oci::{Namespace, RepositoryName, Tag};

/// What a name says of an image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImageName {
    /// The registry, where one is named.
    pub(super) namespace: Option<Namespace>,
    pub(super) repository: Option<RepositoryName>,
    pub(super) tag: Option<Tag>,
}

/// The registry that is meant where people name none, and where its official images are.
pub(super) const HUB: &str = "docker.io";

/// Where official images are there.
const OFFICIAL: &str = "library";

impl ImageName {
    /// What `[registry/]repository[:tag]` says; `None` where it is no such thing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (text, _) = text.split_once('@').unwrap_or((text, ""));
        let (name, tag) = match text.rsplit_once(':') {
            // What is behind the colon of a port is no tag.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.parse().ok()?)),
            Some(_) | None => (text, None),
        };
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (namespace, repository) = match name.split_once('/') {
            Some((host, rest)) if is_host(host) => (Some(host.parse().ok()?), rest),
            Some(_) | None => (None, name),
        };
        Some(Self {
            namespace,
            repository: Some(repository.parse().ok()?),
            tag,
        })
    }

    /// What an annotation of a layout says, which may be a tag alone.
    pub(super) fn of_layout(text: &str) -> Option<Self> {
        if text.contains(['/', ':']) {
            return Self::parse(text);
        }
        Some(Self {
            namespace: None,
            repository: None,
            tag: Some(text.parse().ok()?),
        })
    }

    /// The same, with what `rule` says where it says nothing itself.
    pub(super) fn or(self, rule: &ImportRule) -> Self {
        Self {
            namespace: self.namespace.or_else(|| rule.namespace.clone()),
            repository: self.repository.or_else(|| rule.repository.clone()),
            tag: self.tag,
        }
    }

    /// The repository under the name that its registry has for it.
    pub(super) fn canonical(namespace: &Namespace, repository: RepositoryName) -> RepositoryName {
        if namespace.to_string() == HUB && !repository.as_str().contains('/') {
            let official = format!("{OFFICIAL}/{repository}").parse();
            return official.unwrap_or(repository);
        }
        repository
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, namespace: Option<&str>, repository: &str, tag: Option<&str>) {
        let name = ImageName::parse(text).expect("a name");
        let of = |text: &Option<Namespace>| text.as_ref().map(ToString::to_string);
        assert_eq!(of(&name.namespace).as_deref(), namespace, "{text}");
        assert_eq!(name.repository.expect("one").as_str(), repository, "{text}");
        assert_eq!(
            name.tag.map(|tag| tag.to_string()).as_deref(),
            tag,
            "{text}"
        );
    }

    #[test]
    fn names_say_what_they_say() {
        check("debian:12", None, "debian", Some("12"));
        check("team/app", None, "team/app", None);
        check(
            "ghcr.io/team/app:v1",
            Some("ghcr.io"),
            "team/app",
            Some("v1"),
        );
        check("localhost:5000/app", Some("localhost:5000"), "app", None);
        for text in ["", ":", "A/B", "a b", "ghcr.io/", "app:"] {
            assert_eq!(ImageName::parse(text), None, "{text:?}");
        }
        let tag = ImageName::of_layout("12").expect("a tag");
        assert_eq!((tag.namespace, tag.repository), (None, None));
    }

    #[test]
    fn official_images_are_under_library() {
        let canonical = |namespace: &str, repository: &str| {
            let (namespace, repository) = (namespace.parse(), repository.parse());
            let repository = repository.expect("a name");
            ImageName::canonical(&namespace.expect("a registry"), repository).to_string()
        };
        assert_eq!(canonical("docker.io", "debian"), "library/debian");
        assert_eq!(canonical("docker.io", "team/app"), "team/app");
        assert_eq!(canonical("ghcr.io", "debian"), "debian");
    }
}
