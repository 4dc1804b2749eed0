//! Plays the server of docs/transcripts against the client library, over a real QUIC connection.
//! docs/transcripts/README.md defines the calls and events, which this file maps to the library's API.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use crate::common::stage::Stage;
use crate::common::transcripts::{self, Compare, Run, Step, Transcript};
use crate::common::{RawLane, framed, soon};
use bytes::BytesMut;
use futures_util::FutureExt;
use quic_websocket::message::{
    AckMode, ClientMessage, CloseCode, Json, Member, Offsets, Payload, Position, Recipient, ServerMessage, Stored,
    TopicMessage, UserName,
};
use quic_websocket::{
    Carrier, Client, ClientError, Ended, Event, Events, SubscribeBuilder, Subscription, Target, TopicEvent,
};
use quinn::{Connection, SendStream};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The optional features that this library has.
const CAN: [&str; 3] = ["compression", "datagrams", "durable"];

/// The result of a call, with the protocol's field names.
#[derive(Default)]
struct Outcome {
    value: Value,
    attachment: Option<Vec<u8>>,
    client: Option<(Client, Events)>,
    subscription: Option<Subscription>,
}

impl Outcome {
    fn of(value: Value) -> Self {
        Self { value, ..Self::default() }
    }
}

type Call = JoinHandle<Result<Outcome, ClientError>>;

/// A transcript being played for one of its clients.
struct Scene {
    run: Run,
    stage: Stage,
    connection: Option<Connection>,
    control: Option<RawLane>,
    topics: HashMap<String, SendStream>,
    client: Option<Client>,
    events: Option<Events>,
    calls: HashMap<String, Call>,
    subscriptions: HashMap<String, Subscription>,
}

