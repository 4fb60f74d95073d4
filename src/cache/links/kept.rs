//! Where links and rights are kept: in memory while they are hot, on disk behind the answer.

use std::time::Duration;

use tokio::task::spawn_blocking;

use super::record::{LinkFile, Place, RightFile, json};
use super::right::Right;
use super::{LinkKey, Links, RightKey};
use crate::cache::shelf::told;
use crate::oci::Digest;
use crate::storage::{self, Local};
use crate::upstream::{Holder, Repository};

/// A right that was confirmed again within this time is not written again: after a restart it is merely checked that
/// much earlier.
const CONFIRMED_AGAIN: Duration = Duration::from_hours(1);

impl Links {
    pub(super) fn right_key(source: &Repository) -> RightKey {
        (source.holder().clone(), Place::of(source))
    }

    pub(super) async fn is_linked(&self, source: &Repository, digest: &Digest) -> bool {
        let key = (Place::of(source), *digest);
        if self.hot.contains_key(&key) {
            return true;
        }
        if let Some(pending) = self.linking.get(&key) {
            return pending;
        }
        let wanted = key.clone();
        let is_linked = self
            .storage(move |storage| {
                let (place, digest) = &wanted;
                let record = storage.record(place.link(digest))?;
                Ok(record.is_some_and(|content| LinkFile::is_about(&content, place, digest)))
            })
            .await
            .unwrap_or(false);
        let is_linked = is_linked || self.is_linked_elsewhere(&key).await;
        // Somebody may know better meanwhile.
        let is_linked = self.linking.get(&key).unwrap_or(is_linked);
        if is_linked {
            self.hot.insert(key, ());
        }
        is_linked
    }

    /// Whether another replica was told of the link.
    async fn is_linked_elsewhere(&self, (place, digest): &LinkKey) -> bool {
        let found = self.tier.record(place.link(digest)).await;
        found.is_some_and(|content| LinkFile::is_about(&content, place, digest))
    }

    pub(super) fn link(&self, source: &Repository, digest: &Digest) {
        let key = (Place::of(source), *digest);
        if self.hot.contains_key(&key) {
            return;
        }
        self.hot.insert(key.clone(), ());
        self.put_link(key, true);
    }

    pub(super) fn unlink(&self, source: &Repository, digest: &Digest) {
        let key = (Place::of(source), *digest);
        self.put_link(key.clone(), false);
        self.hot.invalidate(&key);
    }

    fn put_link(&self, key: LinkKey, is_linked: bool) {
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        let tier = self.tier.clone();
        self.linking.set(key, is_linked, move |key, is_linked| {
            let (place, digest) = key;
            let written = if *is_linked {
                let file = LinkFile::new(place, digest);
                storage.write_record(place.link(digest), &json(&file))
            } else {
                storage.remove_record(place.link(digest))
            };
            told(written, &metrics);
            tier.note_change(place.link(digest), *is_linked);
        });
    }

    pub(super) async fn right(&self, source: &Repository) -> Option<Right> {
        let key = Self::right_key(source);
        if let Some(right) = self.rights.get(&key) {
            return Some(right);
        }
        if let Some(pending) = self.granting.get(&key) {
            return pending;
        }
        if matches!(source.holder(), Holder::Caller(_)) {
            return None;
        }
        let (holder, place) = key.clone();
        let stored = self.storage(move |storage| storage.record(place.right(&holder)));
        let stored = stored.await.flatten();
        let checked = stored.and_then(|content| RightFile::parse(&content, &key));
        let checked = if let Some(checked) = checked {
            checked
        } else {
            // Another replica was let in by the same credential.
            let content = self.tier.record(key.1.right(&key.0)).await?;
            RightFile::parse(&content, &key)?
        };
        let right = Right::new(source, checked);
        if let Some(pending) = self.granting.get(&key) {
            return pending;
        }
        self.rights.insert(key, right);
        Some(right)
    }

    pub(super) fn keep_right(&self, source: &Repository, mut right: Right) {
        let key = Self::right_key(source);
        let known = self.rights.get(&key);
        if matches!(source.holder(), Holder::Caller(_)) {
            let grace = source.policy().authz_grace;
            let until = right.until.checked_add(grace).unwrap_or(right.until);
            self.believed.insert(key.1.clone(), until);
            self.rights.insert(key, right);
            return;
        }
        let is_on_disk = known.filter(|known| {
            let later = right.checked.duration_since(known.on_disk);
            later.is_ok_and(|later| later < CONFIRMED_AGAIN)
        });
        if let Some(known) = is_on_disk {
            right.on_disk = known.on_disk;
            self.rights.insert(key, right);
        } else {
            self.rights.insert(key.clone(), right);
            self.put_right(key, Some(right));
        }
    }

    pub(super) fn drop_right(&self, source: &Repository) {
        let key = Self::right_key(source);
        if !matches!(source.holder(), Holder::Caller(_)) {
            self.put_right(key.clone(), None);
        }
        self.rights.invalidate(&key);
    }

    fn put_right(&self, key: RightKey, right: Option<Right>) {
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        let tier = self.tier.clone();
        self.granting.set(key, right, move |key, right| {
            let (holder, place) = key;
            let written = match right {
                Some(right) => {
                    let file = RightFile::new(key, right.checked);
                    storage.write_record(place.right(holder), &json(&file))
                }
                None => storage.remove_record(place.right(holder)),
            };
            told(written, &metrics);
            tier.note_change(place.right(holder), right.is_some());
        });
    }

    /// Waits for `work` on storage. A failure is counted and told, and is otherwise nothing.
    async fn storage<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Local) -> Result<T, storage::Error> + Send + 'static,
    ) -> Option<T> {
        let (storage, metrics) = (self.storage.clone(), self.metrics.clone());
        let done = spawn_blocking(move || told(work(&storage), &metrics)).await;
        done.ok().flatten()
    }
}
