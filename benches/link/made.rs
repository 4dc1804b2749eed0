//! The link as the comparison uses it: created, used from both ends, and removed.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use super::namespaces::{CLIENT, SERVER, Side};
use super::{Conditions, carrier};

/// A running link; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Link {
    carrier: Child,
}

impl Link {
    /// Creates a link. Fails if this machine or this user cannot have one, and reports what is missing.
    pub(crate) fn make(conditions: &Conditions) -> Result<Self> {
        let benchmark = std::env::current_exe().context("cannot find this executable")?;
        let carrier = Command::new(benchmark)
            .arg("carry")
            .args(["--delay-ms", &conditions.delay_ms.to_string(), "--loss", &conditions.loss.to_string()])
            .args(["--rate-mbit", &conditions.rate_mbit.to_string(), "--seed", &conditions.seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the link's process")?;
        let mut link = Self { carrier };
        let mut line = String::new();
        if let Some(stdout) = link.carrier.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        ensure!(line == carrier::READY, "{}", line.trim());
        Ok(link)
    }

    /// Address for a server on the far side.
    pub(crate) fn server_address(&self) -> IpAddr {
        SERVER.address.into()
    }

    /// Start of a command that runs a server on the far side. The process becomes that server: the process id stays the
    /// same.
    pub(crate) fn server_command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", SERVER.namespace]);
        command
    }

    /// Runs work whose sockets are on the near side, on a separate thread and runtime.
    pub(crate) async fn on_client_side<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>>,
    {
        let work = move || tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work());
        let (sender, outcome) = oneshot::channel();
        std::thread::spawn(move || sender.send(within(&CLIENT, work)).ok());
        outcome.await.context("the work on the link's near side was aborted")?
    }

    /// The same on the far side.
    pub(crate) async fn on_server_side<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>>,
    {
        let work = move || tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work());
        let (sender, outcome) = oneshot::channel();
        std::thread::spawn(move || sender.send(within(&SERVER, work)).ok());
        outcome.await.context("the work on the link's far side was aborted")?
    }

    /// Median round trip of a small UDP packet over the idle link.
    pub(crate) async fn round_trip(&self) -> Result<Duration> {
        const PACKETS: usize = 50;
        let (sender, address) = oneshot::channel();
        std::thread::spawn(move || within(&SERVER, || echo(sender)));
        let server = address.await.context("no UDP echo on the link's far side")?;
        self.on_client_side(async move || {
            let socket = UdpSocket::bind((CLIENT.address, 0))?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            let mut times = Vec::new();
            for number in 0..PACKETS {
                let (packet, sent) = ([u8::try_from(number)?; 64], Instant::now());
                socket.send(&packet)?;
                let mut reply = [0; 64];
                if socket.recv(&mut reply).is_ok() && reply == packet {
                    times.push(sent.elapsed());
                }
            }
            socket.send(&[])?;
            times.sort();
            times.get(times.len() / 2).copied().context("no packet came back over the link")
        })
        .await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The end of its input stops the process, which first removes the namespaces.
        drop(self.carrier.stdin.take());
        self.carrier.wait().ok();
    }
}

/// Does blocking work in a side's namespace. Only for a thread that ends afterwards: there is no way back.
fn within<T>(side: &Side, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let namespace = File::open(side.path()).with_context(|| format!("there is no namespace {}", side.namespace))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", side.namespace))?;
    work()
}

/// Echoes every packet until an empty one arrives, or none for a long time.
fn echo(address: oneshot::Sender<SocketAddr>) -> Result<()> {
    let socket = UdpSocket::bind((SERVER.address, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    if address.send(socket.local_addr()?).is_err() {
        bail!("no receiver for the echo");
    }
    let mut packet = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut packet)?;
        if length == 0 {
            return Ok(());
        }
        socket.send_to(&packet[..length], from)?;
    }
}