impl Scene {
    async fn play(transcript: &Transcript, subject: &str) {
        let mut scene = Self {
            run: transcript.run(),
            stage: Stage::new(),
            connection: None,
            control: None,
            topics: HashMap::new(),
            client: None,
            events: None,
            calls: HashMap::new(),
            subscriptions: HashMap::new(),
        };
        for (line, step) in transcript.steps.iter().filter(|(_, step)| step.client == subject) {
            let at = format!("{}:{line}, {subject}", transcript.file);
            scene.step(step, &at).await;
        }
        if let Some(connection) = &scene.connection {
            connection.close(1000_u16.into(), b"");
        }
    }

    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("a connection")
    }

    fn control(&mut self) -> &mut RawLane {
        self.control.as_mut().expect("a control lane")
    }

    async fn step(&mut self, step: &Step, at: &str) {
        if let Some(call) = &step.call {
            let call = self.call(call, step);
            self.calls.insert(step.label().to_owned(), call);
        } else if step.connects.is_some() {
            self.accept().await;
        } else if let Some(fields) = &step.connected {
            self.connected(fields).await;
        } else if let Some(example) = &step.sends {
            self.hear(example, step).await.unwrap_or_else(|wrong| panic!("{at}: {wrong}"));
        } else if let Some(example) = &step.receives {
            let message = self.run.fill(example);
            let body = transcripts::body(&message, step.attachment().as_deref(), step.compressed == Some(true));
            self.say(&step.on, &body).await;
        } else if let Some(code) = step.closed {
            // The client receives everything sent before the close.
            let mut control = self.control.take().expect("a control lane");
            control.send.finish().expect("it was open");
            soon("the client to read the rest", control.send.stopped()).await.ok();
            let code = u32::try_from(code).expect("a code");
            self.connection().close(code.into(), b"as the transcript says");
            self.topics.clear();
        } else if step.leaves.is_some() {
            self.client = None;
        } else if let Some(example) = &step.returns {
            let outcome = self.outcome(step).await.unwrap_or_else(|e| panic!("{at}: {e}"));
            self.compare(example, &outcome.value, at);
            assert_eq!(outcome.attachment, step.attachment(), "{at}");
        } else if let Some(example) = &step.fails {
            match self.outcome(step).await {
                Err(ClientError::Server(error)) => assert_eq!(json!(error.code), example["code"], "{at}: {error:?}"),
                Err(ClientError::Failed(failed)) => {
                    assert_eq!(json!(failed.failure.code), example["code"], "{at}: {failed:?}");
                }
                Err(ClientError::Refused { code, .. }) => assert_eq!(json!(code.0), example["code"], "{at}"),
                Err(other) => panic!("{at}: {other}"),
                Ok(outcome) => panic!("{at}: it gave {}", outcome.value),
            }
        } else if let Some(event) = &step.event {
            self.event(event, step, at).await;
        } else {
            panic!("{at}: not a step for client libraries");
        }
    }

    async fn accept(&mut self) {
        let incoming = soon("a connection", self.stage.endpoint.accept()).await.expect("the endpoint lives");
        let connection = soon("a connection", incoming.into_future()).await.expect("it connects");
        let (send, receive) = soon("the control lane", connection.accept_bi()).await.expect("a stream");
        self.control = Some(RawLane { send, receive });
        self.connection = Some(connection);
    }

    /// Connects the client and accepts its handshake.
    async fn connected(&mut self, fields: &Value) {
        let mut with = fields.clone();
        with.as_object_mut().expect("an object").remove("client_id");
        let call = self.connect(&with);
        self.accept().await;
        let handshake = self.control().expect("handshake").await;
        assert_eq!(handshake.get("client_name"), fields.get("client_name"), "{handshake}");
        let id = &fields["client_id"];
        let accepted = json!({"type": "handshake_response", "accepted": true, "client_id": id, "server_name": "Stage"});
        self.control().say(accepted).await;
        let outcome = soon("the client", call).await.expect("no panic").expect("it connects");
        (self.client, self.events) = outcome.client.map(|(client, events)| (Some(client), Some(events))).expect("both");
    }

    fn connect(&self, with: &Value) -> Call {
        let mut builder = self.stage.builder().carriers([Carrier::Quic]).compression(with.get("compression").is_some());
        if let Some(name) = with["client_name"].as_str() {
            builder = builder.name(name).expect("a name");
        }
        if let Some(token) = with["token"].as_str() {
            builder = builder.token(token).expect("a token");
        }
        tokio::spawn(async move {
            let (client, events) = builder.connect().await?;
            let value = json!({
                "client_id": client.id(), "server_name": client.server_name(), "user": client.user(),
                "permissions": client.permissions(),
            });
            Ok(Outcome { client: Some((client, events)), ..Outcome::of(value) })
        })
    }

    /// Waits for the client's next message and compares it with the example.
    async fn hear(&mut self, example: &Value, step: &Step) -> Result<(), String> {
        assert_eq!(step.on, "control", "this library asks on the control lane");
        let (message, attachment, _) = transcripts::open(&self.control().hear_body().await);
        self.run.compare(example, &message, Compare { may: &step.may, is_open: true, is_partial: false })?;
        if attachment == step.attachment() { Ok(()) } else { Err(format!("the attachment is {attachment:?}")) }
    }

    async fn say(&mut self, on: &str, body: &[u8]) {
        match on {
            "control" => self.control().body(body).await,
            "datagram" => self.connection().send_datagram(body.to_vec().into()).expect("a datagram leaves"),
            topic => {
                if !self.topics.contains_key(topic) {
                    let stream = soon("a stream", self.connection().open_uni()).await.expect("a stream");
                    self.topics.insert(topic.to_owned(), stream);
                }
                let lane = self.topics.get_mut(topic).expect("a lane");
                lane.write_all(&framed(body)).await.expect("the stream takes bytes");
            }
        }
    }

    fn call(&mut self, call: &str, step: &Step) -> Call {
        let with = match step.with.as_ref() {
            Some(with) => self.run.fill(with),
            None => json!({}),
        };
        if call == "connect" {
            return self.connect(&with);
        }
        let client = self.client.clone().expect("a client");
        let attachment = step.attachment();
        let mut payload = attachment.clone().map_or_else(Payload::default, Payload::binary);
        payload.content = with["content"].as_str().map(Into::into);
        payload.data = with.get("data").map(Json::from);
        payload.meta = with.get("meta").map(Json::from);
        let text = |field: &str| with[field].as_str().unwrap_or_default().to_owned();
        let to = with["to"].as_str().map(|to| to.parse::<uuid::Uuid>().expect("a client id"));
        let user = with["user"].as_str().map(|user| Recipient::User(UserName::new(user).expect("a user")));
        let recipient = to.map(Recipient::Client).or(user);
        let position: Option<Position> =
            with.get("since").map(|since| serde_json::from_value(since.clone()).expect("a position"));
        let since_time = with["since_time"].as_u64();
        let (topic, key, number) = (text("topic"), with["key"].as_str().map(str::to_owned), with["limit"].as_u64());
        match call {
            "echo" => tokio::spawn(async move {
                Ok(match attachment {
                    Some(bytes) => {
                        let echo = client.echo_bytes(bytes).await?;
                        Outcome { attachment: Some(echo.to_vec()), ..Outcome::of(json!({})) }
                    }
                    None => Outcome::of(
                        json!({"content": client.echo(payload.content.as_deref().unwrap_or_default()).await?}),
                    ),
                })
            }),
            "ping" => tokio::spawn(async move { client.ping().await.map(|_| Outcome::of(json!({}))) }),
            "broadcast" => {
                tokio::spawn(async move { Ok(Outcome::of(json!({"delivered": client.broadcast(payload).await?}))) })
            }
            "direct" => tokio::spawn(async move {
                let to = recipient.expect("a receiver");
                client.direct(to, payload).await.map(|delivered| Outcome::of(json!({"delivered": delivered})))
            }),
            "request" => {
                let target = match recipient {
                    None => Target::Topic(topic),
                    Some(Recipient::Client(id)) => Target::Client(id),
                    Some(Recipient::User(user)) => user.into(),
                };
                let within = Duration::from_millis(with["timeout_ms"].as_u64().unwrap_or(10_000));
                tokio::spawn(async move {
                    let answer = client.request(target, payload).timeout(within).await?;
                    let value = json!({"content": answer.text(), "data": answer.payload.data});
                    Ok(Outcome::of(without_nulls(&value)))
                })
            }
            "signal" => {
                let data = with["data"].clone();
                tokio::spawn(async move {
                    let delivered = client.signal(recipient.expect("a receiver"), &data).await?;
                    Ok(Outcome::of(json!({"delivered": delivered})))
                })
            }
            "list_clients" => {
                let after = with["after"].as_str().map(|after| after.parse().expect("a client id"));
                let ask = ClientMessage::ListClients { limit: number.unwrap_or(100), after };
                tokio::spawn(async move { client.call(&ask).await.map(|page| Outcome::of(json_of(&page).0)) })
            }
            "subscribe" => {
                let (recent, presence) = (with["recent"].as_u64(), with["presence"] == true);
                let (datagrams, on_control) = (with["delivery"] == "datagram", with["lane"] == "control");
                tokio::spawn(async move {
                    let mut builder = of_consumer(client.subscribe(topic).presence(presence), &with);
                    builder = less(builder, &with);
                    builder = if let Some(since) = position { builder.since(since) } else { builder };
                    builder = if let Some(since) = since_time { builder.since_time(since) } else { builder };
                    builder = if let Some(recent) = recent { builder.recent(recent) } else { builder };
                    builder = if datagrams { builder.datagrams() } else { builder };
                    builder = if on_control { builder.on_control_lane() } else { builder };
                    Ok(Outcome { subscription: Some(builder.await?), ..Outcome::of(json!({})) })
                })
            }
            "unsubscribe" => {
                let subscription =
                    self.subscriptions.remove(step.of.as_deref().expect("a subscription")).expect("it is there");
                let forget = with["forget"] == true;
                tokio::spawn(async move {
                    let ended = if forget { subscription.forget().await } else { subscription.unsubscribe().await };
                    ended.map(|()| Outcome::of(json!({})))
                })
            }
            "ack" => {
                let consumer = client.consumer(&topic, &text("durable")).expect("a consumer");
                let offsets = with["offsets"].as_array().cloned().unwrap_or_else(|| vec![with["offset"].clone()]);
                let offsets = offsets.iter().map(|offset| offset.as_u64().expect("an offset")).collect();
                let offsets = Offsets::new(offsets).expect("offsets");
                let (outcome, delay) = (text("outcome"), Duration::from_millis(with["delay_ms"].as_u64().unwrap_or(0)));
                tokio::spawn(async move {
                    let acked = match outcome.as_str() {
                        "retry" => consumer.retry(offsets, delay).await,
                        "reject" => consumer.reject(offsets).await,
                        _ => consumer.ack(offsets).await,
                    };
                    acked.map(|acked| Outcome::of(json!({"acked": acked})))
                })
            }
            "publish" => tokio::spawn(async move {
                let mut publish = client.publish(topic, payload);
                publish = match with["ttl_ms"].as_u64() {
                    Some(ttl) => publish.ttl(Duration::from_millis(ttl)),
                    None => publish,
                };
                publish = if let Some(key) = key { publish.key(key) } else { publish };
                let published = publish.await?;
                let (epoch, offset) = (&published.position.epoch, published.position.offset);
                let (duplicate, stored) = (published.is_duplicate, published.stored.map(Stored::as_str));
                let value = json!({"epoch": epoch, "offset": offset, "duplicate": duplicate, "stored": stored});
                Ok(Outcome::of(without_nulls(&value)))
            }),
            "history" => {
                let is_reverse = with["reverse"] == true;
                tokio::spawn(async move {
                    let mut history = client.history(topic);
                    history = if let Some(since) = position { history.since(since) } else { history };
                    history = if let Some(since) = since_time { history.since_time(since) } else { history };
                    history = if let Some(limit) = number { history.limit(limit) } else { history };
                    history = if is_reverse { history.reverse() } else { history };
                    let page = history.await?;
                    let messages: Vec<_> = page.messages.into_iter().map(in_history).collect();
                    let value = json!({
                        "epoch": page.epoch, "offset": page.offset, "messages": messages, "more": page.more
                    });
                    Ok(Outcome::of(value))
                })
            }
            "presence" => tokio::spawn(async move {
                let present = client.presence(&topic).await?;
                let clients: Vec<_> = present.clients.iter().map(member).collect();
                Ok(Outcome::of(json!({"clients": clients})))
            }),
            "refresh" => {
                let token = text("token");
                tokio::spawn(async move { Ok(Outcome::of(json!({"expires_at": client.refresh(&token).await?}))) })
            }
            "close" => {
                let (code, reason) = (with["code"].as_u64().unwrap_or(1000), text("reason"));
                let code = CloseCode(u16::try_from(code).expect("a code"));
                tokio::spawn(async move { client.close(code, &reason).await.map(|()| Outcome::of(json!({}))) })
            }
            other => panic!("{other} is no call of docs/transcripts/README.md"),
        }
    }

    /// The result of a call. Keeps the client or the subscription that it opened.
    async fn outcome(&mut self, step: &Step) -> Result<Outcome, ClientError> {
        let label = step.of.as_deref().expect("whose");
        let call = self.calls.remove(label).unwrap_or_else(|| panic!("no call {label}"));
        let mut outcome = soon(label, call).await.expect("no panic")?;
        if let Some((client, events)) = outcome.client.take() {
            (self.client, self.events) = (Some(client), Some(events));
        }
        if let Some(subscription) = outcome.subscription.take() {
            self.subscriptions.insert(label.to_owned(), subscription);
        }
        Ok(outcome)
    }

    async fn event(&mut self, event: &str, step: &Step, at: &str) {
        let (name, value, attachment) = match &step.of {
            Some(label) => {
                let subscription = self.subscriptions.get_mut(label).expect("a subscription");
                of_topic(soon(at, subscription.next()).await.unwrap_or_else(|| panic!("{at}: it is over")))
            }
            None => {
                let events = self.events.as_mut().expect("events");
                of_client(soon(at, events.next()).await.unwrap_or_else(|| panic!("{at}: they are over")))
            }
        };
        let example = step.with.clone().unwrap_or_else(|| json!({}));
        // This library reports a gap of a pattern and a lost position alike: without offsets.
        let is = name == event || (name == "lost" && event == "gap" && example["last"] == 0);
        assert!(is, "{at}: {name} {value} came, and not {event}");
        self.compare(&example, &value, at);
        assert_eq!(attachment, step.attachment(), "{at}");
    }

    /// Compares the fields that the API hands out.
    fn compare(&mut self, example: &Value, value: &Value, at: &str) {
        let how = Compare { may: &[], is_open: true, is_partial: true };
        let value = without_nulls(value);
        self.run.compare(example, &value, how).unwrap_or_else(|wrong| panic!("{at}: {wrong}"));
    }
}

