//! Promises of the examples beyond their transcripts: they fail if something is missing, they count losses, and
//! incoming messages never break the line being typed.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::stage::{Played, Stage};
use common::{TestServer, soon, until};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

fn example(name: &str, server: std::net::SocketAddr, ca: &Path) -> Command {
    let path: PathBuf = Path::new(env!("CARGO_BIN_EXE_quic-websocket")).with_file_name("examples").join(name);
    let mut command = Command::new(path);
    command.args(["--server", &server.to_string(), "--ca"]).arg(ca).kill_on_drop(true).stdin(Stdio::null());
    command
}

async fn output(what: &str, mut command: Command) -> Output {
    soon(what, command.output()).await.expect("it runs")
}

/// Fault of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Leaves out the answer to requests of this type.
    Withholds(&'static str),
    /// Answers requests of this type with something else.
    Falsifies(&'static str),
}

/// Answers as a server does, except for its fault, until the client leaves.
async fn play(stage: &Stage, fault: Fault) {
    let Played { connection, mut control } = stage.accept().await;
    let mut client = Value::Null;
    while let Ok(body) = control.try_hear_body().await {
        let asked: Value = serde_json::from_slice(&body).expect("JSON");
        let kind = asked["type"].as_str().expect("a type").to_owned();
        if client.is_null() {
            client = json!(stage.client_id);
        }
        let mut reply = match &*kind {
            "text" => json!({"type": "text", "content": format!("Echo: {}", asked["content"].as_str().expect("text"))}),
            "ping" => json!({"type": "pong", "timestamp": asked["timestamp"], "server_time": 1}),
            "list_clients" => json!({"type": "client_list", "clients": [], "total": 0}),
            "broadcast" => {
                json!({"type": "broadcast", "from": client, "content": asked["content"], "timestamp": 1})
            }
            "close" => break,
            other => panic!("the client asked for {other}"),
        };
        match fault {
            Fault::Withholds(faulty) if faulty == kind => continue,
            Fault::Falsifies(faulty) if faulty == kind => match faulty {
                "text" | "broadcast" => reply["content"] = json!("something else"),
                "ping" => reply["timestamp"] = json!(1),
                _ => reply = json!({"type": "error", "code": 500, "message": "no list today"}),
            },
            _ => {}
        }
        if let Some(id) = asked.get("id") {
            reply["re"] = id.clone();
        }
        control.say(reply).await;
    }
    connection.close(1000_u32.into(), b"as asked");
    soon("the client's end", connection.closed()).await;
}

#[tokio::test]
async fn hello_publishes_a_message_and_receives_it_as_readme_shows() {
    let server = TestServer::start().await;
    let path = Path::new(env!("CARGO_BIN_EXE_quic-websocket")).with_file_name("examples").join("hello");
    let mut command = Command::new(path);
    command.arg(server.addr.to_string()).kill_on_drop(true).stdin(Stdio::null());
    command.env("QUIC_WEBSOCKET_CERTS", server.files.ca.parent().expect("a folder"));
    let output = output("hello's end", command).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said, "published at offset 1\nreceived on greetings: \"Hello, QUIC!\"\n");
    server.stop().await;

    let readme = include_str!("../README.md");
    assert!(readme.contains(&format!("```\n{said}```\n")), "README.md shows another output of hello");
    let shown = readme.split_once("```rust\n").and_then(|(_, rest)| rest.split_once("```\n")).expect("Rust code").0;
    let source = include_str!("../examples/hello.rs");
    let code = source.split_once("\n\n").expect("code behind the first comment").1;
    assert_eq!(shown, code, "README.md shows another program than examples/hello.rs");
}

/// The `INFO` lines of a log without what differs between starts: times, addresses' digits, hashes and tokens.
fn masked(log: &str) -> Vec<String> {
    let mask = |word: &str| match word.split_once("token=") {
        Some((before, _)) => before.to_owned(),
        None if word.len() > 40 && !word.contains("://") => "<HASH>".to_owned(),
        None => word.to_owned(),
    };
    let message = |line: &str| Some(line.split_once(" INFO ")?.1.split_whitespace().map(mask).collect::<Vec<_>>());
    log.lines().filter_map(message).map(|words| words.join(" ").replace(|c: char| c.is_ascii_digit(), "")).collect()
}

