//! `store forget`: deletes a topic or a consumer.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use quic_websocket_store::Options;

use super::{Directory, find, inspect, topic_name};
use crate::command::say;

/// Flags of `store forget`.
#[derive(Debug, Args)]
pub(crate) struct Forget {
    #[command(flatten)]
    directory: Directory,
    /// The topic
    #[arg(value_parser = topic_name)]
    topic: String,
    /// Delete this consumer of the topic, and keep the topic
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Delete without asking; without it nothing is changed
    #[arg(long)]
    yes: bool,
}

impl Forget {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = &self.directory.dir;
        // Nothing is made if the directory is the wrong one.
        let inspector = inspect(dir)?;
        let topic = find(&inspector, &self.topic)?;
        let what = match &self.consumer {
            None => format!("the topic {} with {} messages", self.topic, topic.head().count),
            Some(consumer) if topic.consumers().iter().any(|(name, _)| **name == **consumer) => {
                format!("the consumer {consumer} of {}", self.topic)
            }
            Some(consumer) => {
                bail!("the topic {} has no consumer {consumer}; `store ls --json` lists them", self.topic)
            }
        };
        if !self.yes {
            bail!("this deletes {what}; add --yes to do it");
        }
        drop(inspector);
        let mut options = Options::new(dir);
        // Deleting has to work when the disk is nearly full.
        options.min_free_bytes = 0;
        options.segment_bytes = 1 << 20;
        let store = self.directory.open(options)?;
        let topic = store.find(&self.topic).context("the topic is gone meanwhile")?;
        match &self.consumer {
            Some(consumer) => {
                store.consumer(&topic, consumer, None)?.wait()?;
            }
            None => store.forget(&topic)?,
        }
        drop(store);
        // What a full or failing disk did not take is still there.
        let inspector = inspect(dir)?;
        let is_there = inspector.find(&self.topic).is_some_and(|topic| match &self.consumer {
            None => true,
            Some(consumer) => topic.consumers().iter().any(|(name, _)| **name == **consumer),
        });
        if is_there {
            bail!("{what} could not be deleted: the disk is full or fails");
        }
        say(format_args!("Deleted {what}"))?;
        Ok(ExitCode::SUCCESS)
    }
}
