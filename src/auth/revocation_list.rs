//! The revocations of a server: checked for each token, told to open connections, and kept in a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tracing::{error, info};

use super::revocations::{Full, Page, Revocation, Revocations, Revoked, Terms};
use super::{AuthError, Identity};
use crate::Printable;
use crate::config::Auth as Settings;
use crate::message::now_ms;

/// Version of the file's form.
const VERSION: u64 = 1;

/// A change of the revocations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Revoke(Revoked, Terms),
    /// Revokes all tokens issued before a time in Unix milliseconds.
    RevokeBefore(u64),
    Restore(Revoked),
    RestoreBefore(u64),
}

/// Why a change was not made, or is not kept.
#[derive(Debug, Error)]
pub(crate) enum RevocationError {
    #[error(
        "there are {0} revocations, as many as auth.max_revocations allows; raise it, or give revocations an end \
         (until)"
    )]
    Full(usize),
    #[error("it is not revoked; see the list in /api/revocations")]
    NotRevoked,
    #[error(
        "it is in effect, but only until the server stops: {} cannot be written: {cause}; make that possible, and \
         send the request again",
        path.display()
    )]
    NotKept { path: PathBuf, cause: io::Error },
}

/// The revocations of a server. Shared by all workers.
#[derive(Debug)]
pub(crate) struct RevocationList {
    all: RwLock<Revocations>,
    most: usize,
    file: Option<PathBuf>,
    /// Number of changes so far; open connections check their tokens again after each.
    changes: watch::Sender<u64>,
    /// One write of the file at a time, and the changes that the last one contained.
    writing: Arc<Semaphore>,
    written: AtomicU64,
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
    revocations: Vec<Revocation>,
}

impl RevocationList {
    /// The revocations in the file of the settings; none if there is no such file yet.
    pub(super) fn load(settings: &Settings) -> Result<Self, AuthError> {
        let all = match &settings.revocations_file {
            Some(path) => read(path)?,
            None => Revocations::default(),
        };
        Ok(Self {
            all: RwLock::new(all),
            most: usize::try_from(settings.max_revocations).unwrap_or(usize::MAX),
            file: settings.revocations_file.clone(),
            changes: watch::Sender::new(0),
            writing: Arc::new(Semaphore::new(1)),
            written: AtomicU64::new(0),
        })
    }

    /// Whether revocations outlive the server.
    pub(crate) fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Notices each change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether the token of a client is revoked. A client without one has none to revoke.
    pub(crate) fn cover(&self, identity: &Identity) -> bool {
        let (Some(token), Some(user)) = (&identity.token, identity.user.as_deref()) else { return false };
        self.all.read().cover(token, user, now_ms())
    }

    /// At most `limit` revocations behind `after`.
    pub(crate) fn page(&self, after: Option<&Revoked>, limit: usize) -> Page {
        self.all.read().page(after, limit, now_ms())
    }

    /// Makes a change, which open connections notice at once, and keeps it in the file if there is one. Dropped, it
    /// has made the change, and goes on writing.
    pub(crate) async fn change(self: &Arc<Self>, change: Change) -> Result<(), RevocationError> {
        self.make(&change)?;
        let mut number = 0;
        self.changes.send_modify(|changes| {
            *changes += 1;
            number = *changes;
        });
        log(&change);
        let Some(path) = self.file.clone() else { return Ok(()) };
        let list = Arc::clone(self);
        // A task of its own, which also waits for its turn if the caller does not. It ends with the write.
        let written = tokio::spawn(async move {
            // The semaphore is never closed, so a permit fails as little as the thread.
            let permit = Arc::clone(&list.writing).acquire_owned().await;
            let write = move || {
                let _permit = permit;
                list.write(&path, number)
            };
            tokio::task::spawn_blocking(write).await.map_err(io::Error::other).flatten()
        });
        let written = written.await.map_err(io::Error::other).flatten();
        let path = || self.file.clone().unwrap_or_default();
        let written = written.map_err(|cause| RevocationError::NotKept { path: path(), cause });
        written.inspect_err(|e| error!("A change of the revocations is not kept: {e}"))
    }

    fn make(&self, change: &Change) -> Result<(), RevocationError> {
        let mut all = self.all.write();
        match change {
            Change::Revoke(what, terms) => {
                all.add(what.clone(), *terms, self.most, now_ms()).map_err(|Full| RevocationError::Full(self.most))
            }
            Change::RevokeBefore(before) => {
                all.add_time(*before);
                Ok(())
            }
            Change::Restore(what) => all.remove(what).then_some(()).ok_or(RevocationError::NotRevoked),
            Change::RestoreBefore(before) => all.remove_time(*before).then_some(()).ok_or(RevocationError::NotRevoked),
        }
    }

    /// Writes the file, unless it has this change already.
    fn write(&self, path: &Path, number: u64) -> io::Result<()> {
        if self.written.load(Ordering::Acquire) >= number {
            return Ok(());
        }
        // Read before the revocations: those may contain later changes, which are then written again.
        let newest = *self.changes.borrow();
        let Page { entries: revocations, before, .. } = self.page(None, usize::MAX);
        let text = serde_json::to_vec(&Kept { version: VERSION, before, revocations })?;
        replace(path, &text)?;
        self.written.store(newest, Ordering::Release);
        Ok(())
    }
}