#[tokio::test]
async fn the_server_starts_with_the_log_lines_that_the_documents_show() {
    let (readme, quickstart) = (include_str!("../README.md"), include_str!("../QUICKSTART.md"));
    for (document, text, more) in
        [("README.md", readme, &["--http", "127.0.0.1:0"][..]), ("QUICKSTART.md", quickstart, &[])]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let args = [&["--addr", "127.0.0.1:0", "--log-messages", "info"], more].concat();
        let mut server = common::process::Process::start(folder.path(), &args, &[]);
        server.listening().await;
        until("the last line of the start", || server.stderr().contains("/dashboard#token=")).await;
        let is_log = |block: &&str| block.contains("INFO Starting ");
        let shown = text.split("```").find(is_log).unwrap_or_else(|| panic!("{document} shows no log of the start"));
        assert_eq!(masked(shown), masked(&server.stderr()), "{document} shows other lines than the server writes");
    }
}

#[tokio::test]
async fn the_test_client_fails_if_an_expected_reply_is_missing() {
    let mut tries = tokio::task::JoinSet::new();
    let faults = ["text", "ping", "list_clients", "broadcast"];
    let faults = faults.into_iter().flat_map(|kind| [Fault::Withholds(kind), Fault::Falsifies(kind)]);
    for fault in std::iter::once(Fault::None).chain(faults) {
        tries.spawn(async move {
            let stage = Stage::new();
            let mut command = example("client", stage.addr, &stage.files.ca);
            command.args(["--count", "1", "--interval", "0"]);
            let mut output = std::pin::pin!(output("the client's end", command));
            let output = tokio::select! {
                // A client that gives up sends no close.
                output = &mut output => output,
                () = play(&stage, fault) => output.await,
            };
            (fault, output)
        });
    }
    for (fault, output) in tries.join_all().await {
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), fault == Fault::None, "{fault:?}: {said}");
        assert_eq!(said.contains('❌'), fault != Fault::None, "{fault:?}: {said}");
    }
}

#[tokio::test]
async fn an_invalid_server_address_is_reported_with_the_expected_form() {
    for (wrong, instead) in [
        ("chat.example", "write chat.example:4433"),
        ("::1", "[::1]:4433"),
        ("[::1]", "write [::1]:4433"),
        (":4433", "the host is missing"),
        ("chat.example:", "not a port"),
        ("chat.example:65536", "not a port"),
        ("https://chat.example/", "write chat.example:4433"),
        ("wss://chat.example:443/ws", "write chat.example:443;"),
    ] {
        let path = Path::new(env!("CARGO_BIN_EXE_quic-websocket")).with_file_name("examples").join("client");
        let mut command = Command::new(path);
        command.args(["--server", wrong]).kill_on_drop(true).stdin(Stdio::null());
        let output = output("its end", command).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{wrong}: {said}");
        assert!(said.contains(instead) && said.contains("expected host:port, such as 127.0.0.1:4433"), "{said}");
    }
}

/// A chat client on a terminal.
struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    _client: tokio::process::Child,
}

impl Terminal {
    fn open(mut command: Command) -> Self {
        let pty = nix::pty::openpty(None, None).expect("a terminal");
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("its end"));
        command.env("TERM", "xterm").stdin(end(&pty.slave)).stdout(end(&pty.slave)).stderr(end(&pty.slave));
        let client = command.spawn().expect("it starts");
        drop(pty.slave);
        let keyboard = File::from(pty.master);
        let (mut output, screen) = (keyboard.try_clone().expect("its screen"), Arc::<Mutex<Vec<u8>>>::default());
        let shown = Arc::clone(&screen);
        // Ends with the terminal, whose other end the client holds.
        std::thread::spawn(move || {
            let mut bytes = [0; 1000];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().expect("no panic").extend_from_slice(&bytes[..count]);
            }
        });
        Self { keyboard, screen, _client: client }
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("it is typed");
    }

    /// The output without cursor movements: text typed early is drawn differently.
    fn screen(&self) -> String {
        let written = String::from_utf8_lossy(&self.screen.lock().expect("no panic")).replace('\r', "");
        let mut parts = written.split("\u{1b}[");
        let first = parts.next().unwrap_or_default().to_owned();
        let is_end = |c: char| ('@'..='~').contains(&c);
        parts.fold(first, |shown, part| shown + part.split_once(is_end).map_or("", |(_, text)| text))
    }

    async fn shows(&self, text: &str) {
        self.shows_behind(0, text).await;
    }

    /// The same for the output after this many bytes.
    async fn shows_behind(&self, before: usize, text: &str) {
        let shows = until("the text on the screen", || self.screen()[before..].contains(text));
        if timeout(Duration::from_secs(15), shows).await.is_err() {
            panic!("expected {text:?} on the screen, found {:?}", &self.screen()[before..]);
        }
    }
}

