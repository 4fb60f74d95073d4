//! Notices that files of a configuration have changed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Files;

/// For how long nothing must have happened before the files are looked at: editors and package managers write in
/// several steps.
const QUIET: Duration = Duration::from_millis(300);

/// How long that is waited for at most, in a directory where something happens all the time.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(3);

/// After which time the files are looked at in any case: network file systems do not tell what others do, and the
/// system may have no more watches to give.
const LOOK_ANYWAY: Duration = Duration::from_mins(1);

/// Watches the directories of files: a file that is replaced, as they should be, is another one under the same name.
#[derive(Debug)]
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    events: Arc<Notify>,
    directories: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches nothing yet. Where the system has no watches to give, that is logged, and changes are noticed late.
    pub fn new() -> Self {
        let events = Arc::new(Notify::new());
        let handler = {
            let events = Arc::clone(&events);
            move |event: Result<Event, notify::Error>| {
                // What went wrong may have been an event.
                if event.is_ok_and(|event| !is_a_look(event.kind)) {
                    events.notify_one();
                }
            }
        };
        let watcher = notify::recommended_watcher(handler);
        let watcher = watcher.inspect_err(not_watched).ok();
        Self {
            watcher,
            events,
            directories: BTreeSet::new(),
        }
    }

    /// Watches the directories of `files`, and no others.
    pub fn follow(&mut self, files: &Files) {
        let wanted = files.directories();
        if let Some(watcher) = &mut self.watcher {
            for old in self.directories.difference(&wanted) {
                // One that is gone is not watched any more.
                let _ = watcher.unwatch(old);
            }
            for directory in &wanted {
                // Also those that are watched: one that was replaced by another needs a new watch.
                if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                    not_watched(&error);
                }
            }
        }
        self.directories = wanted;
    }

    /// Waits until something may have changed, and then until that has come to rest.
    ///
    /// Cancel-safe, but for the rest: an event that is being waited out may be noticed late.
    pub async fn stirred(&self) {
        tokio::select! {
            () = self.events.notified() => {}
            () = sleep(LOOK_ANYWAY) => return,
        }
        let quiet = async { while timeout(QUIET, self.events.notified()).await.is_ok() {} };
        // It is looked at in any case.
        let _ = timeout(QUIET_WAIT_MAX, quiet).await;
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether somebody has only looked, as we do ourselves.
fn is_a_look(kind: EventKind) -> bool {
    let has_written = EventKind::Access(AccessKind::Close(AccessMode::Write));
    kind.is_access() && kind != has_written
}

fn not_watched(error: &notify::Error) {
    tracing::warn!(%error, every = ?LOOK_ANYWAY, "cannot watch the configuration, looking at it instead");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    /// Long enough for any machine, and far shorter than [`LOOK_ANYWAY`].
    const SOON: Duration = Duration::from_secs(20);

    fn watched(path: &Path) -> (Watch, Files) {
        let mut files = Files::default();
        files.read_text(path).expect("readable");
        let mut watch = Watch::new();
        watch.follow(&files);
        (watch, files)
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_noticed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.yaml");
        fs::write(&path, "a").expect("written");
        let (watch, files) = watched(&path);
        let new = directory.path().join("a.yaml.new");
        fs::write(&new, "b").expect("written");
        fs::rename(&new, &path).expect("renamed");
        timeout(SOON, watch.stirred()).await.expect("noticed");
        assert!(files.have_changed());
    }

    #[tokio::test]
    async fn a_volume_of_kubernetes_that_is_swapped_is_noticed_each_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        let publish = |version: &str| {
            fs::create_dir(root.join(version)).expect("made");
            fs::write(root.join(version).join("a.yaml"), version).expect("written");
            symlink(version, root.join("..data_tmp")).expect("linked");
            fs::rename(root.join("..data_tmp"), root.join("..data")).expect("renamed");
        };
        publish("..1");
        let path = root.join("a.yaml");
        symlink("..data/a.yaml", &path).expect("linked");
        let (mut watch, mut files) = watched(&path);
        for (old, new) in [("..1", "..2"), ("..2", "..3")] {
            publish(new);
            fs::remove_dir_all(root.join(old)).expect("removed");
            timeout(SOON, watch.stirred()).await.expect("noticed");
            assert!(files.have_changed());
            files = Files::default();
            files.read_text(&path).expect("readable");
            watch.follow(&files);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_told_files_are_looked_at_all_the_same() {
        let begun = tokio::time::Instant::now();
        Watch::new().stirred().await;
        assert!(begun.elapsed() >= LOOK_ANYWAY);
    }
}
