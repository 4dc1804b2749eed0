//! Processes of servers: their binary, their ports, and their processor time.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

const BINARY: &str = "quic-websocket";

/// The server binary next to this executable: `cargo bench` names it, for an example it is one folder up.
pub(crate) fn find_server(benchmark: &Path) -> Result<PathBuf> {
    if let Some(path) = option_env!("CARGO_BIN_EXE_quic-websocket") {
        return Ok(path.into());
    }
    let mut folders = benchmark.ancestors().skip(1).take(2);
    folders.find_map(|folder| Some(folder.join(BINARY)).filter(|path| path.is_file())).with_context(|| {
        let folder = benchmark.parent().and_then(Path::parent).unwrap_or(benchmark);
        format!("there is no {BINARY} in {}: build it with `cargo build --release`", folder.display())
    })
}

/// A loopback port that is free for UDP and for TCP.
pub(crate) fn free_address() -> Result<SocketAddr> {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        let address = udp.local_addr()?;
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port is free for both UDP and TCP")
}

/// Processor time used by this process so far.
pub(crate) fn own_cpu() -> Result<Duration> {
    cpu_of("self")
}

/// Processor time used by a process so far.
pub(crate) fn cpu_of(process: &str) -> Result<Duration> {
    /// Linux reports hundredths of a second on every architecture.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let ticks = |field| fields.split_whitespace().nth(field).and_then(|ticks| ticks.parse::<u32>().ok());
    let (user, system) = (ticks(11).context("user time")?, ticks(12).context("system time")?);
    Ok(TICK * (user + system))
}