#[tokio::test]
async fn an_incoming_message_leaves_the_line_being_typed_intact() {
    let server = TestServer::start().await;
    let mut other = server.client("other").await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = example("chat_client", server.addr, &server.files.ca);
    command.current_dir(folder.path()).env("HOME", folder.path());
    let mut terminal = Terminal::open(command);
    terminal.shows("> ").await;
    terminal.type_in("half a li");
    terminal.shows("half a li").await;
    let before = terminal.screen().len();
    other.control.say(json!({"type": "broadcast", "content": "in between"})).await;
    terminal.shows("in between").await;
    // The message has a separate line, and the typed text is on the next one again.
    terminal.shows_behind(before, "in between\n> half a li").await;
    terminal.type_in("ne\r");
    terminal.shows("Echo: half a line").await;
    // The arrow key recalls the previous line.
    terminal.type_in("\x1b[A, again\r");
    terminal.shows("Echo: half a line, again").await;
    terminal.type_in("/quit\r");
    terminal.shows("Goodbye!").await;
    server.stop().await;
}

#[tokio::test]
async fn every_chat_command_works_in_a_pipe() {
    let server = TestServer::start().await;
    let mut bob = server.client("Bob").await;
    let mut command = example("chat_client", server.addr, &server.files.ca);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut chat = command.spawn().expect("it starts");
    let mut stdin = chat.stdin.take().expect("its input");
    let typed = format!("/ping\n/direct Bob by name\n/direct {} by id\n/nonsense\n/help\n", bob.id);
    tokio::io::AsyncWriteExt::write_all(&mut stdin, typed.as_bytes()).await.expect("typed");
    for how in ["by name", "by id"] {
        assert_eq!(bob.control.expect("direct").await["content"], how);
    }
    drop(stdin);
    let output = soon("the chat's end", chat.wait_with_output()).await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    for expected in ["🏓 Pong after", "Unknown command /nonsense", "/direct <id or name>"] {
        assert!(said.contains(expected), "{expected} is missing in {said}");
    }
    let (_, commands) = said.split_once("Chat Commands:").expect("the commands");
    let commands = commands.split_once("\n\n").expect("an empty line behind the commands").0;
    assert!(include_str!("../QUICKSTART.md").contains(commands), "QUICKSTART.md shows other commands than {commands}");
    server.stop().await;
}

/// Output of a chat for these input lines, and whether it succeeded.
async fn piped(server: &TestServer, more: &[&str], typed: &[u8]) -> (String, bool) {
    let mut command = example("chat_client", server.addr, &server.files.ca);
    command.args(more).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut chat = command.spawn().expect("it starts");
    let mut stdin = chat.stdin.take().expect("its input");
    let typed = typed.to_vec();
    // It may exit before it has read everything.
    let typing = tokio::spawn(async move { drop(tokio::io::AsyncWriteExt::write_all(&mut stdin, &typed).await) });
    let output = soon("the chat's end", chat.wait_with_output()).await.expect("it runs");
    typing.await.expect("no panic");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (said, output.status.success())
}

