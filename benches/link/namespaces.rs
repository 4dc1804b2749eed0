//! The two ends of a link: network namespaces with one TUN device each, created and removed by iproute2.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tokio_tun::Tun;

#[derive(Debug)]
pub(super) struct Side {
    pub(super) namespace: &'static str,
    device: &'static str,
    pub(super) address: Ipv4Addr,
}

pub(super) const SERVER: Side = Side { namespace: "qws-a", device: "qwsa", address: Ipv4Addr::new(10, 77, 0, 1) };
pub(super) const CLIENT: Side = Side { namespace: "qws-b", device: "qwsb", address: Ipv4Addr::new(10, 77, 0, 2) };

/// The namespaces' names are the same for every run, so there can be one link at a time.
const LOCK: &str = "qws-link.lock";
/// Packets queued for the carrier; the link drops packets only by its own conditions.
const DEVICE_QUEUE: &str = "2000";

impl Side {
    pub(super) fn path(&self) -> PathBuf {
        Path::new("/var/run/netns").join(self.namespace)
    }
}

/// Both namespaces, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// Held until the namespaces are gone.
    _lock: File,
}

impl Namespaces {
    /// Creates both namespaces and a device in each; returns the server's and the client's device.
    pub(super) fn make() -> Result<(Self, [Tun; 2])> {
        ensure!(nix::unistd::geteuid().is_root(), "a lossy link needs root, to create network namespaces");
        let found = Command::new("ip").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        ensure!(found.is_ok_and(|status| status.success()), "a lossy link needs the command ip from iproute2");
        ensure!(Path::new("/dev/net/tun").exists(), "a lossy link needs /dev/net/tun, which this system does not have");

        let path = std::env::temp_dir().join(LOCK);
        let lock = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        lock.try_lock()
            .map_err(|_| anyhow::anyhow!("another benchmark on this machine is using a lossy link: wait for it"))?;
        let namespaces = Self { _lock: lock };

        // Leftovers of a run that could not clean up after itself.
        remove();
        for side in [&SERVER, &CLIENT] {
            ip(&["netns", "add", side.namespace])?;
        }
        let devices = [device(&SERVER, &CLIENT)?, device(&CLIENT, &SERVER)?];
        Ok((namespaces, devices))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        remove();
    }
}

fn remove() {
    for side in [&SERVER, &CLIENT] {
        if side.path().exists()
            && let Err(error) = ip(&["netns", "del", side.namespace])
        {
            eprintln!("{error:#}");
        }
    }
}

fn device(side: &Side, peer: &Side) -> Result<Tun> {
    let explain = || format!("cannot create the TUN device {}", side.device);
    let queues = Tun::builder().name(side.device).close_on_exec().build().with_context(explain)?;
    let device = queues.into_iter().next().with_context(explain)?;
    ip(&["link", "set", side.device, "netns", side.namespace])?;
    let (address, peer) = (side.address.to_string(), peer.address.to_string());
    let within = |arguments: &[&str]| ip(&[&["-n", side.namespace], arguments].concat());
    within(&["link", "set", side.device, "addrgenmode", "none"])?;
    within(&["addr", "add", &address, "peer", &peer, "dev", side.device])?;
    within(&["link", "set", side.device, "mtu", "1500", "txqueuelen", DEVICE_QUEUE, "up"])?;
    within(&["link", "set", "lo", "up"])?;
    Ok(device)
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output().context("cannot run ip")?;
    if !output.status.success() {
        bail!("`ip {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