/// Adds the options that bring less, and the first state.
fn less<'a>(mut builder: SubscribeBuilder<'a>, with: &Value) -> SubscribeBuilder<'a> {
    if let Some(per_second) = with["max_rate"].as_u64() {
        builder = builder.max_rate(per_second);
    }
    if let Some(filter) = with.get("filter") {
        builder = builder.filter(filter);
    }
    if let Some(state) = with.get("state") {
        builder = builder.state(state);
    }
    builder.echo(with["echo"] != false)
}

/// Adds the options of a durable consumer or queue group.
fn of_consumer<'a>(mut builder: SubscribeBuilder<'a>, with: &Value) -> SubscribeBuilder<'a> {
    if let Some(name) = with["durable"].as_str() {
        builder = builder.durable(name);
    }
    if with["share"] == true {
        builder = builder.share();
    }
    match with["ack"].as_str() {
        Some("each") => builder = builder.ack_mode(AckMode::Each),
        Some("upto") => builder = builder.ack_mode(AckMode::UpTo),
        _ => {}
    }
    if let Some(wait) = with["ack_wait_ms"].as_u64() {
        builder = builder.ack_wait(Duration::from_millis(wait));
    }
    if let Some(messages) = with["max_in_flight"].as_u64() {
        builder = builder.max_in_flight(messages);
    }
    if let Some(deliveries) = with["max_deliver"].as_u64() {
        builder = builder.max_deliver(deliveries);
    }
    builder
}

