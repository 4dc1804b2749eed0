//! A chat in the terminal: lines are echoed by the server, `/broadcast` reaches everybody, `/direct` one other. What
//! comes in while a line is being typed is shown above it. Reads a pipe as well: `printf 'hi\n/quit\n' | chat_client`.
//!
//! `cargo run --release --example chat_client -- --server 127.0.0.1:4433 --name Ada`

mod common;

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use clap::Parser;
use common::ServerArgs;
use quic_websocket::message::{CloseCode, Payload, ServerMessage};
use quic_websocket::{Client, ClientError, Event, Events, Printable};
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

const PROMPT: &str = "> ";

const COMMANDS: &str = "💬 Chat Commands:
  /broadcast <message>  - Send message to all users
  /list                 - List all connected users
  /ping                 - Send ping to server
  /quit                 - Exit the chat
  /direct <id or name> <message> - Send message to one user
  /help                 - Show these commands
";

/// Chats through a quic-websocket server.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// The name to go by
    #[arg(long, default_value = "ChatUser")]
    name: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    common::exit(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    println!("🚀 QUIC WebSocket Chat Client");
    println!("Connecting to: {}", args.server.server);
    println!("Your name: {}", args.name);
    println!();
    println!("🔗 Connecting to server...");
    let (client, events) = args.server.client().name(&args.name)?.connect().await?;
    println!("✅ Connected successfully!");
    println!("✅ Connected to server: {}", Printable::new(&client.server_name().unwrap_or_default()));
    println!();
    println!("{COMMANDS}");

    let _cooked = Cooked::now();
    let (lines, screen) = keyboard()?;
    Chat { client, events, screen }.run(lines).await
}

/// A line as it was typed. The next one is asked for once `more` says so; without that, none is.
struct Line {
    text: String,
    more: oneshot::Sender<()>,
}

/// Sets the terminal back when it is dropped: a line that is still being typed when the chat ends keeps it raw.
#[cfg(unix)]
struct Cooked(Option<nix::sys::termios::Termios>);

#[cfg(unix)]
impl Cooked {
    fn now() -> Self {
        // Where it is no terminal, there is nothing to set back.
        Self(nix::sys::termios::tcgetattr(std::io::stdin()).ok())
    }
}

#[cfg(unix)]
impl Drop for Cooked {
    fn drop(&mut self) {
        use nix::sys::termios::{SetArg, tcsetattr};
        if let Some(settings) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, settings);
        }
    }
}

/// Elsewhere the system does that.
#[cfg(not(unix))]
struct Cooked;

#[cfg(not(unix))]
impl Cooked {
    fn now() -> Self {
        Self
    }
}

/// Where lines are shown without tearing the one that is being typed.
enum Screen {
    Terminal(Box<dyn ExternalPrinter + Send>),
    Pipe,
}

impl Screen {
    fn show(&mut self, text: &str) {
        match self {
            // A terminal that is gone ends the reading side as well.
            Self::Terminal(printer) => drop(printer.print(format!("{text}\n"))),
            Self::Pipe => println!("{text}"),
        }
    }
}

/// Reads lines in a thread of their own, because reading blocks. It ends with its input, or with the chat.
fn keyboard() -> anyhow::Result<(mpsc::Receiver<Line>, Screen)> {
    let (sender, lines) = mpsc::channel(1);
    let ask = move |text: String| {
        let (more, wait) = oneshot::channel();
        sender.blocking_send(Line { text, more }).is_ok() && wait.blocking_recv().is_ok()
    };
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                println!("{PROMPT}{line}");
                if !ask(line) {
                    break;
                }
            }
        });
        return Ok((lines, Screen::Pipe));
    }
    let mut editor = DefaultEditor::new().context("cannot use this terminal")?;
    let printer = editor.create_external_printer().context("cannot use this terminal")?;
    thread::spawn(move || {
        loop {
            match editor.readline(PROMPT) {
                Ok(line) => {
                    // History is a comfort; a line that cannot be kept is still sent.
                    let _ = editor.add_history_entry(&line);
                    if !ask(line) {
                        break;
                    }
                }
                Err(ReadlineError::Interrupted | ReadlineError::Eof) => break,
                Err(e) => {
                    eprintln!("The terminal cannot be read: {e}");
                    break;
                }
            }
        }
    });
    Ok((lines, Screen::Terminal(Box::new(printer))))
}

struct Chat {
    client: Client,
    events: Events,
    screen: Screen,
}

