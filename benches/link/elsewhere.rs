//! Systems other than Linux have no network namespaces, so no link is ever created.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Conditions;

/// Never created.
#[derive(Debug)]
pub(crate) enum Link {}

impl Link {
    pub(crate) fn make(_: &Conditions) -> Result<Self> {
        bail!("a lossy link needs network namespaces, which only Linux has")
    }

    pub(crate) fn server_address(&self) -> IpAddr {
        match *self {}
    }

    pub(crate) fn server_command(&self) -> Command {
        match *self {}
    }

    pub(crate) async fn on_client_side<T, F>(&self, _: impl FnOnce() -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>>,
    {
        match *self {}
    }

    pub(crate) async fn on_server_side<T, F>(&self, _: impl FnOnce() -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>>,
    {
        match *self {}
    }

    pub(crate) async fn round_trip(&self) -> Result<Duration> {
        match *self {}
    }
}

pub(crate) async fn run(conditions: &Conditions) -> Result<()> {
    Link::make(conditions).map(|link| match link {})
}
