//! The binary's settings: reads them from the file, the environment and the command line, and again on SIGHUP for a
//! running server. Called by `main` alone.

use std::ffi::OsString;

use anyhow::bail;
use quic_websocket::Reload;
use quic_websocket::config::{Loaded, is_live};
use tracing::{error, info, warn};

use crate::Serve;

/// The environment variables whose names are valid Unicode.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.to_string_lossy().into()));
    std::env::vars_os().filter_map(text)
}

/// Reads the settings from the file, the environment and the command line.
pub(crate) fn configuration(flags: &Serve) -> anyhow::Result<Loaded> {
    let mut loaded = Loaded::read(flags.config.as_deref(), environment())?;
    let flags = flags.clone();
    for (is_given, setting, flag) in [
        (flags.addr.is_some(), "addr", "--addr"),
        (flags.http.is_some(), "http.plain_addr", "--http"),
        (flags.name.is_some(), "name", "--name"),
        (flags.max_clients.is_some(), "limits.max_clients", "--max-clients"),
        (flags.cert.is_some(), "tls.cert", "--cert"),
        (flags.key.is_some(), "tls.key", "--key"),
        (flags.log_level.is_some(), "log.level", "--log-level"),
        (flags.log_format.is_some(), "log.format", "--log-format"),
        (flags.log_messages.is_some(), "log.messages", "--log-messages"),
        (flags.workers.is_some(), "workers", "--workers"),
    ] {
        if is_given {
            loaded.flag(setting, flag);
        }
    }
    let config = &mut loaded.config;
    fn set<T>(setting: &mut T, flag: Option<T>) {
        if let Some(value) = flag {
            *setting = value;
        }
    }
    set(&mut config.addr, flags.addr);
    set(&mut config.http.plain_addr, flags.http.map(Some));
    set(&mut config.name, flags.name);
    set(&mut config.limits.max_clients, flags.max_clients);
    set(&mut config.tls.cert, flags.cert);
    set(&mut config.tls.key, flags.key);
    set(&mut config.log.level, flags.log_level);
    set(&mut config.log.format, flags.log_format);
    set(&mut config.log.messages, flags.log_messages);
    set(&mut config.workers, flags.workers);
    let warnings = loaded.warnings();
    if flags.strict && !warnings.is_empty() {
        bail!("--strict: {}", warnings.join("; "));
    }
    Ok(loaded)
}

/// The settings of a running server.
pub(crate) struct Settings {
    flags: Serve,
    /// Settings as of the start; those that are not live apply until the next one.
    started: Loaded,
    /// Settings last read, of which the live ones are in use.
    applied: Loaded,
}

impl Settings {
    pub(crate) fn new(flags: Serve, loaded: Loaded) -> Self {
        Self { flags, applied: loaded.clone(), started: loaded }
    }

    /// Reads the settings again, applies those that are live, and logs which these are and which require a restart.
    pub(crate) fn read_again(&mut self, reload: &Reload) {
        let read = configuration(&self.flags).and_then(|new| {
            new.validate()?;
            reload.apply(&new.config)?;
            Ok(new)
        });
        let new = match read {
            Ok(new) => new,
            Err(e) => return error!("SIGHUP: the settings cannot be used; the old ones stay in use: {e:#}"),
        };
        new.warnings().iter().for_each(|warning| warn!("{warning}"));
        let taken: Vec<_> = self.applied.changes(&new).into_iter().filter(|setting| is_live(setting)).collect();
        let waiting: Vec<_> = self.started.changes(&new).into_iter().filter(|setting| !is_live(setting)).collect();
        match &self.flags.config {
            None => info!("SIGHUP: no configuration file (--config), so there are no settings to reload"),
            Some(path) if taken.is_empty() && waiting.is_empty() => {
                info!("SIGHUP: reloaded {}: no setting has changed", path.display());
            }
            Some(path) => info!("SIGHUP: reloaded {}", path.display()),
        }
        if !taken.is_empty() {
            info!("Changed settings now in use: {}", taken.join(", "));
        }
        if !waiting.is_empty() {
            warn!("Changed settings that require a restart: {}", waiting.join(", "));
        }
        self.applied = new;
    }
}
