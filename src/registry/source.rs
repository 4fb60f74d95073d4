//! Who asks, and what they are given by whose right: the way from a caller to a source.

use hyper::header::{AUTHORIZATION, VIA};

use super::error::{Content, Error};
use super::route::Target;
use super::{Ask, Registry};
use crate::access::{self, Asked, Claims, Refusal, Requirement};
use crate::oci::Namespace;
use crate::upstream::{self, AccessMode, Repository, Via};

impl Registry {
    /// The source the caller brings, once it is decided what they have to show for it.
    pub(super) async fn source(
        &self,
        ask: &Ask,
        target: &Target,
        content: Content,
    ) -> Result<Repository, Error> {
        let mode = self.upstreams.access(&target.namespace).mode;
        let claims = self.claims(ask, mode).await;
        self.source_by(claims, mode, ask, target, content)
    }

    /// The same, where what the caller has to show can be seen at once.
    pub(super) fn source_at_hand(
        &self,
        ask: &Ask,
        target: &Target,
        content: Content,
    ) -> Option<Repository> {
        let mode = self.upstreams.access(&target.namespace).mode;
        let claims = self.claims_at_hand(ask, mode)?;
        self.source_by(claims, mode, ask, target, content).ok()
    }

    fn source_by(
        &self,
        claims: Claims,
        mode: AccessMode,
        ask: &Ask,
        target: &Target,
        content: Content,
    ) -> Result<Repository, Error> {
        let (namespace, repository) = (&target.namespace, &target.repository);
        if !self.upstreams.directory().offers(namespace, repository) {
            return Err(Error::NotOffered(namespace.clone()));
        }
        let asked = Asked {
            namespace,
            repository,
            mode,
            has_credential: self.upstreams.has_credential(namespace, repository),
        };
        let requirement = access::decide(self.upstreams.directory(), &self.rules, asked, claims)
            .map_err(|refusal| Error::access(refusal, &ask.caller))?;
        let via = Via::parse(ask.headers().get_all(VIA));
        if self.upstreams.is_circle(&via) {
            // Not even from the cache: joining a fill that waits for this very request would hold up both.
            return Err(Error::Cache(upstream::Error::Loop.into(), content));
        }
        let source = self.upstreams.repository(namespace, repository, &via);
        let source = match &ask.kept {
            Some(kept) => source.keeping(kept.clone()),
            None => source,
        };
        Ok(match requirement {
            Requirement::Open | Requirement::Mirror | Requirement::Client(_) => source,
            Requirement::OpenOr(token) => source.or_for_caller(token),
            Requirement::Caller(token) => source.for_caller(token),
        })
    }

    /// What the caller brings along: an identity where the mirror wants one, else a token for the upstream.
    async fn claims(&self, ask: &Ask, mode: AccessMode) -> Claims {
        match self.claims_at_hand(ask, mode) {
            Some(claims) => claims,
            None => Claims {
                identity: self.clients.identify(&ask.caller, ask.headers()).await,
                token: None,
            },
        }
    }

    /// The same, unless it takes time to find out.
    fn claims_at_hand(&self, ask: &Ask, mode: AccessMode) -> Option<Claims> {
        match mode {
            AccessMode::Authenticated => None,
            AccessMode::Auto | AccessMode::Verify if ask.is_search => Some(Claims::default()),
            AccessMode::Auto | AccessMode::Verify => {
                let header = ask.headers().get(AUTHORIZATION);
                Some(Claims {
                    token: header.and_then(|header| self.upstreams.caller_token(header)),
                    identity: None,
                })
            }
            AccessMode::Shared => Some(Claims::default()),
        }
    }

    /// Whether a caller may know that this is a registry: where it wants to know its clients, those alone, so that a
    /// client's log-in shows whether its password is right.
    pub(super) async fn welcome(
        &self,
        ask: &Ask,
        namespace: Option<&Namespace>,
    ) -> Result<(), Error> {
        let directory = self.upstreams.directory();
        let namespace = match namespace {
            Some(namespace) => directory.canonical(namespace),
            None => directory.default_upstream().clone(),
        };
        let mode = self.upstreams.access(&namespace).mode;
        let is_known =
            mode != AccessMode::Authenticated || self.claims(ask, mode).await.identity.is_some();
        if is_known {
            Ok(())
        } else {
            Err(Error::access(Refusal::Unknown(namespace), &ask.caller))
        }
    }
}
