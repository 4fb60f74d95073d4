//! Who may read what. Pure, and decided before the cache is asked, so that the answer never depends on what happens
//! to be cached.

mod identity;
pub use identity::Identity;

mod rules;
pub use rules::{Pattern, Rule, Rules};

mod password;
pub use password::{PasswordFile, PasswordFileError};

use crate::oci::{Namespace, RepositoryName};
use crate::upstream::{AccessMode, CallerToken, Directory, UnknownNamespaces};

/// What a caller has to show before a repository is served to them. The cache proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing: the mirror asks as anybody could, and gives on what anybody would get.
    Open,
    /// Nothing where anybody may read it; else that the caller's own token reads it.
    OpenOr(CallerToken),
    /// That the mirror's own credential reads it: who reaches the port may read what that may read.
    Mirror,
    /// That the caller's own token reads it; without one, that anybody may.
    Caller(Option<CallerToken>),
    /// What this known client has shown already. The mirror reads on their behalf.
    Client(Identity),
}

/// What a caller brings along.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// A token for an upstream.
    pub token: Option<CallerToken>,
    /// Who they are to the mirror, once that is proven.
    pub identity: Option<Identity>,
}

/// What is asked for, and what the operator said about it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The registry, in its canonical form.
    pub namespace: &'a Namespace,
    /// The repository, as that registry calls it.
    pub repository: &'a RepositoryName,
    /// What callers have to show for this registry.
    pub mode: AccessMode,
    /// Whether the mirror has a credential for the repository.
    pub has_credential: bool,
}

/// Why a repository is not served to a caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Only configured registries are served, and this is none.
    #[error("{0} is not configured here")]
    NotServed(Namespace),
    /// The name can only mean something private, and private registries are served by configuration alone.
    #[error("{0} is no public registry")]
    Private(Namespace),
    /// The caller has not said who they are.
    #[error("only known clients may read from {0}")]
    Unknown(Namespace),
    /// The caller is known, and no rule lets them read this.
    #[error("{0} may not read this repository")]
    Forbidden(Identity),
}

/// Decides about a repository, by names and claims alone.
///
/// # Errors
/// [`Refusal`], where it is not served.
pub fn decide(
    directory: &Directory,
    rules: &Rules,
    asked: Asked<'_>,
    claims: Claims,
) -> Result<Requirement, Refusal> {
    let namespace = asked.namespace;
    if !directory.serves(namespace) {
        return Err(match directory.unknown_namespaces() {
            UnknownNamespaces::Deny => Refusal::NotServed(namespace.clone()),
            UnknownNamespaces::Public => Refusal::Private(namespace.clone()),
        });
    }
    match asked.mode {
        AccessMode::Auto | AccessMode::Shared if asked.has_credential => Ok(Requirement::Mirror),
        AccessMode::Shared => Ok(Requirement::Open),
        AccessMode::Auto => Ok(match claims.token {
            None => Requirement::Open,
            Some(token) => Requirement::OpenOr(token),
        }),
        AccessMode::Verify => Ok(Requirement::Caller(claims.token)),
        AccessMode::Authenticated => match claims.identity {
            None => Err(Refusal::Unknown(namespace.clone())),
            Some(identity) if rules.allow(&identity, namespace, asked.repository) => {
                Ok(Requirement::Client(identity))
            }
            Some(identity) => Err(Refusal::Forbidden(identity)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Config, Credentials, Proxies};

    fn directory() -> Directory {
        Directory::new(&Config {
            default_upstream: "docker.io".parse().expect("a namespace"),
            further_defaults: Vec::new(),
            named: Vec::new(),
            unknown_namespaces: UnknownNamespaces::Public,
            upstreams: Vec::new(),
            credentials: Credentials::default(),
            proxies: Proxies::default(),
        })
    }

    fn asked(
        mode: AccessMode,
        has_credential: bool,
        claims: Claims,
    ) -> Result<Requirement, Refusal> {
        let rule = Rule {
            users: vec!["ci".parse().expect("a pattern")],
            repositories: vec!["docker.io/team/*".parse().expect("a pattern")],
        };
        let asked = Asked {
            namespace: &"docker.io".parse().expect("a namespace"),
            repository: &"team/app".parse().expect("a name"),
            mode,
            has_credential,
        };
        decide(&directory(), &Rules::new(vec![rule]), asked, claims)
    }

    #[test]
    fn the_mode_and_the_credential_decide_what_is_to_be_shown() {
        let nothing = Claims::default;
        let check = |mode, has_credential, expected: Requirement| {
            assert_eq!(
                asked(mode, has_credential, nothing()),
                Ok(expected),
                "{mode:?}"
            );
        };
        check(AccessMode::Auto, true, Requirement::Mirror);
        check(AccessMode::Auto, false, Requirement::Open);
        check(AccessMode::Shared, true, Requirement::Mirror);
        check(AccessMode::Shared, false, Requirement::Open);
        check(AccessMode::Verify, true, Requirement::Caller(None));
        check(AccessMode::Verify, false, Requirement::Caller(None));
    }

    #[test]
    fn known_clients_need_a_rule_and_others_a_name() {
        let as_user = |name: &str| Claims {
            identity: Some(Identity::proven(name)),
            token: None,
        };
        for has_credential in [true, false] {
            let ask = |claims| asked(AccessMode::Authenticated, has_credential, claims);
            assert_eq!(
                ask(as_user("ci")),
                Ok(Requirement::Client(Identity::proven("ci")))
            );
            assert_eq!(
                ask(as_user("cj")),
                Err(Refusal::Forbidden(Identity::proven("cj")))
            );
            assert!(matches!(ask(Claims::default()), Err(Refusal::Unknown(_))));
        }
    }
}