/// Leaves out fields that are `null`.
fn without_nulls(value: &Value) -> Value {
    let mut value = value.clone();
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
    }
    value
}

/// A server's message as JSON, and its attachment.
fn json_of(message: &ServerMessage) -> (Value, Option<Vec<u8>>) {
    let mut frame = BytesMut::new();
    message.encode(None, &mut frame);
    let (value, attachment, _) = transcripts::open(&frame[4..]);
    (value, attachment)
}

fn member(member: &Member) -> Value {
    without_nulls(&json!({"id": member.id, "name": member.name, "user": member.user}))
}

fn in_history(message: TopicMessage) -> Value {
    use base64::Engine;

    let data = message.payload.attachment.as_ref().map(|data| base64::engine::general_purpose::STANDARD.encode(data));
    let has_value = message.payload.data.is_some();
    let (mut value, _) = of_message(message);
    if let Some(attachment) = data {
        value[if has_value { "attachment" } else { "data" }] = json!(attachment);
    }
    value["encoding"] = json!(has_value.then_some("json"));
    without_nulls(&value)
}

fn of_message(message: TopicMessage) -> (Value, Option<Vec<u8>>) {
    let TopicMessage { topic, offset, durable, tries, from, payload, timestamp, expires_at, .. } = message;
    let (content, data, meta) = (payload.content.as_deref(), &payload.data, &payload.meta);
    let mut value = json!({
        "topic": topic, "offset": offset, "durable": durable, "tries": tries, "content": content, "data": data,
        "meta": meta, "timestamp": timestamp, "expires_at": expires_at
    });
    if let Some(from) = from {
        (value["from"], value["user"], value["name"]) =
            (json!(from.id), json!(from.user.as_deref()), json!(from.name.as_deref()));
    }
    (value, payload.attachment.map(Into::into))
}

