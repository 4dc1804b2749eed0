//! Decides when the server's files are read again: when they changed, or on request. Does not know what the files are:
//! `Server` waits here, and the owner of a file reads it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::config::{Config, ConfigError, Live};

/// Time from the first sign of a change until the files are read, so that several files can be replaced together.
const SETTLE: Duration = Duration::from_millis(300);
/// Longest time between two readings. Some changes do not show in a file's folder: a symlink higher up that is
/// switched, a folder that is replaced, a change by another machine on a network file system.
const RECHECK: Duration = Duration::from_secs(60);

/// Makes a running server read its certificate and key again, and take over changed settings, as the binary does on
/// SIGHUP.
#[derive(Debug, Clone)]
pub struct Reload {
    asked: Arc<Notify>,
    live: Arc<Live>,
}

impl Reload {
    pub(crate) fn new(asked: Arc<Notify>, live: Arc<Live>) -> Self {
        Self { asked, live }
    }

    /// Takes over the settings that may change while a server runs ([`is_live`](crate::config::is_live)). They apply to
    /// later requests; existing connections stay.
    ///
    /// # Errors
    /// Any setting is out of its bounds; then nothing changes.
    pub fn apply(&self, config: &Config) -> Result<(), ConfigError> {
        config.validate()?;
        self.live.take(config);
        Ok(())
    }

    /// Makes the server read its files again. Returns at once: the result is logged, and unusable files change nothing.
    /// Has no effect once the server drains.
    pub fn reload(&self) {
        self.asked.notify_one();
    }
}

/// Why files are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Something happened in their folders; the files may be unchanged.
    Changed,
    /// A user asked, and expects a log line about the result.
    Requested,
}

/// Watches the folders of some files. A file is often replaced by renaming another to its name, or by switching a
/// symlink, which no watch on the file itself would notice.
pub(crate) struct FileWatch {
    folders: BTreeSet<PathBuf>,
    /// Folders that cannot be watched, and were warned about.
    unwatched: BTreeSet<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    changed: Arc<Notify>,
    asked: Arc<Notify>,
    /// When a change that was seen is reported.
    due: Option<Instant>,
    /// When the files are read even if no change was seen.
    recheck: Instant,
}

impl FileWatch {
    /// Starts to watch. If that fails it logs a warning, and only [`Reload`] remains.
    pub(crate) fn new<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let changed = Arc::new(Notify::new());
        let seen = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may hide a change.
            if event.map_or(true, |event| is_change(event.kind)) {
                seen.notify_one();
            }
        });
        let watcher = watcher.map_err(|e| warn!("Files are not watched; reload them with SIGHUP: {e}")).ok();
        let folders = files.into_iter().map(|file| folder(file)).collect();
        let asked = Arc::new(Notify::new());
        let mut watch = Self {
            folders,
            unwatched: BTreeSet::new(),
            watcher,
            changed,
            asked,
            due: None,
            recheck: Instant::now() + RECHECK,
        };
        watch.begin();
        watch
    }

    /// Notified to request a reading.
    pub(crate) fn asked(&self) -> Arc<Notify> {
        Arc::clone(&self.asked)
    }

    /// Waits until the files should be read. Cancel safe: a change or request that was noticed is reported by the next
    /// call.
    pub(crate) async fn next(&mut self) -> Cause {
        let (changed, asked) = (Arc::clone(&self.changed), Arc::clone(&self.asked));
        let cause = loop {
            tokio::select! {
                () = asked.notified() => break Cause::Requested,
                () = changed.notified(), if self.due.is_none() => self.due = Some(Instant::now() + SETTLE),
                () = until(self.due), if self.due.is_some() => break Cause::Changed,
                () = sleep_until(self.recheck) => break Cause::Changed,
            }
        };
        // Changes seen up to now are covered by this reading.
        let _ = changed.notified().now_or_never();
        self.due = None;
        self.recheck = Instant::now() + RECHECK;
        // Watch folders again that were replaced.
        self.begin();
        cause
    }

    fn begin(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in &self.folders {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.unwatched.remove(folder)),
                Err(e) => {
                    if self.unwatched.insert(folder.clone()) {
                        warn!("Files in {} are not watched; reload them with SIGHUP: {e}", folder.display());
                    }
                }
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Whether an event means that a file's content may have changed. Reading a file is an event as well, and must not
/// cause another reading.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn next(watch: &mut FileWatch) -> Cause {
        timeout(PATIENCE, watch.next()).await.expect("in time")
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_reading_is_no_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "1").expect("written");
        let mut watch = FileWatch::new([&file]);
        for text in ["2", "3"] {
            fs::write(&file, text).expect("written");
            assert_eq!(next(&mut watch).await, Cause::Changed);
            assert_eq!(fs::read_to_string(&file).expect("read"), text);
            assert!(timeout(2 * SETTLE, watch.next()).await.is_err(), "reading is no change");
        }
        let other = folder.path().join("other");
        fs::write(&other, "4").expect("written");
        next(&mut watch).await;
        fs::rename(&other, &file).expect("renamed");
        assert_eq!(next(&mut watch).await, Cause::Changed);
    }

    #[tokio::test]
    async fn a_cancelled_wait_loses_no_change_and_no_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        let mut watch = FileWatch::new([&file]);
        watch.asked().notify_one();
        assert_eq!(next(&mut watch).await, Cause::Requested);
        fs::write(&file, "1").expect("written");
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            // Shorter than the whole wait.
            if timeout(SETTLE / 10, watch.next()).await.is_ok() {
                return;
            }
        }
        panic!("the change was lost");
    }

    #[tokio::test]
    async fn files_are_read_periodically_even_if_no_change_was_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut watch = FileWatch::new([&folder.path().join("file")]);
        watch.recheck = Instant::now() + SETTLE;
        assert!(timeout(SETTLE / 10, watch.next()).await.is_err(), "not yet");
        assert_eq!(next(&mut watch).await, Cause::Changed);
        assert!(timeout(2 * SETTLE, watch.next()).await.is_err(), "only periodically");
    }

    #[tokio::test]
    async fn a_missing_folder_is_watched_from_the_next_reading_on() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("folder");
        let file = folder.join("file");
        let mut watch = FileWatch::new([&file]);
        fs::create_dir(&folder).expect("made");
        watch.asked().notify_one();
        assert_eq!(next(&mut watch).await, Cause::Requested);
        fs::write(&file, "1").expect("written");
        assert_eq!(next(&mut watch).await, Cause::Changed);
    }
}
