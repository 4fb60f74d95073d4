//! What is on its way to disk, by key: the latest value of each, written by one writer after the other, so that two
//! writes of one key never change places, and whoever reads meanwhile reads what will be there.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::behind::Behind;

/// Values on their way to disk. Cheap to clone.
pub(super) struct Pending<K, V> {
    latest: Arc<Mutex<HashMap<K, V>>>,
    behind: Behind,
}

impl<K, V> Pending<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + PartialEq + Send + 'static,
{
    /// Nothing is under way; what will be counts with `behind`.
    pub(super) fn new(behind: Behind) -> Self {
        Self {
            latest: Arc::default(),
            behind,
        }
    }

    /// What the disk will say of `key`, where that is still under way.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.latest().get(key).cloned()
    }

    /// Sends `value` on its way. `write` puts a value on disk, and blocks; it is called for this value unless a later
    /// one overtakes it.
    pub(super) fn set(&self, key: K, value: V, write: impl Fn(&K, &V) + Send + 'static) {
        let has_writer = self.latest().insert(key.clone(), value).is_some();
        if has_writer {
            return;
        }
        let this = self.clone();
        self.behind.run(move || {
            while let Some(value) = this.get(&key) {
                write(&key, &value);
                let mut latest = this.latest();
                if latest.get(&key) == Some(&value) {
                    latest.remove(&key);
                    break;
                }
            }
        });
    }

    /// The same, for a value that comes from elsewhere: what is on its way already is newer, and stays.
    pub(super) fn set_first(&self, key: K, value: V, write: impl Fn(&K, &V) + Send + 'static) {
        let is_known = self.latest().contains_key(&key);
        if !is_known {
            self.set(key, value, write);
        }
    }

    fn latest(&self) -> MutexGuard<'_, HashMap<K, V>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Clone for Pending<K, V> {
    fn clone(&self) -> Self {
        Self {
            latest: Arc::clone(&self.latest),
            behind: self.behind.clone(),
        }
    }
}

impl<K, V> fmt::Debug for Pending<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;

    use super::*;

    #[tokio::test]
    async fn the_last_value_is_the_one_that_stays() {
        let behind = Behind::default();
        let pending = Pending::new(behind.clone());
        let written = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        for value in [Some(1), Some(2), None] {
            let (written, gate) = (Arc::clone(&written), Arc::clone(&gate));
            pending.set("key", value, move |_, value| {
                let open = gate.0.lock().expect("not poisoned");
                drop(
                    gate.1
                        .wait_while(open, |open| !*open)
                        .expect("not poisoned"),
                );
                written.lock().expect("not poisoned").push(*value);
            });
            assert_eq!(pending.get(&"key"), Some(value));
        }
        *gate.0.lock().expect("not poisoned") = true;
        gate.1.notify_all();
        behind.settled().await;
        assert_eq!(pending.get(&"key"), None);
        let written = written.lock().expect("not poisoned");
        assert_eq!(written.last(), Some(&None));
        assert!(
            written.len() <= 2,
            "what was overtaken is not written: {written:?}"
        );
    }
}
