//! A chat in the terminal. The server echoes what you type, or, once you have joined a room, it goes to that room;
//! `/broadcast` reaches all clients, `/direct` one of them. Messages that arrive while you type are shown above the
//! line. The input can also be a pipe, `printf 'hi\n/quit\n' | chat_client`; the exit code is 1 if a line could not be
//! sent.
//!
//! `cargo run --release --example chat_client -- --server 127.0.0.1:4433 --name Ada`

mod common;
#[path = "common/interrupt.rs"]
mod interrupt;
#[path = "common/lines.rs"]
mod lines;
#[path = "chat/people.rs"]
mod people;
#[path = "chat/rooms.rs"]
mod rooms;
#[path = "chat/terminal.rs"]
mod terminal;

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use common::{ServerArgs, show};
use interrupt::interrupted;
use people::People;
use quic_websocket::message::{CloseCode, Payload};
use quic_websocket::{Client, ClientError, Event, Events, Printable};
use rooms::Rooms;
use terminal::{Line, Names, Screen, TerminalGuard};
use tokio::sync::mpsc;
use tokio::time::sleep;
use uuid::Uuid;

/// How long a reply may take before the user is told that there is none yet.
const SLOW_REPLY: Duration = Duration::from_secs(1);

const COMMANDS: &str = "💬 Chat Commands:
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
";

/// Chats through a quic-websocket server.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// The name that others see
    #[arg(long, default_value = "ChatUser")]
    name: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    common::exit_code(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    show("🚀 QUIC WebSocket Chat Client")?;
    show(format_args!("Connecting to: {}", args.server.server))?;
    show(format_args!("Your name: {}", args.name))?;
    show("")?;
    show("🔗 Connecting to server...")?;
    let (client, events) = args.server.client()?.name(&args.name)?.connect().await?;
    show("✅ Connected successfully!")?;
    show(format_args!("✅ Connected to server: {}", Printable::new(&client.server_name().unwrap_or_default())))?;
    if let Some(identity) = known_as(&client, &args.name) {
        show(format_args!("✅ You are {}", Printable::new(&identity)))?;
    }
    show("")?;
    show(COMMANDS)?;

    let _guard = TerminalGuard::new();
    let names = Names::default();
    let (lines, screen) = terminal::start_input(names.clone())?;
    let people = People::new(names);
    let (rooms, same_people, same_screen) = (Rooms::default(), people.clone(), screen.clone());
    let commands = Commands { client: client.clone(), rooms, people: same_people, screen: same_screen, unsent: 0 };
    Chat { client, events, commands, people, screen }.run(lines).await
}

/// The name and user that others see, if that is more than the name that was asked for.
fn known_as(client: &Client, asked_for: &str) -> Option<String> {
    let (name, user) = (client.client_name(), client.user());
    match (name, user) {
        (Some(name), Some(user)) => Some(format!("{name} (user {user})")),
        (Some(name), None) if name != asked_for => Some(name),
        (None, Some(user)) => Some(format!("user {user}")),
        _ => None,
    }
}

/// The chat's main loop: handles events, room messages and typed lines in order.
struct Chat {
    client: Client,
    events: Events,
    commands: Commands,
    people: People,
    screen: Screen,
}

impl Chat {
    async fn run(mut self, mut lines: mpsc::Receiver<Line>) -> anyhow::Result<()> {
        let mut interrupted = pin!(interrupted());
        while !self.screen.is_gone() {
            tokio::select! {
                () = &mut interrupted => break,
                event = self.events.next() => match event {
                    Some(event) => self.handle_event(event).await?,
                    None => anyhow::bail!("the connection ended"),
                },
                line = self.commands.rooms.next() => self.screen.show(&line),
                line = lines.recv() => {
                    let Some(Line { text, more }) = line else { break };
                    let text = match &text {
                        Ok(text) => text.trim(),
                        Err(bad) => {
                            self.commands.report_unsent(&format!("A line was not sent: {bad}"));
                            let _ = more.send(());
                            continue;
                        }
                    };
                    self.screen.show_typed(text);
                    if text.split_whitespace().next() == Some("/quit") {
                        break;
                    }
                    tokio::select! {
                        done = self.execute(text) => done?,
                        () = &mut interrupted => break,
                    }
                    // Events that arrived before the reply are shown before the next line is read.
                    while let Some(event) = self.events.try_next() {
                        self.handle_event(event).await?;
                    }
                    // Fails only if the reading thread has ended; then `lines` ends as well.
                    let _ = more.send(());
                }
            }
        }
        self.client.close(CloseCode::NORMAL, "Chat ended").await?;
        show("👋 Goodbye!")?;
        if self.commands.unsent > 0 && !self.screen.is_terminal() {
            anyhow::bail!("lines not sent: {}", self.commands.unsent);
        }
        Ok(())
    }