fn of_topic(event: TopicEvent) -> (String, Value, Option<Vec<u8>>) {
    let (name, value, attachment) = match event {
        TopicEvent::Message(message) => {
            let (value, attachment) = of_message(message);
            ("message", value, attachment)
        }
        TopicEvent::Missed(missed) => match missed.offsets {
            Some(offsets) => {
                let (first, last) = offsets.into_inner();
                ("gap", json!({"topic": missed.topic, "first": first, "last": last}), None)
            }
            None => ("lost", json!({"topic": missed.topic}), None),
        },
        TopicEvent::Join { topic, member: who, .. } => ("join", json!({"topic": topic, "client": member(&who)}), None),
        TopicEvent::Leave { topic, member: who, .. } => {
            ("leave", json!({"topic": topic, "client": member(&who)}), None)
        }
        TopicEvent::State { topic, member, .. } => ("state", json!({"topic": topic, "client": member}), None),
        TopicEvent::Return { topic, member, .. } => ("return", json!({"topic": topic, "client": member}), None),
        TopicEvent::Ended(Ended::TakenOver { .. }) => ("ended", json!({"code": 409}), None),
        TopicEvent::Ended(Ended::ByServer(error)) => ("ended", json!({"code": error.code}), None),
        other => panic!("{other:?}"),
    };
    (name.to_owned(), value, attachment)
}

