//! The history: one JSON line an event, on standard output, with the time at which the client knew of it.

use std::io::{BufWriter, Stdout, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::Value;

pub(crate) struct History {
    out: Mutex<BufWriter<Stdout>>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { out: Mutex::new(BufWriter::new(std::io::stdout())) }
    }

    /// Records an event now: what a client is about to do, or what it has received.
    pub(crate) fn record(&self, mut event: Value) {
        event["at"] = now().into();
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // The suite that reads the lines has ended: nothing is left to record for.
        if writeln!(out, "{event}").is_err() {
            std::process::exit(1);
        }
    }

    pub(crate) fn flush(&self) -> Result<()> {
        Ok(self.out.lock().unwrap_or_else(PoisonError::into_inner).flush()?)
    }
}

/// Seconds of Unix time.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
