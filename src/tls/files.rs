//! Warns of files with keys that other users can read. Called wherever a key is read.

use std::path::Path;

use tracing::warn;

/// Warns if every user of the machine may read a file with a key.
#[cfg(unix)]
pub(crate) fn warn_of_readers(path: &Path) {
    use std::os::unix::fs::PermissionsExt;

    if is_open(std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode())) {
        warn!(
            "Every user of this machine can read the key {}; run chmod o= on it, and consider replacing it",
            path.display()
        );
    }
}

/// On other systems a file's mode does not show that.
#[cfg(not(unix))]
pub(crate) fn warn_of_readers(_path: &Path) {}

/// Whether a mode lets everybody read.
#[cfg(unix)]
fn is_open(mode: u32) -> bool {
    mode & 0o004 != 0
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_readable_by_its_owner_and_group() {
        assert_eq!([0o600, 0o640, 0o400].map(is_open), [false; 3]);
        assert_eq!([0o644, 0o604, 0o664].map(is_open), [true; 3]);
    }
}
