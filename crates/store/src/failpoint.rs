//! Places where a test ends the process: `QWS_STORE_PAUSE=POINT:COUNT` aborts it when it comes to the point for the
//! `COUNT`th time. Only in builds with `--cfg failpoints`; others have nothing of it.
//!
//! | point | |
//! |---|---|
//! | `after-write` | a group is given to the system, and nothing was told |
//! | `before-sync`, `after-sync` | around each sync of a segment |
//! | `in-rotate` | a segment is sealed, and the next one has no frame yet |
//! | `in-checkpoint` | a checkpoint is written, and not yet on the disk |
//! | `in-copy` | copies are on the disk, and so are the originals |
//! | `in-recovery` | everything is read, and no segment was begun yet |

/// Ends the process here, if the environment says so.
#[cfg(failpoints)]
pub(crate) fn reach(point: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static LEFT: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let left = LEFT.get_or_init(|| {
        let setting = std::env::var("QWS_STORE_PAUSE").ok()?;
        let (point, count) = setting.split_once(':')?;
        Some((point.to_owned(), AtomicU64::new(count.parse().ok()?)))
    });
    if let Some((wanted, count)) = left
        && wanted == point
        && count.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(failpoints))]
pub(crate) const fn reach(_: &str) {}