fn of_client(event: Event) -> (String, Value, Option<Vec<u8>>) {
    let code = |name: &str, code: CloseCode| (name.to_owned(), json!({"code": code.0}), None);
    let message = match event {
        Event::Broadcast { from, payload, timestamp, .. } => ServerMessage::Broadcast { from, payload, timestamp },
        Event::Direct { from, payload, timestamp, .. } => ServerMessage::Direct { from, payload, timestamp },
        Event::Signal { from, data, timestamp, .. } => ServerMessage::Signal { from, data, timestamp },
        Event::Expiring { expires_at, .. } => ServerMessage::Expiring { expires_at },
        Event::Error(error) => ServerMessage::Error(error),
        Event::Other(message) => message,
        Event::Disconnected(closed) => return code("disconnected", closed.code),
        Event::Reconnected => return ("reconnected".to_owned(), json!({}), None),
        Event::Closed(closed) => return code("closed", closed.code),
        other => panic!("{other:?}"),
    };
    let (value, attachment) = json_of(&message);
    (message.type_name().to_owned(), value, attachment)
}

#[tokio::test]
async fn the_client_behaves_as_the_transcripts_show() {
    let (mut played, mut failed) = (0, Vec::new());
    for transcript in Transcript::all().iter().filter(|transcript| {
        let can = transcript.head.needs.iter().all(|need| CAN.contains(&need.as_str()));
        can && transcript.is_for("clients") && transcript.runs_on("quic")
    }) {
        for subject in transcript.subjects() {
            let playing = AssertUnwindSafe(Scene::play(transcript, &subject));
            if playing.catch_unwind().await.is_err() {
                failed.push(format!("{} with {subject}", transcript.file));
            }
            played += 1;
        }
    }
    assert!(failed.is_empty(), "of {played} runs these failed: {failed:?}");
    assert!(played > 15, "{played} were played");
}
