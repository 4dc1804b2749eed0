//! The smallest client: connects, subscribes to a topic, publishes a message to it, and prints what arrives.
//!
//! Start a server with `./run.sh native`, then run this in another terminal: `./run.sh hello`.

use quic_websocket_client::{Client, CloseCode, TopicEvent, Trust};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4433".to_owned());
    // Trusts the development certificate in `certs/`. Without this, only the system's authorities are trusted.
    let builder = Client::builder(server).name("Ada")?.trust(Trust::Development);
    let (client, _events) = builder.connect().await?;

    let mut greetings = client.subscribe("greetings").await?;
    let published = client.publish("greetings", "Hello, QUIC!").await?;
    println!("published at offset {}", published.position.offset);

    if let Some(TopicEvent::Message(message)) = greetings.next().await {
        println!("received on {}: {:?}", message.topic, message.text().unwrap_or_default());
    }

    client.close(CloseCode::NORMAL, "done").await?;
    Ok(())
}
