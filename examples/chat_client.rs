//! A chat in the terminal: lines are echoed by the server, or said in the room that was joined; `/broadcast` reaches
//! everybody, `/direct` one other. What comes in while a line is being typed is shown above it. Reads a pipe as well:
//! `printf 'hi\n/quit\n' | chat_client`.
//!
//! `cargo run --release --example chat_client -- --server 127.0.0.1:4433 --name Ada`

mod common;
#[path = "chat/rooms.rs"]
mod rooms;
#[path = "chat/terminal.rs"]
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use common::ServerArgs;
use quic_websocket::message::{CloseCode, Payload, ServerMessage};
use quic_websocket::{Client, ClientError, Event, Events, Printable};
use rooms::Rooms;
use terminal::{Cooked, Line, Screen};
use tokio::sync::mpsc;
use uuid::Uuid;

const COMMANDS: &str = "💬 Chat Commands:
  /broadcast <message>  - Send message to all users
  /list                 - List all connected users
  /ping                 - Send ping to server
  /quit                 - Exit the chat
  /direct <id or name> <message> - Send message to one user
  /help                 - Show these commands
  /join <room>          - Enter a room, or turn to it: what you type then goes there
  /leave [room]         - Leave a room; without any, what you type is echoed
  /topics               - List the rooms that you are in
  /who [room]           - List who is in a room
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
    let (client, events) = args.server.client()?.name(&args.name)?.connect().await?;
    println!("✅ Connected successfully!");
    println!("✅ Connected to server: {}", Printable::new(&client.server_name().unwrap_or_default()));
    println!();
    println!("{COMMANDS}");

    let _cooked = Cooked::now();
    let (lines, screen) = terminal::keyboard()?;
    Chat { client, events, rooms: Rooms::default(), screen }.run(lines).await
}

struct Chat {
    client: Client,
    events: Events,
    rooms: Rooms,
    screen: Screen,
}

impl Chat {
    async fn run(mut self, mut lines: mpsc::Receiver<Line>) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => self.show(event).await?,
                    None => anyhow::bail!("the connection ended"),
                },
                heard = self.rooms.next() => self.screen.show(&heard),
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
                        self.show(event).await?;
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
            ("/join", "") => self.screen.show("Usage: /join <room>"),
            ("/join", room) => {
                let heard = self.rooms.join(&self.client, room).await?;
                self.show_all(heard);
            }
            ("/leave", room) => {
                let heard = self.rooms.leave(room).await?;
                self.screen.show(&heard);
            }
            ("/topics", _) => {
                let heard = self.rooms.list();
                self.show_all(heard);
            }
            ("/who", room) => {
                let heard = self.rooms.who(&self.client, room).await?;
                self.show_all(heard);
            }
            (command, _) if command.starts_with('/') => {
                self.screen.show(&format!("Unknown command {}; /help lists them", Printable::new(command)));
            }
            _ if self.rooms.is_in_one() => {
                let heard = self.rooms.say(&self.client, line).await?;
                self.show_all(heard);
            }
            _ => {
                let echo = self.client.echo(line).await?;
                self.screen.show(&format!("💬 Server: {}", Printable::new(&echo)));
            }
        }
        Ok(())
    }

    fn show_all(&mut self, lines: Vec<String>) {
        for line in lines {
            self.screen.show(&line);
        }
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

    async fn show(&mut self, event: Event) -> anyhow::Result<()> {
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
            Event::Reconnected => {
                self.screen.show("✅ Reconnected");
                if let Err(e) = self.rooms.refresh(&self.client).await {
                    self.screen.show(&format!("❌ {}", Printable::new(&e.to_string())));
                }
            }
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

/// What a message says, fit for a terminal.
fn said(payload: &Payload) -> String {
    match (&payload.content, &payload.attachment) {
        (Some(content), _) => Printable::new(content).to_string(),
        (None, attachment) => format!("({} bytes)", attachment.as_ref().map_or(0, bytes::Bytes::len)),
    }
}
