//! The time of one `fdatasync`, the floor under every publish that waits for the disk.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

const BLOCK: usize = 4096;
const COUNT: u64 = 400;

/// Median and 99th percentile of a write of 4 KiB and its `fdatasync`, in a file whose blocks are written before.
pub(super) fn fdatasync(folder: &Path) -> Result<(Duration, Duration)> {
    let path = folder.join("floor");
    let file = File::create(&path)?;
    for block in 0..COUNT {
        file.write_all_at(&[0; BLOCK], block * BLOCK as u64)?;
    }
    file.sync_all()?;
    let mut times = Vec::new();
    for block in 0..COUNT {
        let started = Instant::now();
        file.write_all_at(&[1; BLOCK], block * BLOCK as u64)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    std::fs::remove_file(path)?;
    times.sort_unstable();
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}
