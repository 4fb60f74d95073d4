//! Credentials that are not known before they are needed: they are lent for one request, and asked for anew where they
//! are refused.

use super::session::{Answer, Ask, Session};
use super::travel::Lost;
use super::{Credential, CredentialSource, Directory, Error, body};
use crate::clock::Clock;
use crate::oci::{Namespace, RepositoryName};

/// Who knows the credential for one repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lender<'a> {
    pub(super) source: &'a CredentialSource,
    /// Which names are the same registry.
    pub(super) directory: &'a Directory,
    /// As the registry itself calls it.
    pub(super) repository: &'a RepositoryName,
}

impl Lender<'_> {
    /// The credential that is good now; `None` is anonymous.
    ///
    /// # Errors
    /// `Unavailable` and `Refused` where it cannot be had: never is something else shown in its place.
    async fn lend(
        &self,
        namespace: &Namespace,
        clock: &Clock,
    ) -> Result<Option<Credential>, Error> {
        match self.source {
            CredentialSource::Fixed(credential) => Ok(Some(credential.clone())),
            CredentialSource::DockerConfig(file) => {
                let canonical = |name: &Namespace| self.directory.canonical(name);
                let found = file.find(namespace, self.repository.as_str(), &canonical);
                found.await
            }
            CredentialSource::Helper(helper) => helper.lend(namespace, clock).await,
        }
    }

    /// Another credential than the one that was refused, where there is one. Files were looked at a moment ago.
    async fn renew(
        &self,
        namespace: &Namespace,
        refused: Option<&Credential>,
        clock: &Clock,
    ) -> Result<Option<Credential>, Error> {
        match self.source {
            CredentialSource::Fixed(_) | CredentialSource::DockerConfig(_) => Ok(None),
            CredentialSource::Helper(helper) => helper.renew(namespace, refused, clock).await,
        }
    }
}

impl Session<'_> {
    /// One conversation with the credential that is good now, and another one where that is refused and there is a
    /// newer one.
    ///
    /// # Errors
    /// What keeps an answer or a credential from coming.
    pub(super) async fn converse_as_lent(&self, ask: &Ask<'_>) -> Result<Answer, Lost> {
        let Some(lender) = self.lender else {
            return self.converse(ask).await;
        };
        if let CredentialSource::Fixed(_) = lender.source {
            return self.converse(ask).await;
        }
        let (namespace, clock) = (&self.upstream.namespace, &self.shared.clock);
        let lent = lender.lend(namespace, clock).await?;
        let outcome = self.showing(lent.as_ref()).converse(ask).await;
        let is_refused = match &outcome {
            Ok(answer) => answer.is_refusal(),
            Err(lost) => matches!(lost.error, Error::Denied(_)),
        };
        if !is_refused {
            return outcome;
        }
        let Some(newer) = lender.renew(namespace, lent.as_ref(), clock).await? else {
            return outcome;
        };
        if let Ok(answer) = outcome {
            body::discard(answer.response).await;
        }
        self.showing(Some(&newer)).converse(ask).await
    }

    fn showing<'b>(&'b self, credential: Option<&'b Credential>) -> Session<'b> {
        Session {
            credential,
            ..self.clone()
        }
    }
}
