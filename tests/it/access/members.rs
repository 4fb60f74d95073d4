//! A registry with members: it lets in whoever has a token for a repository, and gives tokens to members alone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::harness::client::Request;
use crate::harness::content::{Image, Manifest, OCI_INDEX, bytes, sha256};
use crate::harness::mirror::Setup;
use crate::harness::upstream::{Answer, Seen, Upstream, basic};
use crate::harness::world::REGISTRY;

/// The repository that everything is pulled from first.
pub const HERE: &str = "team/app";
/// Another one that holds the same.
pub const THERE: &str = "team/other";
/// One that anybody may read.
pub const OPEN: &str = "open/app";

/// Who may read what. Clones are the same.
#[derive(Clone, Default)]
pub struct Members(Arc<Mutex<HashMap<String, HashSet<String>>>>);

impl Members {
    /// `user` may read `repository`. The user's password is `pw-<user>`, and the token is always `canary-<user>`.
    pub fn admit(&self, user: &str, repository: &str) {
        let mut members = self.0.lock().expect("not poisoned");
        let of_user = members.entry(user.to_owned()).or_default();
        of_user.insert(repository.to_owned());
    }

    /// Nobody may read anything any more.
    pub fn dismiss_all(&self) {
        self.0.lock().expect("not poisoned").clear();
    }

    fn may(&self, user: &str, repository: &str) -> bool {
        let members = self.0.lock().expect("not poisoned");
        let of_user = members.get(user);
        of_user.is_some_and(|repositories| repositories.contains(repository))
    }

    fn has(&self, user: &str) -> bool {
        self.0.lock().expect("not poisoned").contains_key(user)
    }

    /// Puts the rules in place.
    pub fn stand(&self, registry: &Upstream) {
        let (members, realm) = (self.clone(), registry.url("/token"));
        registry.rule(move |request| members.check(request, &realm));
        let members = self.clone();
        registry.rule(move |request| (request.path() == "/token").then(|| members.token(request)));
    }

    fn check(&self, request: &Seen, realm: &str) -> Option<Answer> {
        let (name, _, _) = request.parts()?;
        let token = request.header("Authorization");
        let user = token.and_then(|value| value.strip_prefix("Bearer canary-"));
        let may = name == OPEN || user.is_some_and(|user| self.may(user, name));
        let challenge =
            format!(r#"Bearer realm="{realm}",service="x",scope="repository:{name}:pull""#);
        (!may).then(|| Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", &challenge))
    }

    fn token(&self, request: &Seen) -> Answer {
        let given = request.header("Authorization").unwrap_or_default();
        let users = ["robot", "alice", "bob"];
        let user = users
            .iter()
            .find(|user| given == basic(user, &format!("pw-{user}")));
        match user.filter(|user| self.has(user)) {
            Some(user) => {
                let body = serde_json::json!({ "token": format!("canary-{user}") });
                Answer::ok("application/json", body.to_string())
            }
            None => Answer::error(403, "DENIED"),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HEAD of a blob.
    Head,
    /// GET of it.
    Get,
    /// A part of it.
    Range,
    /// A manifest by its digest.
    Manifest,
    /// One that an index names.
    Child,
    /// A manifest by its tag.
    Tag,
    /// The list of tags.
    Tags,
    /// What refers to a manifest.
    Referrers,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Head,
        Self::Get,
        Self::Range,
        Self::Manifest,
        Self::Child,
        Self::Tag,
        Self::Tags,
        Self::Referrers,
    ];
}

/// What the registry holds, in every repository.
pub struct Content {
    /// The only layer that is asked for.
    pub layer: Bytes,
    index: Manifest,
    child: Image,
}

impl Content {
    /// Puts it there.
    pub fn put(registry: &Upstream) -> Self {
        let (layer, child) = (bytes(7, 5000), Image::new(3));
        let index = Manifest::index(OCI_INDEX, &[&child.manifest]);
        for name in [HERE, THERE, OPEN] {
            registry.put_blob(name, layer.clone());
            registry.put_image(name, "child", &child);
            registry.put_manifest(name, "v1", &index);
        }
        Self {
            layer,
            index,
            child,
        }
    }

    /// The digest of the layer.
    pub fn digest(&self) -> String {
        sha256(&self.layer)
    }

    /// The request for one kind of it in a repository.
    pub fn request(&self, kind: Kind, name: &str) -> Request {
        let blob = format!("/v2/{name}/blobs/{}", self.digest());
        let manifest = |reference: &str| format!("/v2/{name}/manifests/{reference}");
        match kind {
            Kind::Head => Request::head(&blob),
            Kind::Get => Request::get(&blob),
            Kind::Range => Request::get(&blob).header("Range", "bytes=10-19"),
            Kind::Manifest => Request::get(&manifest(&self.index.digest())),
            Kind::Child => Request::get(&manifest(&self.child.manifest.digest())),
            Kind::Tag => Request::get(&manifest("v1")),
            Kind::Tags => Request::get(&format!("/v2/{name}/tags/list")),
            Kind::Referrers => {
                Request::get(&format!("/v2/{name}/referrers/{}", self.index.digest()))
            }
        }
    }

    /// The status of a right answer to it, and its body where that is the same in every repository.
    pub fn expected(&self, kind: Kind) -> (u16, Option<Bytes>) {
        let (status, body) = match kind {
            Kind::Tags | Kind::Referrers => return (200, None),
            Kind::Head => (200, Bytes::new()),
            Kind::Get => (200, self.layer.clone()),
            Kind::Range => (206, self.layer.slice(10..20)),
            Kind::Manifest | Kind::Tag => (200, self.index.bytes.clone()),
            Kind::Child => (200, self.child.manifest.bytes.clone()),
        };
        (status, Some(body))
    }
}

/// How the mirror decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Auto,
    Shared,
    Verify,
    Authenticated,
}

impl Mode {
    /// Whether it is the caller's own right that counts.
    pub fn is_by_caller(self) -> bool {
        matches!(self, Self::Auto | Self::Verify)
    }

    /// A mirror before `registry`, in this mode. It has a credential but under `auto`, and knows `alice`.
    pub fn setup(self, registry: &Upstream, more: &str) -> Setup {
        let setup = Setup::new();
        let (name, has_credential) = match self {
            Self::Auto => ("auto", false),
            Self::Shared => ("shared", true),
            Self::Verify => ("verify", true),
            Self::Authenticated => ("authenticated", true),
        };
        let mut setup = setup.upstream_with(REGISTRY, registry, &format!("access: {name}, {more}"));
        if has_credential {
            setup = setup.credentials(&format!(
                "{REGISTRY}: {{ username: robot, password: pw-robot }}\n"
            ));
        }
        if self == Self::Authenticated {
            let hash = bcrypt::hash("pw-alice", 5).expect("a hash");
            let file = setup.file("htpasswd", &format!("alice:{hash}\n"));
            let rules = r#"[{ users: ["*"], repositories: ["registry.example/team/**"] }]"#;
            setup = setup.line(&format!(
                "authentication: {{ htpasswd: '{}', rules: {rules} }}",
                file.display()
            ));
        }
        setup
    }

    /// What `user` brings along.
    pub fn authorize(self, request: Request, user: &str) -> Request {
        match self {
            Self::Shared => request,
            Self::Auto | Self::Verify => {
                request.header("Authorization", format!("Bearer canary-{user}"))
            }
            Self::Authenticated => {
                request.header("Authorization", basic(user, &format!("pw-{user}")))
            }
        }
    }
}
