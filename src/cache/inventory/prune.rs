//! What goes because somebody says so.
//!
//! Blobs go, and nothing else: the small records beside them say what something is, not that it is there, and have a bound
//! of their own. Whoever is reading one reads on; whoever wants it next has it fetched again.

use std::time::{Duration, SystemTime};

use super::{Amounts, Inventory, Stored};
use crate::oci::{Digest, Namespace, RepositoryPattern, RepositoryPatterns};
use crate::storage::{self, Local};

/// What is to go: what fits every condition there is.
#[derive(Debug, Clone, Default)]
pub struct PruneRule {
    /// What nobody has used for so long.
    pub unused_for: Option<Duration>,
    /// What these registries have, and no other; none for any.
    pub namespaces: Vec<Namespace>,
    /// What repositories of these names have, and no other; none for any.
    pub repositories: Vec<RepositoryPattern>,
    /// No more than leaves so many bytes, what nobody has used for longest first.
    pub to_bytes: Option<u64>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// What went, or would go.
    pub gone: Amounts,
    /// What is left of the whole.
    pub left: Amounts,
    /// Blobs that should have gone and could not be removed.
    pub failed: u64,
}

impl PruneRule {
    /// Whether it says anything.
    pub const fn is_empty(&self) -> bool {
        self.unused_for.is_none()
            && self.namespaces.is_empty()
            && self.repositories.is_empty()
            && self.to_bytes.is_none()
    }
}

impl Inventory {
    /// Removes what `rule` says from `storage`, at the time `now`; tells what would go, where it is `dry`. Blocks.
    ///
    /// # Errors
    /// `Touch` when a mirror that runs beside cannot be told.
    pub fn prune(
        &self,
        storage: &Local,
        rule: &PruneRule,
        now: SystemTime,
        dry: bool,
    ) -> Result<Pruned, storage::Error> {
        let mut pruned = Pruned {
            left: self.usage().total,
            ..Pruned::default()
        };
        for (digest, bytes) in self.choose(rule, now) {
            let removed = dry || {
                let removed = storage.remove_blob(&digest);
                removed
                    .inspect_err(
                        |error| tracing::warn!(%digest, cause = %error.cause, "a blob stays"),
                    )
                    .is_ok()
            };
            if removed {
                pruned.gone.add(bytes);
                pruned.left.blobs -= 1;
                pruned.left.bytes -= bytes;
            } else {
                pruned.failed += 1;
            }
        }
        if !dry {
            storage.note_change()?;
        }
        Ok(pruned)
    }

    /// What `rule` says that goes, and its bytes: what nobody has used for longest first.
    fn choose(&self, rule: &PruneRule, now: SystemTime) -> Vec<(Digest, u64)> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        let patterns = RepositoryPatterns::new(rule.repositories.clone());
        let mut fitting: Vec<_> = self
            .blobs
            .iter()
            .filter(|(_, blob)| {
                let unused = now.saturating_sub(blob.used);
                rule.unused_for.is_none_or(|time| unused >= time.as_secs())
                    && self.is_within(blob, &rule.namespaces, &patterns)
            })
            .collect();
        // By digest where two were used in one second, so that a dry run tells what the next one does.
        fitting.sort_unstable_by_key(|(digest, blob)| (blob.used, **digest));
        let mut left = self.usage().total.bytes;
        let mut chosen = Vec::new();
        for (digest, blob) in fitting {
            if rule.to_bytes.is_some_and(|bytes| left <= bytes) {
                break;
            }
            left -= blob.bytes;
            chosen.push((*digest, blob.bytes));
        }
        chosen
    }

    /// Whether all that have a blob are meant. What nobody is known to have is meant only where anybody is.
    fn is_within(
        &self,
        blob: &Stored,
        namespaces: &[Namespace],
        patterns: &RepositoryPatterns,
    ) -> bool {
        if namespaces.is_empty() && *patterns == RepositoryPatterns::default() {
            return true;
        }
        let mut places = blob.places.iter().filter_map(|number| self.place(*number));
        !blob.places.is_empty()
            && places.all(|place| {
                (namespaces.is_empty() || namespaces.contains(&place.namespace))
                    && patterns.fit(&place.repository)
            })
    }
}