    /// Executes a typed line. Without a connection, a user at a terminal is told at once and can recall the line; a
    /// pipe waits.
    async fn execute(&mut self, line: &str) -> anyhow::Result<()> {
        let is_terminal = self.screen.is_terminal();
        while self.client.id().is_none() && !is_local(line) {
            if is_terminal {
                self.screen.show("🔌 Not connected: this was not sent. Press ↑ to get the line back");
                return Ok(());
            }
            match self.events.next().await {
                Some(event) => self.handle_event(event).await?,
                None => anyhow::bail!("the connection ended"),
            }
        }
        let mut is_back = false;
        let done = {
            let Self { client, events, commands, people, screen, .. } = self;
            let mut execution = pin!(commands.execute(line));
            let mut slow_reply = pin!(sleep(SLOW_REPLY));
            let mut is_slow = false;
            loop {
                tokio::select! {
                    biased;
                    done = &mut execution => break done,
                    event = events.next() => match event {
                        Some(Event::Disconnected(closed)) => {
                            show_disconnected(screen, &closed.reason);
                            if is_terminal {
                                screen.show("🔌 Your last line may not have been sent. Press ↑ to get it back");
                                return Ok(());
                            }
                        }
                        Some(event) => {
                            is_back |= matches!(event, Event::Reconnected | Event::Moved);
                            handle_event(client, people, screen, event).await?;
                        }
                        None => anyhow::bail!("the connection ended"),
                    },
                    () = &mut slow_reply, if !is_slow => {
                        is_slow = true;
                        screen.show("⏳ No reply yet: the server is slow or unreachable");
                    }
                }
            }
        };
        match done {
            Ok(()) => {}
            // A typing mistake, like an unknown command: it does not count as a line that was not sent.
            Err(e @ ClientError::Invalid(_)) => self.screen.show(&format!("❌ {}", Printable::new(&e.to_string()))),
            Err(e) => self.commands.report_unsent(&e.to_string()),
        }
        if is_back {
            self.commands.refresh_rooms().await;
        }
        Ok(())
    }

    async fn handle_event(&mut self, event: Event) -> anyhow::Result<()> {
        let is_back = matches!(event, Event::Reconnected | Event::Moved);
        handle_event(&self.client, &self.people, &self.screen, event).await?;
        if is_back {
            self.commands.refresh_rooms().await;
        }
        Ok(())
    }
}

/// Whether a line can be executed without a connection.
fn is_local(line: &str) -> bool {
    matches!(line.split_whitespace().next(), None | Some("/help" | "/topics"))
}

fn show_disconnected(screen: &Screen, reason: &str) {
    screen.show(&format!("🔌 Connection lost ({}); reconnecting...", Printable::new(reason)));
}

/// Shows an event: a message from another client, or a change of the connection.
async fn handle_event(client: &Client, people: &People, screen: &Screen, event: Event) -> anyhow::Result<()> {
    match event {
        Event::Broadcast { from, payload, .. } => {
            let from = from.label().map_or_else(|| from.id.to_string(), str::to_owned);
            screen.show(&format!("📢 Broadcast from {}: {}", Printable::new(&from), text_of(&payload)));
        }
        Event::Direct { from, payload, .. } => {
            let from = people.name_of(client, &from).await;
            screen.show(&format!("✉️  Direct from {}: {}", Printable::new(&from), text_of(&payload)));
        }
        Event::Missed(count) => screen.show(&format!("⚠️  {count} messages arrived too fast to be shown")),
        Event::Disconnected(closed) => show_disconnected(screen, &closed.reason),
        Event::Reconnected => screen.show("✅ Reconnected"),
        Event::Closed(closed) => {
            if screen.is_terminal() {
                // On a line of its own: the prompt stays on the screen.
                show("")?;
            }
            anyhow::bail!("closed by the server: {} - {}", closed.code, Printable::new(&closed.reason))
        }
        _ => {}
    }
    Ok(())
}

/// Turns typed lines into requests and shows the replies.
struct Commands {
    client: Client,
    rooms: Rooms,
    people: People,
    screen: Screen,
    /// Number of lines that were not sent.
    unsent: usize,
}

