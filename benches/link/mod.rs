//! A lossy link between two network namespaces of this machine: delay, random loss and a rate limit, seeded, for UDP
//! and TCP alike. It does not need the kernel's `netem`, but Linux, root, iproute2 and `/dev/net/tun`.
//!
//! A separate process creates the link and carries its packets (`carrier`). It ends with this process, however that
//! ends, and removes the namespaces. The link knows nothing about the measurement.

#[cfg(target_os = "linux")]
mod carrier;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod made;
#[cfg(target_os = "linux")]
mod namespaces;

#[cfg(target_os = "linux")]
pub(crate) use carrier::run;
#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{Link, run};
#[cfg(target_os = "linux")]
pub(crate) use made::Link;

/// What the link does to each packet, the same in both directions.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Conditions {
    /// Milliseconds, one way
    #[arg(long)]
    pub(crate) delay_ms: u64,
    /// Share of packets that are lost, 0 to 1
    #[arg(long)]
    pub(crate) loss: f64,
    /// Megabits per second
    #[arg(long)]
    pub(crate) rate_mbit: f64,
    /// Seed of the sequence of losses
    #[arg(long)]
    pub(crate) seed: u64,
}
