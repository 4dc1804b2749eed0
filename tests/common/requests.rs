//! Clients that ask others, and that answer.

use serde_json::{Value, json};

use super::over::{Over, Party};
use super::{TestServer, until};

/// A client that answers the requests to a topic, on its control lane.
pub async fn responder(over: Over, server: &TestServer, topic: &str) -> Party {
    let mut client = over.party(server, "responder").await;
    offer(&mut client, topic).await;
    client
}

pub async fn offer(client: &mut Party, topic: &str) {
    client
        .control
        .say(json!({"type": "subscribe", "id": "sub", "topic": topic, "requests": true, "lane": "control"}))
        .await;
    client.control.expect("subscribed").await;
}

/// A client that answers the requests that are addressed to it.
pub async fn addressed(over: Over, server: &TestServer) -> Party {
    let mut client = over.newcomer(server).await;
    client.handshake_with(json!({"type": "handshake", "protocol_version": "1.0", "requests": true})).await;
    client
}

pub async fn answer(client: &mut Party, request: &Value, data: Value) {
    client.control.say(json!({"type": "reply", "request": request["request"], "data": data})).await;
}

/// A request to the topic `sum`.
pub fn ask(id: impl Into<Value>, data: impl Into<Value>) -> Value {
    json!({"type": "request", "id": id.into(), "topic": "sum", "data": data.into()})
}

/// Waits until no request is open any more, at the requester and at the responder.
pub async fn settled(server: &TestServer) {
    until("no open requests", || server.status.stats(0).requests.open == 0).await;
}
