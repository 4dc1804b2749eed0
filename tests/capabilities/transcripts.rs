//! The output a new user sees: the example clients and the server's log, as README.md and QUICKSTART.md show them, from
//! the real binaries. Ids, ports and times differ from run to run and are masked.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The server's binary, started in a separate folder.
struct Server {
    process: Child,
    addr: String,
    log: BufReader<std::process::ChildStderr>,
    seen: String,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = Command::new(env!("CARGO_BIN_EXE_quic-websocket"))
            .args(["--addr", "127.0.0.1:0", "--log-messages", "info"])
            .current_dir(folder.path())
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut log = BufReader::new(process.stderr.take().expect("its log"));
        let mut seen = String::new();
        let addr = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("its log") > 0, "the server ended before it listened: {seen}");
            seen.push_str(&line);
            if let Some((_, addr)) = line.split_once("Listening on: ") {
                break addr.trim().to_owned();
            }
        };
        Self { process, addr, log, seen, folder }
    }

    /// Runs an example against it, with typed input.
    fn run(&self, example: &str, args: &[&str], typed: &str) -> Output {
        let mut client = Command::new(example_path(example))
            .args(["--server", &self.addr])
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the example starts");
        client.stdin.take().expect("its input").write_all(typed.as_bytes()).expect("it reads");
        client.wait_with_output().expect("its end")
    }

    /// Drains it, and returns its log without the times.
    fn stop(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(self.process.id().try_into().expect("a process id"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it can be signalled");
        self.log.read_to_string(&mut self.seen).expect("the rest of its log");
        assert!(self.process.wait().expect("its end").success(), "a drained server exits with 0");
        let seen = std::mem::take(&mut self.seen);
        seen.lines().map(|line| line.split_once("Z ").map_or(line, |(_, rest)| rest)).fold(
            String::new(),
            |mut log, line| {
                log.push_str(line);
                log.push('\n');
                log
            },
        )
    }
}

impl Drop for Server {
    /// A failing test leaves no server behind.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Cargo builds the examples next to the tests.
fn example_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_quic-websocket")).with_file_name("examples").join(name)
}

/// Replaces every client id by `<ID>`.
fn mask_ids(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match rest.get(..36).filter(|id| uuid::Uuid::try_parse(id).is_ok()) {
            Some(_) => {
                masked.push_str("<ID>");
                rest = &rest[36..];
            }
            None => {
                masked.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    masked
}

fn transcript(output: &Output, addr: &str) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    mask_ids(&String::from_utf8(output.stdout.clone()).expect("UTF-8")).replace(addr, "<ADDR>")
}

#[test]
fn the_test_client_shows_what_the_documents_show() {
    let server = Server::start();
    let output = server.run("client", &["--interval", "10"], "");
    let expected = "\
🚀 QUIC WebSocket Test Client
Connecting to: <ADDR>
Client name: TestClient

Connecting to server...
Connected successfully!
✅ Handshake accepted by server: QUIC WebSocket Server
Sent message 1/3
📝 Received text: Echo: Test message 1 from TestClient
Sent message 2/3
📝 Received text: Echo: Test message 2 from TestClient
Sent message 3/3
📝 Received text: Echo: Test message 3 from TestClient
Sent ping
🏓 Received pong
Requested client list
👥 Client list (1 clients):
  - TestClient (<ID>)
Sent broadcast message
📢 Broadcast from <ID>: Broadcast from TestClient
Sent close message
Test completed successfully
";
    assert_eq!(transcript(&output, &server.addr), expected);

    let log = mask_ids(&server.stop());
    let mut lines = log.lines();
    for expected in [
        " INFO Starting QUIC WebSocket server: QUIC WebSocket Server",
        " INFO Listening on: 127.0.0.1:",
        " INFO New connection from 127.0.0.1:",
        " INFO Client <ID> connected. Total clients: 1",
        " INFO Handshake from client <ID>: name=Some(\"TestClient\"), version=1.0",
        " INFO Client <ID> handshake completed successfully",
        " INFO Text message from <ID>: Test message 1 from TestClient",
        " INFO Broadcast message from <ID>: Broadcast from TestClient",
        " INFO Broadcast message sent to 1 clients",
        " INFO Client <ID> closing connection: 1000 - Test completed",
    ] {
        assert!(lines.any(|line| line.starts_with(expected)), "{expected:?} is not in its place in the log:\n{log}");
    }
    assert!(log.contains(", assigned ID: <ID>"), "{log}");
}

#[test]
fn the_chat_shows_what_the_documents_show() {
    let server = Server::start();
    let typed = "Hello from chat client!\n/list\n/broadcast Hello everyone!\n/quit\n";
    let output = server.run("chat_client", &[], typed);
    let expected = "\
🚀 QUIC WebSocket Chat Client
Connecting to: <ADDR>
Your name: ChatUser

🔗 Connecting to server...
✅ Connected successfully!
✅ Connected to server: QUIC WebSocket Server

💬 Chat Commands:
  /broadcast <message>  - Send message to all users
  /list                 - List all connected users
  /ping                 - Send ping to server
  /quit                 - Exit the chat
  /direct <id or name> <message> - Send message to one user
  /help                 - Show these commands
  /join <room>          - Join a room, or switch to it: what you type goes there
  /leave [room]         - Leave a room; in no room, what you type is echoed
  /topics               - List your rooms
  /who [room]           - List the members of a room
  //<message>           - Send a message that begins with a slash
  A name with spaces goes in quotes: /direct \"Ada L\" hello

> Hello from chat client!
💬 Server: Echo: Hello from chat client!
> /list
👥 Connected users (1):
  • ChatUser (<ID>)
> /broadcast Hello everyone!
📢 Broadcast from <ID>: Hello everyone!
> /quit
👋 Goodbye!
";
    assert_eq!(transcript(&output, &server.addr), expected);
    server.stop();
}

#[test]
fn a_chat_room_shows_earlier_messages_and_continues() {
    let server = Server::start();
    let said: String = (1..=12).map(|n| format!("line {n}\n")).collect();
    let output = server.run("chat_client", &["--name", "Ada"], &format!("/join lobby\n{said}/quit\n"));
    let shown = transcript(&output, &server.addr);
    assert!(shown.contains("> line 12\n💬 [lobby] Ada: line 12\n> /quit\n"), "{shown}");

    // The server notices the end by itself.
    let is_empty = || {
        let output = server.run("chat_client", &[], "/who lobby\n/quit\n");
        transcript(&output, &server.addr).contains("In lobby (0)")
    };
    assert!((0..100).any(|_| is_empty()), "Ada is still there");

    let typed = "/leave\n/who\n/join lobby\nHello, room\n/who\n/join a b\n/join other\n/topics\n\
        /join lobby\n/leave other\n/leave\nHello, server\n/who lobby\n/quit\n";
    let output = server.run("chat_client", &["--name", "Bob"], typed);
    let shown = transcript(&output, &server.addr);
    let (_, shown) = shown.split_once("\"Ada L\" hello\n\n").expect("the commands");
    // The name of a client that has left is unknown.
    let shown: Vec<_> = shown
        .lines()
        .map(|line| match line.split_once("] ").and_then(|(_, said)| said.split_once(": line ")) {
            Some((from, said)) if from.len() == 8 => format!("💬 [lobby] <ID>: line {said}"),
            _ => line.to_owned(),
        })
        .collect();
    let expected = "\
> /leave
You are in no room; join one with /join <room>
> /who
You are in no room; join one with /join <room>
> /join lobby
🚪 You are in lobby (1 here); what you type goes there
💬 [lobby] <ID>: line 3
💬 [lobby] <ID>: line 4
💬 [lobby] <ID>: line 5
💬 [lobby] <ID>: line 6
💬 [lobby] <ID>: line 7
💬 [lobby] <ID>: line 8
💬 [lobby] <ID>: line 9
💬 [lobby] <ID>: line 10
💬 [lobby] <ID>: line 11
💬 [lobby] <ID>: line 12
> Hello, room
💬 [lobby] Bob: Hello, room
> /who
👥 In lobby (1):
  • Bob (<ID>)
> /join a b
❌ topic: use A-Z a-z 0-9 _ -, with dots between levels, at most 255 bytes
> /join other
🚪 You are in other (1 here); what you type goes there
> /topics
🚪 Your rooms (2):
  • lobby
  • other (current)
> /join lobby
🚪 Back in lobby; what you type goes there
> /leave other
🚪 You left other; what you type goes to lobby
> /leave
🚪 You left lobby; what you type is echoed
> Hello, server
💬 Server: Echo: Hello, server
> /who lobby
👥 In lobby (0):
> /quit
👋 Goodbye!";
    assert_eq!(shown.join("\n"), expected);
    server.stop();
}

#[test]
fn clients_fail_loudly_if_no_server_can_be_trusted_or_reached() {
    let server = Server::start();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let output = Command::new(example_path("client"))
        .args(["--server", &server.addr])
        .current_dir(elsewhere.path())
        .output()
        .expect("the example runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && errors.contains("not trusted") && errors.contains("--ca"), "{errors}");

    let insecure = server.run("client", &["--insecure", "--count", "1", "--interval", "1"], "");
    assert!(insecure.status.success());
    assert!(String::from_utf8_lossy(&insecure.stderr).contains("WARNING"), "--insecure warns");

    server.stop();

    let output = Command::new(example_path("client"))
        .args(["--server", "127.0.0.1:1", "--insecure"])
        .output()
        .expect("the example runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && errors.contains("no answer from 127.0.0.1:1"), "{errors}");
}