#[tokio::test]
async fn an_unsendable_line_is_reported_and_the_others_are_sent() {
    let server = TestServer::start().await;
    let long = "x".repeat(2 << 20);
    let typed = [b"first\n\xff\xfe\n", long.as_bytes(), b"\n//slash\n/help\nlast\n/quit now\nnever\n"].concat();
    let (said, is_well) = piped(&server, &[], &typed).await;
    for expected in ["Echo: first", "not UTF-8", "the server accepts at most", "Echo: /slash", "Echo: last", "Goodbye"]
    {
        assert!(said.contains(expected), "{expected} is missing in {:.2000}", said.replace(&long, "xxx"));
    }
    assert!(!said.contains("never") && !is_well, "two lines were not sent");
    let (said, is_well) = piped(&server, &[], b"first\n").await;
    assert!(is_well && said.contains("Goodbye!"), "{said}");
    server.stop().await;
}

#[tokio::test]
async fn a_name_with_spaces_works_in_quotes_and_a_direct_message_names_its_sender() {
    let server = TestServer::start().await;
    let mut ada = server.client("Ada L").await;
    let (said, is_well) =
        piped(&server, &["--name", "Bob B"], b"/direct \"Ada L\" hi there\n/direct \"Bob B\" me\n").await;
    assert_eq!(ada.control.expect("direct").await["content"], "hi there");
    assert!(is_well && said.contains("Sent to Ada L") && said.contains("Direct from Bob B ("), "{said}");
    let (said, is_well) = piped(&server, &[], b"/direct \"Ada M\" hi there\n").await;
    assert!(!is_well && said.contains("No user has that name"), "{said}");
    server.stop().await;
}

