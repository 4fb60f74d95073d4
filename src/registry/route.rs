//! From a request's method, target and way in to a [`Route`]. Pure and total: every request has one, or an error.

use std::borrow::Cow;

use hyper::{Method, Uri};
use percent_encoding::percent_decode_str;

use super::error::Content;
use super::locate::locate;
use super::query::{Filter, Page, QueryError};
use super::ways::{Door, Meant, Ways};
use crate::oci::{
    Digest, DigestError, NameError, Namespace, NamespaceError, Reference, ReferenceError,
    RepositoryName,
};
use crate::upstream::Directory;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each request, and the small one is rare"
)]
pub(super) enum Route {
    /// `/v2/`: is this a registry?
    Base {
        /// The registry asked about, as the client wrote it in `ns`, else as the way in means it.
        namespace: Option<Namespace>,
    },
    /// `/v2/<name>/…`: content of a repository.
    Content(Target, Item),
}

/// What of a repository is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// `manifests/<reference>`
    Manifest(Reference),
    /// `blobs/<digest>`
    Blob(Digest),
    /// `tags/list`
    Tags(Written, Page),
    /// `referrers/<digest>`
    Referrers(Written, Digest, Filter),
}

impl Item {
    /// What it is as far as errors are concerned.
    pub(super) const fn content(&self) -> Content {
        match self {
            Self::Manifest(_) => Content::Manifest,
            Self::Blob(_) => Content::Blob,
            Self::Tags(..) => Content::TagList,
            Self::Referrers(..) => Content::Referrers,
        }
    }

    /// Whether only a registry that has the repository has this of it. What refers to something is a list everywhere,
    /// and empty where there is nothing.
    pub(super) const fn proves_repository(&self) -> bool {
        match self {
            Self::Manifest(_) | Self::Blob(_) | Self::Tags(..) => true,
            Self::Referrers(..) => false,
        }
    }

    /// The digest of the content, where it is named by that.
    pub(super) const fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Manifest(Reference::Digest(digest)) | Self::Blob(digest) => Some(digest),
            Self::Manifest(Reference::Tag(_)) | Self::Tags(..) | Self::Referrers(..) => None,
        }
    }

    /// The metric label.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Manifest(Reference::Tag(_)) => "tag",
            Self::Manifest(Reference::Digest(_)) => "manifest",
            Self::Blob(_) => "blob",
            Self::Tags(..) => "tags",
            Self::Referrers(..) => "referrers",
        }
    }
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
    /// The host name stands for a registry, and nobody said for which.
    #[error(
        "no registry is configured for this host name: map it under `hosts`, or name the registry"
    )]
    Host,
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

/// A request as far as it is routed by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inbound<'a> {
    pub(super) method: &'a Method,
    pub(super) target: &'a Uri,
    pub(super) door: Door<'a>,
}

/// Reads a request. `ways` says what listeners and hosts stand for, `directory` which names are registries.
pub(super) fn parse(
    inbound: Inbound<'_>,
    ways: &Ways,
    directory: &Directory,
) -> Result<Route, RouteError> {
    let Inbound {
        method,
        target,
        door,
    } = inbound;
    if method != Method::GET && method != Method::HEAD {
        return Err(RouteError::Method);
    }
    let path = match target.path() {
        "/v2" => "",
        path => path.strip_prefix("/v2/").ok_or(RouteError::Path)?,
    };
    let query = target.query().unwrap_or_default();
    let asked = asked_namespace(query)?;
    let meant = ways.meant(asked.as_ref(), door, directory);
    if path.is_empty() {
        let meant = match meant {
            Meant::Registry(namespace) => Some(namespace),
            Meant::Anything | Meant::Named => None,
        };
        let namespace = asked.or(meant);
        return Ok(Route::Base { namespace });
    }
    let path = &*decode(path)?;
    let (name, kind) = split(path)?;
    let located = locate(name, asked, meant, directory)?;
    let written = || Written {
        path: target.path().to_owned(),
        name: name.to_owned(),
    };
    let item = match kind {
        Kind::Manifest(reference) => Item::Manifest(reference),
        Kind::Blob(digest) => Item::Blob(digest),
        Kind::Tags => Item::Tags(written(), Page::parse(query)?),
        Kind::Referrers(digest) => Item::Referrers(written(), digest, Filter::parse(query)?),
    };
    Ok(Route::Content(located, item))
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

/// Decodes a path, once. Only what has no meaning of its own in a path may be escaped: clients write `sha256%3A…`, nobody
/// honest writes `%2e%2e%2f`.
fn decode(path: &str) -> Result<Cow<'_, str>, RouteError> {
    let (mut is_plain, mut has_empty, mut before) = (true, false, b'/');
    for byte in path.bytes() {
        is_plain &= byte != b'%' && byte != b'\0';
        has_empty |= byte == b'/' && before == b'/';
        before = byte;
    }
    if has_empty || before == b'/' {
        return Err(NameError::Grammar.into());
    }
    if is_plain {
        return Ok(path.into());
    }
    let decoded = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| RouteError::Escape)?;
    let count = |text: &str, c: char| text.matches(c).count();
    let same = ['/', '.', '\\']
        .iter()
        .all(|&c| count(&decoded, c) == count(path, c));
    if same && !decoded.contains(['%', '\0']) {
        Ok(decoded)
    } else {
        Err(RouteError::Escape)
    }
}

/// Parts a path into the name and what is asked of it.
fn split(path: &str) -> Result<(&str, Kind), RouteError> {
    let (before, last) = path.rsplit_once('/').unwrap_or(("", path));
    let (name, kind) = before.rsplit_once('/').unwrap_or(("", before));
    let kind = match (kind, last) {
        ("manifests", reference) => Kind::Manifest(reference.parse()?),
        ("blobs", digest) => Kind::Blob(digest.parse()?),
        ("tags", "list") => Kind::Tags,
        ("referrers", digest) => Kind::Referrers(digest.parse()?),
        ("", "_catalog") => return Err(RouteError::Unsupported("a catalog")),
        _ => return Err(RouteError::Path),
    };
    if name.is_empty() {
        Err(NameError::Grammar.into())
    } else {
        Ok((name, kind))
    }
}

#[cfg(test)]
pub(super) mod tests;
