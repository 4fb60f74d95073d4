//! How much one client may have of what all share: the keys of `clients`.

use super::problem::Findings;
use super::reader::Section;
use super::value;
use super::written::Written;

/// Most different things one client may have under way where nobody says otherwise: half of the blobs that may be on
/// their way in, so that there is as much for all the others, and several times what a node asks for that starts all its
/// pods at once (containerd fetches three layers of an image at a time).
const REQUESTS: usize = 128;

/// `clients`.
#[derive(Default)]
pub(super) struct RawClients {
    connections: Option<Written>,
    requests: Option<Written>,
}

impl RawClients {
    pub(super) fn read(clients: &mut Section<'_>) -> Self {
        Self {
            connections: clients.text("connections"),
            requests: clients.text("requests"),
        }
    }

    /// Most connections, where that is written, and most different things under way.
    pub(super) fn check(&self, findings: &Findings) -> (Option<usize>, usize) {
        let given = |written: &Option<Written>| {
            let written = written.as_ref()?;
            findings.parse(written, value::per_client)
        };
        (
            given(&self.connections),
            given(&self.requests).unwrap_or(REQUESTS),
        )
    }
}