#[tokio::test]
async fn a_closed_output_is_not_a_failure() {
    let server = TestServer::start().await;
    for (name, more) in
        [("client", &["--interval", "0"][..]), ("chat_client", &[]), ("telemetry", &["--seconds", "2", "--rate", "5"])]
    {
        let mut command = example(name, server.addr, &server.files.ca);
        command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::piped());
        let mut running = command.spawn().expect("it starts");
        // Kept open, so that a chat does not end at the end of its input.
        let mut stdin = running.stdin.take().expect("its input");
        drop(running.stdout.take());
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, b"one\ntwo\n").await;
        let output = soon("its end", running.wait_with_output()).await.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("panicked"), "{name}: {} {said}", output.status);
    }
    server.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_subscriber_whose_output_is_closed_exits_without_another_message() {
    let server = TestServer::start().await;
    let mut command = example("pubsub", server.addr, &server.files.ca);
    command.args(["sub", "t"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut subscriber = command.spawn().expect("it starts");
    until("its subscription", || server.status.stats(0).topics.subscriptions == 1).await;
    drop(subscriber.stdout.take());
    let output = soon("its end", subscriber.wait_with_output()).await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{} {said}", output.status);
    server.stop().await;
}

#[tokio::test]
async fn a_terminated_subscriber_prints_its_position_and_disconnects() {
    use nix::sys::signal::{Signal, kill};
    let server = TestServer::start().await;
    let mut command = example("pubsub", server.addr, &server.files.ca);
    command.args(["sub", "t", "--count", "5"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut subscriber = command.spawn().expect("it starts");
    until("its subscription", || server.status.stats(0).topics.subscriptions == 1).await;
    // Once it prints this message, the subscription is known to both sides.
    common::library::publish(&common::library::client(&server, "Ada").await, "t", "one").await;
    let mut stdout = subscriber.stdout.take().expect("its output");
    let mut line = [0; 4];
    soon("a line", tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut line)).await.expect("it shows it");
    assert_eq!(&line, b"one\n");
    let pid = i32::try_from(subscriber.id().expect("it runs")).expect("a process id");
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).expect("it is there");
    let output = soon("its end", subscriber.wait_with_output()).await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("--since"), "{} {said}", output.status);
    until("the server's count", || server.status.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_publisher_waits_if_the_server_requests_it_and_continues_after_a_bad_line() {
    let server = common::limits::limited(|rates| (rates.client_messages, rates.client_messages_burst) = (100, 5)).await;
    let mut command = example("pubsub", server.addr, &server.files.ca);
    command.args(["pub", "t"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut publisher = command.spawn().expect("it starts");
    let mut stdin = publisher.stdin.take().expect("its input");
    let lines: Vec<u8> =
        (0..40).flat_map(|n| if n == 20 { b"\xff\n".to_vec() } else { format!("{n}\n").into() }).collect();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, &lines).await.expect("it reads");
    drop(stdin);
    let output = soon("its end", publisher.wait_with_output()).await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("39 published") && said.contains("Line 21 was not published"), "{said}");
    assert!(!output.status.success() && server.status.stats(0).totals.refused > 0, "{said}");
    server.stop().await;
}

#[tokio::test]
async fn lines_typed_while_the_server_is_unreachable_are_reported_at_once() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = example("chat_client", server.addr, &server.files.ca);
    command.current_dir(folder.path()).env("HOME", folder.path());
    let mut terminal = Terminal::open(command);
    terminal.shows("> ").await;
    terminal.type_in("hello\r");
    terminal.shows("Echo: hello").await;
    server.stop().await;
    terminal.shows("Connection lost").await;
    terminal.type_in("are you there?\r");
    terminal.shows("Not connected: this was not sent").await;
    // The prompt is displayed again.
    terminal.type_in("/topics\r");
    terminal.shows("Your rooms (0)").await;
    terminal.type_in("/quit\r");
    terminal.shows("Goodbye!").await;
}

/// A server that keeps the topics below `orders` in this directory.
async fn durable_server(dir: &Path) -> TestServer {
    TestServer::start_with(|config| {
        config.store.dir = Some(dir.to_owned());
        config.store.segment_bytes = 1 << 20;
        config.store.min_free_bytes = 0;
        config.topics = vec![common::topics::rule("pattern = 'orders.>'\ndurability = 'os'")];
    })
    .await
}

/// What `pubsub` prints, and what it says beside.
async fn pubsub(server: &TestServer, args: &[&str]) -> (String, String) {
    let mut command = example("pubsub", server.addr, &server.files.ca);
    command.args(args);
    let output = output("pubsub's end", command).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {said}");
    (String::from_utf8_lossy(&output.stdout).into_owned(), said)
}

#[tokio::test]
async fn a_durable_subscriber_continues_where_it_stopped_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = durable_server(dir.path()).await;
    let ada = common::library::client(&server, "Ada").await;
    for content in ["one", "two", "three"] {
        common::library::publish(&ada, "orders.eu", content).await;
    }
    let sub = ["sub", "orders.eu", "--durable", "billing"];
    let (first, _) = pubsub(&server, &[&sub[..], &["--recent", "10", "--count", "2"]].concat()).await;
    assert_eq!(first, "one\ntwo\n");
    // The third was under way when it left.
    let (peek, _) = pubsub(&server, &[&sub[..], &["--ack", "none", "--count", "1", "--json"]].concat()).await;
    let peek: Value = serde_json::from_str(&peek).expect("JSON");
    assert_eq!((&peek["content"], &peek["durable"], &peek["tries"]), (&json!("three"), &json!("billing"), &json!(2)));
    let (again, said) = pubsub(&server, &[&sub[..], &["--count", "1"]].concat()).await;
    assert_eq!(again, "three\n");
    assert!(said.contains("Message 3 comes again: delivery 3"), "{said}");
    drop(ada);
    server.stop().await;

    let server = durable_server(dir.path()).await;
    let ada = common::library::client(&server, "Ada").await;
    common::library::publish(&ada, "orders.eu", "four").await;
    let (next, _) = pubsub(&server, &[&sub[..], &["--count", "1"]].concat()).await;
    assert_eq!(next, "four\n");
    let (newest, _) = pubsub(&server, &["history", "orders.eu", "--reverse", "--recent", "3"]).await;
    assert_eq!(newest, "four\nthree\ntwo\n");
    let (all, _) = pubsub(&server, &["history", "orders.eu", "--since-time", "1h"]).await;
    assert_eq!(all, "one\ntwo\nthree\nfour\n");
    let (before, _) = pubsub(&server, &["history", "orders.eu", "--since-time", "1h", "--reverse"]).await;
    assert_eq!(before, "", "there is nothing older");
    server.stop().await;
}

#[tokio::test]
async fn a_subscriber_that_takes_a_consumer_over_ends_the_one_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = durable_server(dir.path()).await;
    let mut command = example("pubsub", server.addr, &server.files.ca);
    command.args(["sub", "orders.eu", "--durable", "billing"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let older = command.spawn().expect("it starts");
    until("its subscription", || server.status.stats(0).topics.subscriptions == 1).await;
    let mut command = example("pubsub", server.addr, &server.files.ca);
    command.args(["sub", "orders.eu", "--durable", "billing", "--count", "1"]).stdout(Stdio::piped());
    let newer = command.spawn().expect("it starts");
    let older = soon("the older one's end", older.wait_with_output()).await.expect("it runs");
    let said = String::from_utf8_lossy(&older.stderr);
    assert!(!older.status.success() && said.contains("the subscription ended") && said.contains("billing"), "{said}");
    let ada = common::library::client(&server, "Ada").await;
    common::library::publish(&ada, "orders.eu", "one").await;
    let newer = soon("the newer one's end", newer.wait_with_output()).await.expect("it runs");
    assert_eq!(String::from_utf8_lossy(&newer.stdout), "one\n");
    server.stop().await;
}

#[tokio::test]
async fn subscribers_that_share_a_topic_divide_its_messages() {
    let server = TestServer::start().await;
    let share = || {
        let mut command = example("pubsub", server.addr, &server.files.ca);
        command.args(["sub", "jobs", "--share", "--count", "2"]).stdout(Stdio::piped()).spawn().expect("it starts")
    };
    let members = [share(), share()];
    until("their subscriptions", || server.status.stats(0).topics.subscriptions == 2).await;
    let ada = common::library::client(&server, "Ada").await;
    for content in ["1", "2", "3", "4"] {
        common::library::publish(&ada, "jobs", content).await;
    }
    let mut got = Vec::new();
    for member in members {
        let output = soon("its end", member.wait_with_output()).await.expect("it runs");
        got.extend(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned));
    }
    got.sort();
    assert_eq!(got, ["1", "2", "3", "4"]);
    server.stop().await;
}

#[tokio::test]
async fn values_are_published_with_meta_and_printed_for_those_who_filter() {
    let server = TestServer::start().await;
    let filter = r#"{"host":{"prefix":"eu-"}}"#;
    let mut command = example("pubsub", server.addr, &server.files.ca);
    command.args(["sub", "metrics", "--filter", filter, "--max-rate", "1000", "--no-echo", "--count", "1"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let subscriber = command.spawn().expect("it starts");
    until("its subscription", || server.status.stats(0).topics.subscriptions == 1).await;
    for host in ["us-1", "eu-1"] {
        let mut command = example("pubsub", server.addr, &server.files.ca);
        let meta = format!(r#"{{"host":"{host}"}}"#);
        command.args(["pub", "metrics", "--data", "--meta", &meta, "--ttl", "1h"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut publisher = command.spawn().expect("it starts");
        let line = format!("{{\"from\" : \"{host}\"}}\n");
        let mut stdin = publisher.stdin.take().expect("its input");
        tokio::io::AsyncWriteExt::write_all(&mut stdin, line.as_bytes()).await.expect("it reads");
        drop(stdin);
        let output = soon("its end", publisher.wait_with_output()).await.expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let output = soon("its end", subscriber.wait_with_output()).await.expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"from\" : \"eu-1\"}\n");
    server.stop().await;
}

#[tokio::test]
async fn one_client_answers_what_another_one_asks() {
    let server = TestServer::start().await;
    let mut command = example("rpc", server.addr, &server.files.ca);
    command.args(["serve", "rpc.sum"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut service = command.spawn().expect("it starts");
    until("its subscription", || server.status.stats(0).topics.subscriptions == 1).await;
    let ask = |request: &'static str| {
        let mut command = example("rpc", server.addr, &server.files.ca);
        command.args(["ask", "rpc.sum", request]);
        output("the answer", command)
    };
    let answered = ask("[1, 2, 3.5]").await;
    assert_eq!(String::from_utf8_lossy(&answered.stdout), "6.5\n");
    let refused = ask("\"text\"").await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("(500)"), "{said}");
    service.kill().await.expect("it runs");
    server.stop().await;
}