impl Chat {
    async fn run(mut self, mut lines: mpsc::Receiver<Line>) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => self.show(event)?,
                    None => anyhow::bail!("the connection ended"),
                },
                line = lines.recv() => {
                    let Some(Line { text, more }) = line else { break };
                    if text.trim() == "/quit" {
                        break;
                    }
                    if let Err(e) = self.carry_out(text.trim()).await {
                        self.screen.show(&format!("❌ {}", Printable::new(&e.to_string())));
                    }
                    // What came before the answer is shown before the next line is asked for.
                    while let Some(event) = self.events.try_next() {
                        self.show(event)?;
                    }
                    // A keyboard that is gone ends the chat by itself.
                    let _ = more.send(());
                }
            }
        }
        self.client.close(CloseCode::NORMAL, "Chat ended").await?;
        println!("👋 Goodbye!");
        Ok(())
    }

    async fn carry_out(&mut self, line: &str) -> Result<(), ClientError> {
        let (command, rest) = line.split_once(' ').map_or((line, ""), |(command, rest)| (command, rest.trim()));
        match (command, rest) {
            ("", _) => {}
            ("/help", _) => self.screen.show(COMMANDS.trim_end()),
            ("/list", _) => {
                let clients = self.client.list_clients().await?;
                self.screen.show(&format!("👥 Connected users ({}):", clients.len()));
                for client in clients {
                    let name = client.name.as_deref().unwrap_or("unnamed");
                    self.screen.show(&format!("  • {} ({})", Printable::new(name), client.id));
                }
            }
            ("/ping", _) => {
                let took = self.client.ping().await?;
                self.screen.show(&format!("🏓 Pong after {:.1} ms", took.as_secs_f64() * 1000.0));
            }
            ("/broadcast", "") => self.screen.show("Usage: /broadcast <message>"),
            ("/broadcast", message) => drop(self.client.broadcast(Payload::text(message)).await?),
            ("/direct", rest) => match rest.split_once(' ') {
                Some((to, message)) => self.direct(to, message.trim()).await?,
                None => self.screen.show("Usage: /direct <id or name> <message>"),
            },
            (command, _) if command.starts_with('/') => {
                self.screen.show(&format!("Unknown command {}; /help lists them", Printable::new(command)));
            }
            _ => {
                let echo = self.client.echo(line).await?;
                self.screen.show(&format!("💬 Server: {}", Printable::new(&echo)));
            }
        }
        Ok(())
    }

    async fn direct(&mut self, to: &str, message: &str) -> Result<(), ClientError> {
        let id = match to.parse::<Uuid>() {
            Ok(id) => id,
            Err(_) => {
                let clients = self.client.list_clients().await?;
                let mut ids =
                    clients.iter().filter(|client| client.name.as_deref() == Some(to)).map(|client| client.id);
                match (ids.next(), ids.count()) {
                    (Some(id), 0) => id,
                    (Some(_), more) => {
                        self.screen.show(&format!("{} users have that name; use an id from /list", more + 1));
                        return Ok(());
                    }
                    (None, _) => {
                        self.screen.show("No user has that name; /list shows who is there");
                        return Ok(());
                    }
                }
            }
        };
        self.client.direct(id, Payload::text(message)).await?;
        self.screen.show(&format!("✉️  Sent to {}", Printable::new(to)));
        Ok(())
    }

    fn show(&mut self, event: Event) -> anyhow::Result<()> {
        let said = |payload: &Payload| match (&payload.content, &payload.attachment) {
            (Some(content), _) => Printable::new(content).to_string(),
            (None, attachment) => format!("({} bytes)", attachment.as_ref().map_or(0, bytes::Bytes::len)),
        };
        match event {
            Event::Message(ServerMessage::Broadcast { from, payload, .. }) => {
                self.screen.show(&format!("📢 Broadcast from {from}: {}", said(&payload)));
            }
            Event::Message(ServerMessage::Direct { from, payload, .. }) => {
                self.screen.show(&format!("✉️  Direct from {from}: {}", said(&payload)));
            }
            Event::Disconnected(closed) => {
                self.screen.show(&format!("🔌 Connection lost ({}); reconnecting...", Printable::new(&closed.reason)));
            }
            Event::Reconnected => self.screen.show("✅ Reconnected"),
            Event::Closed(closed) => {
                if matches!(self.screen, Screen::Terminal(_)) {
                    // Below the prompt, which stays.
                    println!();
                }
                anyhow::bail!("closed by the server: {} - {}", closed.code, Printable::new(&closed.reason))
            }
            _ => {}
        }
        Ok(())
    }
}
