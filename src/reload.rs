//! When files that the server has read are to be read again: because they changed, or because somebody asked. What they
//! are, and what comes of reading them, is the affair of those who do it.

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

/// From the first sign of a change to reading: whoever replaces several files is done by then.
const SETTLE: Duration = Duration::from_millis(300);
/// Files are read this often at least. Not everything shows in their folder: a link higher up that is turned, a folder that
/// is another one by now, what somebody else does on a network's file system.
const LOOK: Duration = Duration::from_secs(60);

/// Asks a running server to read its certificate and key again, and to take over other settings, as the binary does on
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

    /// Takes over those of other settings that may change while a server runs ([`is_live`](crate::config::is_live)). They
    /// hold for what is asked from now on; who is connected stays.
    ///
    /// # Errors
    /// Where any setting is out of its bounds: then all stay as they are.
    pub fn apply(&self, config: &Config) -> Result<(), ConfigError> {
        config.validate()?;
        self.live.take(config);
        Ok(())
    }

    /// Has the server read its files. Returns at once: what comes of it is in the log, and what cannot be used leaves
    /// everything as it is. Does nothing once the server drains.
    pub fn reload(&self) {
        self.asked.notify_one();
    }
}

/// Why files are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Something happened where they are; they may be as they were.
    Changed,
    /// Somebody wants it, and wants to hear what came of it.
    Asked,
}

/// Watches the folders of some files. A file is often replaced by renaming another one to it, or by turning a link:
/// then there is nothing to see at the file itself.
pub(crate) struct FileWatch {
    folders: BTreeSet<PathBuf>,
    /// Those that are watched in vain, of which has been told.
    unwatched: BTreeSet<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    changed: Arc<Notify>,
    asked: Arc<Notify>,
    /// When what was seen is passed on.
    due: Option<Instant>,
    /// When they are to be read where nothing was seen.
    look: Instant,
}

impl FileWatch {
    /// Begins. Where that does not work it warns, and [`Reload`] is what is left.
    pub(crate) fn new<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let changed = Arc::new(Notify::new());
        let seen = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may have hidden a change.
            if event.map_or(true, |event| is_change(event.kind)) {
                seen.notify_one();
            }
        });
        let watcher = watcher.map_err(|e| warn!("Files are not watched, reload them with SIGHUP: {e}")).ok();
        let folders = files.into_iter().map(|file| folder(file)).collect();
        let asked = Arc::new(Notify::new());
        let mut watch = Self {
            folders,
            unwatched: BTreeSet::new(),
            watcher,
            changed,
            asked,
            due: None,
            look: Instant::now() + LOOK,
        };
        watch.begin();
        watch
    }

    /// What others ask with.
    pub(crate) fn asked(&self) -> Arc<Notify> {
        Arc::clone(&self.asked)
    }

    /// Waits until the files are to be read. Cancel safe: what was seen or asked is there the next time.
    pub(crate) async fn next(&mut self) -> Cause {
        let (changed, asked) = (Arc::clone(&self.changed), Arc::clone(&self.asked));
        let cause = loop {
            tokio::select! {
                () = asked.notified() => break Cause::Asked,
                () = changed.notified(), if self.due.is_none() => self.due = Some(Instant::now() + SETTLE),
                () = until(self.due), if self.due.is_some() => break Cause::Changed,
                () = sleep_until(self.look) => break Cause::Changed,
            }
        };
        // What was seen since then is read with the rest.
        let _ = changed.notified().now_or_never();
        self.due = None;
        self.look = Instant::now() + LOOK;
        // A folder that was replaced is another one by now.
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
                        warn!("Files in {} are not watched, reload them with SIGHUP: {e}", folder.display());
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

/// Whether a file may hold something else now. Reading one is an event as well, and must not lead to reading again.
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
    async fn a_change_is_seen_once_and_reading_is_none() {
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
    async fn what_was_seen_or_asked_survives_a_wait_that_is_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        let mut watch = FileWatch::new([&file]);
        watch.asked().notify_one();
        assert_eq!(next(&mut watch).await, Cause::Asked);
        fs::write(&file, "1").expect("written");
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            // Never long enough for the whole wait.
            if timeout(SETTLE / 10, watch.next()).await.is_ok() {
                return;
            }
        }
        panic!("the change was forgotten");
    }

    #[tokio::test]
    async fn where_nothing_shows_files_are_read_all_the_same_now_and_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut watch = FileWatch::new([&folder.path().join("file")]);
        watch.look = Instant::now() + SETTLE;
        assert!(timeout(SETTLE / 10, watch.next()).await.is_err(), "not yet");
        assert_eq!(next(&mut watch).await, Cause::Changed);
        assert!(timeout(2 * SETTLE, watch.next()).await.is_err(), "only now and then");
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_watched_from_when_it_is_asked_for_again() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("folder");
        let file = folder.join("file");
        let mut watch = FileWatch::new([&file]);
        fs::create_dir(&folder).expect("made");
        watch.asked().notify_one();
        assert_eq!(next(&mut watch).await, Cause::Asked);
        fs::write(&file, "1").expect("written");
        assert_eq!(next(&mut watch).await, Cause::Changed);
    }
}