fn log(change: &Change) {
    let what = |what: &Revoked| match what {
        Revoked::Jti(id) => format!("the token with jti {}", Printable::excerpt(id)),
        Revoked::User(user) => format!("tokens of user {}", Printable::excerpt(user)),
    };
    match change {
        Change::Revoke(revoked, _) => info!("The operator revokes {}", what(revoked)),
        Change::RevokeBefore(before) => info!("The operator revokes all tokens issued before {before} ms"),
        Change::Restore(revoked) => info!("The operator no longer revokes {}", what(revoked)),
        Change::RestoreBefore(before) => info!("The operator no longer revokes tokens issued before {before} ms"),
    }
}

fn read(path: &Path) -> Result<Revocations, AuthError> {
    let unusable = |message: String| AuthError::Revocations { path: path.to_owned(), message };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return match folder(path).is_dir() {
                true => Ok(Revocations::default()),
                false => Err(unusable("its folder does not exist; create it".into())),
            };
        }
        Err(e) => return Err(unusable(format!("cannot read it: {e}"))),
    };
    let kept: Kept = serde_json::from_slice(&text).map_err(|e| {
        unusable(format!("{e}; restore it from a backup, or remove it: then the tokens in it are accepted again"))
    })?;
    if kept.version != VERSION {
        return Err(unusable(format!("it has version {}, and this server knows version {VERSION}", kept.version)));
    }
    Ok(Revocations::new(kept.before, kept.revocations, now_ms()))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Replaces a file as a whole: after a crash it has its old content or the new one.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // Not every system can sync a folder; the file itself is complete in any case.
    if let Ok(folder) = File::open(folder(path)) {
        let _ = folder.sync_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: &Path) -> Settings {
        Settings { revocations_file: Some(file.to_owned()), max_revocations: 2, ..Settings::default() }
    }

    fn revoke(id: &str) -> Change {
        Change::Revoke(Revoked::Jti(id.into()), Terms { before: None, until: None })
    }

    fn ids(list: &RevocationList) -> Vec<Revoked> {
        list.page(None, 100).entries.into_iter().map(|entry| entry.what).collect()
    }

    #[tokio::test]
    async fn changes_are_in_the_file_before_they_are_confirmed() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings(&folder.path().join("revoked.json"));
        let reload = || RevocationList::load(&settings).expect("it is read");
        let list = Arc::new(reload());
        assert!(list.is_kept() && ids(&list).is_empty());
        let mut changes = list.changes();
        list.change(revoke("a")).await.expect("kept");
        assert!(changes.has_changed().expect("the list is there"));
        changes.mark_unchanged();
        list.change(Change::RevokeBefore(5)).await.expect("kept");
        assert_eq!((ids(&reload()), reload().page(None, 1).before), (ids(&list), Some(5)));
        let both = tokio::join!(list.change(revoke("b")), list.change(Change::Restore(Revoked::Jti("a".into()))));
        assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
        assert_eq!((ids(&reload()), ids(&list).len()), (ids(&list), 1));
        list.change(revoke("c")).await.expect("kept");
        assert!(matches!(list.change(revoke("d")).await, Err(RevocationError::Full(2))));
        assert!(matches!(list.change(Change::RestoreBefore(6)).await, Err(RevocationError::NotRevoked)));
        assert_eq!(ids(&reload()), ids(&list));
    }

    #[tokio::test]
    async fn a_change_whose_caller_has_left_is_kept_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings(&folder.path().join("revoked.json"));
        let list = Arc::new(RevocationList::load(&settings).expect("no file yet"));
        let other_write = Arc::clone(&list.writing).acquire_owned().await.expect("it is open");
        let mut change = Box::pin(list.change(revoke("a")));
        tokio::select! {
            biased;
            done = &mut change => panic!("another write goes on: {done:?}"),
            () = tokio::task::yield_now() => {}
        }
        drop(change);
        tokio::task::yield_now().await;
        drop(other_write);
        // Its turn comes after that of the change.
        let _all_written = list.writing.acquire().await.expect("it is open");
        assert_eq!(ids(&RevocationList::load(&settings).expect("it is read")), [Revoked::Jti("a".into())]);
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_kept_is_in_effect_and_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("below").join("revoked.json");
        fs::create_dir(folder.path().join("below")).expect("a folder");
        let list = Arc::new(RevocationList::load(&settings(&path)).expect("no file yet"));
        fs::remove_dir(folder.path().join("below")).expect("removed");
        let error = list.change(revoke("a")).await.expect_err("there is no folder").to_string();
        assert!(error.contains("only until the server stops") && error.contains("revoked.json"), "{error}");
        assert_eq!(ids(&list), [Revoked::Jti("a".into())]);
        fs::create_dir(folder.path().join("below")).expect("a folder");
        list.change(revoke("a")).await.expect("now it is kept");
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_is_not_understood_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("revoked.json");
        for (text, says) in [
            ("", "restore it from a backup"),
            ("{\"version\":1,\"revocations\":[{\"jti\":5}]}", "restore it"),
            ("{\"version\":2,\"revocations\":[]}", "it has version 2"),
        ] {
            fs::write(&path, text).expect("written");
            let error = RevocationList::load(&settings(&path)).expect_err(text).to_string();
            assert!(error.contains(says) && error.contains("revoked.json"), "{error}");
        }
        let error = RevocationList::load(&settings(&folder.path().join("none").join("x"))).expect_err("no folder");
        assert!(error.to_string().contains("its folder does not exist"), "{error}");
    }
}
