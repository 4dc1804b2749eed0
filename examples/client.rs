//! A client that tests a server: it sends texts, a ping, a request for the client list and a broadcast, checks each
//! reply, and closes the connection. It fails if an expected reply does not arrive.
//!
//! `cargo run --release --example client -- --server 127.0.0.1:4433`

mod common;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use common::{ServerArgs, show};
use quic_websocket::message::{ClientMessage, CloseCode, DEFAULT_PAGE, Payload, ServerMessage, now_ms};
use quic_websocket::{Event, Events, Printable};
use tokio::time::{sleep, timeout};

/// How long an expected message may take to arrive.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Test a quic-websocket server.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// The name that others see
    #[arg(long, default_value = "TestClient")]
    name: String,
    /// Number of texts to send
    #[arg(long, default_value_t = 3)]
    count: u32,
    /// Milliseconds between two messages
    #[arg(long, default_value_t = 500)]
    interval: u64,
    /// Show everything that arrives, and the connection's statistics
    #[arg(long, short)]
    verbose: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    common::exit_code(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    show("🚀 QUIC WebSocket Test Client")?;
    show(format_args!("Connecting to: {}", args.server.server))?;
    show(format_args!("Client name: {}", args.name))?;
    show("")?;
    show("Connecting to server...")?;
    let builder = args.server.client()?.name(&args.name)?.reconnect(false);
    let (client, events) = builder.connect().await?;
    show("Connected successfully!")?;
    show(format_args!(
        "✅ Handshake accepted by server: {}",
        Printable::new(&client.server_name().unwrap_or_default())
    ))?;
    let mut inbox = Inbox { events, verbose: args.verbose };
    let pause = || sleep(Duration::from_millis(args.interval));

    for n in 1..=args.count {
        let text = format!("Test message {n} from {}", args.name);
        client.send(&ClientMessage::Text { content: text.clone().into() }).await?;
        show(format_args!("Sent message {n}/{}", args.count))?;
        let expected = format!("Echo: {text}");
        let echo =
            |event: &Event| matches!(event, Event::Other(ServerMessage::Text { content, .. }) if *content == expected);
        inbox.expect("the echo", echo).await?;
        show(format_args!("📝 Received text: {}", Printable::new(&expected)))?;
        pause().await;
    }

    let sent_at = now_ms();
    client.send(&ClientMessage::Ping { timestamp: Some(sent_at) }).await?;
    show("Sent ping")?;
    let pong = |event: &Event| match event {
        Event::Other(ServerMessage::Pong { timestamp, .. }) => *timestamp == Some(sent_at),
        _ => false,
    };
    inbox.expect("the pong", pong).await?;
    show("🏓 Received pong")?;
    pause().await;

    client.send(&ClientMessage::ListClients { limit: DEFAULT_PAGE, after: None }).await?;
    show("Requested client list")?;
    let list = |event: &Event| matches!(event, Event::Other(ServerMessage::ClientList { .. }));
    let listed = inbox.expect("the client list", list).await?;
    if let Event::Other(ServerMessage::ClientList { clients, total, .. }) = listed {
        show(format_args!("👥 Client list ({total} clients):"))?;
        for client in clients {
            show(format_args!("  - {} ({})", Printable::new(client.name.as_deref().unwrap_or("unnamed")), client.id))?;
        }
    }
    pause().await;

    let text = format!("Broadcast from {}", args.name);
    client.send(&ClientMessage::Broadcast(Payload::text(text.clone()))).await?;
    show("Sent broadcast message")?;
    let me = client.id().context("the connection was lost")?;
    let own = |event: &Event| {
        matches!(event, Event::Broadcast { from, payload, .. }
            if from.id == me && payload.content.as_deref() == Some(text.as_str()))
    };
    inbox.expect("the broadcast", own).await?;
    show(format_args!("📢 Broadcast from {me}: {}", Printable::new(&text)))?;
    pause().await;

    if let (true, Some(stats)) = (args.verbose, client.stats()) {
        show(format_args!("{stats:?}"))?;
    }
    // `close` sends the message and waits for the server to close the connection.
    show("Sent close message")?;
    client.close(CloseCode::NORMAL, "Test completed").await?;
    inbox.expect_close().await?;
    show("Test completed successfully")?;
    Ok(())
}

/// The events of the client, in order of arrival.
struct Inbox {
    events: Events,
    verbose: bool,
}

impl Inbox {
    /// Waits for the first message that fits. Others are skipped: other clients may be connected and send as well.
    async fn expect(&mut self, what: &str, fits: impl Fn(&Event) -> bool) -> anyhow::Result<Event> {
        let search = async {
            loop {
                match self.next().await?.with_context(|| format!("the connection ended before {what} arrived"))? {
                    event if fits(&event) => return Ok(event),
                    Event::Error(error) => {
                        bail!("error {} instead of {what}: {}", error.code, Printable::new(&error.message))
                    }
                    Event::Closed(closed) => {
                        bail!("closed before {what} arrived: {} - {}", closed.code, Printable::new(&closed.reason))
                    }
                    _ => {}
                }
            }
        };
        timeout(REPLY_TIMEOUT, search)
            .await
            .with_context(|| format!("{what} did not arrive within {REPLY_TIMEOUT:?}"))?
    }

    /// Waits for the close that the client asked for.
    async fn expect_close(&mut self) -> anyhow::Result<()> {
        while let Some(event) = timeout(REPLY_TIMEOUT, self.next()).await.context("the server did not close")?? {
            match event {
                Event::Closed(closed) if closed.code == CloseCode::NORMAL => return Ok(()),
                Event::Closed(closed) => bail!("closed with {} - {}", closed.code, Printable::new(&closed.reason)),
                _ => {}
            }
        }
        bail!("the connection ended without a close code")
    }

    async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        let event = self.events.next().await;
        if let (true, Some(event)) = (self.verbose, &event) {
            show(Printable::new(&format!("{event:?}")))?;
        }
        Ok(event)
    }
}
