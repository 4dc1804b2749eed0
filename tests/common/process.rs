//! The binary as a child process: its output is kept in files, and it ends with its test.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::until;

const BINARY: &str = env!("CARGO_BIN_EXE_quic-websocket");

pub struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts the binary in a folder, with these arguments and only these settings in the environment.
    pub fn start(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(BINARY), folder, args, environment)
    }

    /// The same under a limit, set by a shell.
    pub fn start_under(limit: &str, folder: &Path, args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{limit} && exec \"$0\" \"$@\""), BINARY]);
        Self::spawn(shell, folder, args, &[])
    }

    fn spawn(mut command: Command, folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| folder.join(name));
        for (name, _) in std::env::vars_os() {
            if name == "RUST_LOG" || name == "QUIC_WEBSOCKET_CERTS" || name.to_string_lossy().starts_with("QWS_") {
                command.env_remove(name);
            }
        }
        let child = command
            .current_dir(folder)
            .args(args)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("a file"))
            .stderr(File::create(&stderr).expect("a file"))
            .spawn()
            .expect("the binary starts");
        Self { child, stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, on Linux.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).expect("its output")
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).expect("its log")
    }

    /// Waits until it has logged its address, and returns it.
    pub async fn listening(&mut self) -> SocketAddr {
        let mut addr = None;
        until("the line with the address", || {
            assert_eq!(self.child.try_wait().expect("its state"), None, "it ended: {}", self.stderr());
            let log = self.stderr();
            let line = log.split_once("Listening on: ").and_then(|(_, rest)| rest.split_once('\n'));
            addr = line.and_then(|(addr, _)| addr.parse().ok());
            addr.is_some()
        })
        .await;
        addr.expect("an address")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a process id"));
        kill(pid, signal).expect("the process is there");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_none()
    }

    /// Waits until it has exited and returns its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        until("the end of the process", || !self.is_running()).await;
        self.child.wait().expect("its state").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
