//! By whose right a repository is read, and what follows from that.

use super::table::Row;
use super::{AccessMode, AccessPolicy, CallerToken, Holder, Repository};

impl Repository {
    /// The same, as the holder of `token` may see it, or as anybody may: the mirror's credential is left out.
    #[must_use]
    pub fn for_caller(self, token: Option<CallerToken>) -> Self {
        Self {
            holder: match &token {
                Some(token) => Holder::Caller(token.hash()),
                None => Holder::Anybody,
            },
            credential: None,
            caller: token,
            reserve: None,
            ..self
        }
    }

    /// The same, with a token in reserve for when anybody is refused.
    #[must_use]
    pub fn or_for_caller(self, token: CallerToken) -> Self {
        Self {
            reserve: Some(token),
            ..self
        }
    }

    /// What to ask by once anybody is refused: the same repository, as the holder of the token in reserve may see it.
    pub fn in_reserve(&self) -> Option<Self> {
        let token = self.reserve.clone()?;
        Some(self.clone().for_caller(Some(token)))
    }

    /// Whose right it is that is used here.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// The caller's own token, where that is what is used.
    pub fn caller(&self) -> Option<&CallerToken> {
        self.caller.as_ref()
    }

    /// Who may read what comes from this upstream.
    pub fn policy(&self) -> AccessPolicy {
        self.upstream.access
    }

    /// Whether what this repository gives is everybody's: nothing was shown for it, and nothing need be shown to us.
    pub fn gives_to_anybody(&self) -> bool {
        let mode = self.upstream.access.mode;
        self.holder == Holder::Anybody && matches!(mode, AccessMode::Auto | AccessMode::Shared)
    }

    /// Whether what is everybody's elsewhere may be read through here without a word of this upstream.
    pub fn takes_public_content(&self) -> bool {
        self.upstream.access.mode != AccessMode::Verify
    }

    /// Whether its word is enough for bytes that somebody else sent: a registry that anybody could set up may say that
    /// it has everything.
    pub fn is_believed(&self) -> bool {
        let namespace = self.namespace();
        self.inner.directory.is_configured(namespace) || Row::find(namespace.as_str()).is_some()
    }

    /// Whether callers without a right are told how to show one.
    pub(super) fn relays(&self) -> bool {
        let mode = self.upstream.access.mode;
        self.credential.is_none() && matches!(mode, AccessMode::Auto | AccessMode::Verify)
    }
}