impl Commands {
    fn report_unsent(&mut self, why: &str) {
        self.unsent += 1;
        self.screen.show(&format!("❌ {}", Printable::new(why)));
    }

    async fn execute(&mut self, line: &str) -> Result<(), ClientError> {
        let (command, rest) = line.split_once(' ').map_or((line, ""), |(command, rest)| (command, rest.trim()));
        match (command, rest) {
            ("", _) => {}
            (command, _) if command.starts_with("//") => self.send_text(&line[1..]).await?,
            ("/help", _) => self.screen.show(COMMANDS.trim_end()),
            ("/list", _) => {
                let clients = self.people.list(&self.client).await?;
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
            ("/direct", rest) => match parse_direct(rest) {
                Some((to, message)) => self.direct(to, message).await?,
                None => self.screen.show("Usage: /direct <id or name> <message>; put a name with spaces in quotes"),
            },
            ("/join", "") => self.screen.show("Usage: /join <room>"),
            ("/join", room) => {
                let lines = self.rooms.join(&self.client, &self.people, room).await?;
                self.show_all(lines);
            }
            ("/leave", room) => {
                let line = self.rooms.leave(room).await?;
                self.screen.show(&line);
            }
            ("/topics", _) => {
                let lines = self.rooms.list();
                self.show_all(lines);
            }
            ("/who", room) => {
                let lines = self.rooms.who(&self.client, room).await?;
                self.show_all(lines);
            }
            (command, _) if command.starts_with('/') => {
                let command = Printable::new(command);
                self.screen.show(&format!("Unknown command {command}; see /help. /{command} sends it as text"));
            }
            _ => self.send_text(line).await?,
        }
        Ok(())
    }

    /// Sends a text to the current room, or has it echoed. It is sent again if the connection is lost before the reply
    /// arrives; its key keeps the room from getting it twice.
    async fn send_text(&mut self, text: &str) -> Result<(), ClientError> {
        let key = Uuid::new_v4().to_string();
        loop {
            let lines = match self.rooms.is_in_room() {
                true => self.rooms.send_text(&self.client, text, &key).await,
                false => self.client.echo(text).await.map(|echo| vec![format!("💬 Server: {}", Printable::new(&echo))]),
            };
            match lines {
                Err(ClientError::Lost | ClientError::Timeout(_)) => {}
                lines => return lines.map(|lines| self.show_all(lines)),
            }
        }
    }

    fn show_all(&self, lines: Vec<String>) {
        for line in lines {
            self.screen.show(&line);
        }
    }

    /// Refreshes the members of all rooms after a reconnect.
    async fn refresh_rooms(&mut self) {
        if let Err(e) = self.rooms.refresh(&self.client).await {
            self.screen.show(&format!("❌ {}", Printable::new(&e.to_string())));
        }
    }

    async fn direct(&mut self, to: &str, message: &str) -> Result<(), ClientError> {
        let id = match to.parse::<Uuid>() {
            Ok(id) => id,
            Err(_) => {
                let clients = self.people.list(&self.client).await?;
                let mut ids =
                    clients.iter().filter(|client| client.name.as_deref() == Some(to)).map(|client| client.id);
                match (ids.next(), ids.count()) {
                    (Some(id), 0) => id,
                    (Some(_), more) => {
                        self.report_unsent(&format!("{} users have that name; use an id from /list", more + 1));
                        return Ok(());
                    }
                    (None, _) => {
                        self.report_unsent("No user has that name; /list shows all users");
                        return Ok(());
                    }
                }
            }
        };
        self.client.direct(id, Payload::text(message)).await?;
        self.screen.show(&format!("✉️  Sent to {}", Printable::new(to)));
        Ok(())
    }
}

/// Splits the arguments of `/direct` into the recipient and the message.
fn parse_direct(rest: &str) -> Option<(&str, &str)> {
    let (to, message) = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => rest.split_once(' ')?,
    };
    let message = message.trim();
    (!to.is_empty() && !message.is_empty()).then_some((to, message))
}

/// The text of a message, escaped for a terminal.
fn text_of(payload: &Payload) -> String {
    match (&payload.content, &payload.attachment) {
        (Some(content), _) => Printable::new(content).to_string(),
        (None, attachment) => format!("({} bytes)", attachment.as_ref().map_or(0, bytes::Bytes::len)),
    }
}
