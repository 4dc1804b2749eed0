//! `store tail`: the newest messages of a topic, and those that come.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::print::Printer;
use super::{Directory, find, topic_name};

/// How often the files are looked at with --follow.
const INTERVAL: Duration = Duration::from_millis(200);

/// Flags of `store tail`.
#[derive(Debug, Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    directory: Directory,
    /// The topic
    #[arg(value_parser = topic_name)]
    topic: String,
    /// How many of the newest messages to print
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10)]
    lines: u64,
    /// Print messages as they come, until interrupted. They may come before their publishers are answered
    #[arg(short, long)]
    follow: bool,
}

impl Tail {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.print() {
            // The reader has enough.
            Err(e) if e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
                Ok(ExitCode::SUCCESS)
            }
            result => result.map(|()| ExitCode::SUCCESS),
        }
    }

    fn print(self) -> anyhow::Result<()> {
        let inspector = self.directory.inspect()?;
        let topic = find(&inspector, &self.topic)?;
        let head = topic.head();
        let first = head.newest.saturating_sub(self.lines).max(head.trimmed_through) + 1;
        let mut printer = Printer::new(&self.topic, first, BufWriter::new(io::stdout().lock()));
        printer.print_kept(&inspector, topic)?;
        printer.out.flush()?;
        if !self.follow {
            return Ok(());
        }
        let mut follower = inspector.follow();
        // Gives back the room of segments that the server deletes.
        drop(inspector);
        loop {
            let mut result = Ok(());
            let count = follower.poll(&mut |topic, record| {
                if **topic == *self.topic && result.is_ok() {
                    if record.offset == 1 {
                        printer.begin_again();
                    }
                    result = printer.print(&record, "no longer kept, or damaged on disk");
                }
            })?;
            result?;
            printer.out.flush()?;
            if count == 0 {
                std::thread::sleep(INTERVAL);
            }
        }
    }
}
