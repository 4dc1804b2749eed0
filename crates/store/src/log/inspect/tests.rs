//! Views of simulated disks: of a log that is open, after kills and losses of power, and with damage.

use std::path::Path;

use super::*;
use crate::simulated::{SimDisk, SimFile};

struct Sim<'a>(&'a SimDisk);

impl Source for Sim<'_> {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        crate::disk::Disk::list(self.0)
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        crate::disk::Disk::open(self.0, name)
    }
}

fn verify(disk: &SimDisk, boot: u64) -> Result<Report, OpenError> {
    let (view, recovered) = View::take(&Sim(disk), Path::new("sim"), boot)?;
    let topics = recovered.topics.into_iter().map(|found| found_topic(found, recovered.generation, recovered.damages));
    let topics: Vec<Topic> = topics.collect();
    Ok(view.verify(&topics).expect("a simulated disk is readable"))
}

/// Nothing is damaged. Once the power was lost, files that are made from the log may be in pieces until they are made
/// again.
pub(in crate::log) fn must_be_good(disk: &SimDisk, boot: u64) -> Result<(), String> {
    let mut report = match verify(disk, boot) {
        // A power loss at the very first start.
        Err(OpenError::NotAStore(_)) => return Ok(()),
        report => report.map_err(|error| format!("no view: {error}"))?,
    };
    // The first run of the machine has the number 1.
    if boot > 1 {
        report.damage.retain(|finding| finding.file.ends_with(".seg"));
    }
    if report.is_good() { Ok(()) } else { Err(format!("verify gives a false alarm: {report:?}")) }
}

/// Whether damage is found, or makes a view impossible.
pub(in crate::log) fn notices_damage(disk: &SimDisk, boot: u64) -> bool {
    verify(disk, boot).map_or(true, |report| !report.is_good())
}
