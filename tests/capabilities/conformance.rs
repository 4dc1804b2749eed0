//! Plays the clients of docs/transcripts against the real server, on every carrier, and compares the examples of
//! docs/PROTOCOL.md with the transcripts.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::collections::{HashMap, HashSet};
use std::future::ready;
use std::panic::AssertUnwindSafe;

use crate::common::bare::Bare;
use crate::common::over::{Over, Party};
use crate::common::topics::TopicLane;
use crate::common::transcripts::{self, Compare, Run, Step, Transcript, bytes};
use crate::common::web_transport::TOPIC_LANE;
use crate::common::{RawClient, RawLane, TestServer, framed, read_datagram, send_datagram, soon, until};
use futures_util::{FutureExt, StreamExt, stream};
use quinn::{Connection, ConnectionError, ZeroRttAccepted};
use serde_json::value::RawValue;
use serde_json::{Value, json};

const ADMIN_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// One client of a transcript.
struct Player {
    party: Party,
    requests: HashMap<String, RawLane>,
    topics: HashMap<String, TopicLane>,
    early: Option<ZeroRttAccepted>,
    /// The code of the server's `close` message.
    announced: Option<u64>,
}

impl From<Party> for Player {
    fn from(party: Party) -> Self {
        Self { party, requests: HashMap::new(), topics: HashMap::new(), early: None, announced: None }
    }
}

impl Player {
    async fn request(&mut self, name: &str) -> &mut RawLane {
        if !self.requests.contains_key(name) {
            self.requests.insert(name.to_owned(), self.party.lane().await);
        }
        self.requests.get_mut(name).expect("a lane")
    }

    async fn topic(&mut self, name: &str) -> &mut TopicLane {
        if !self.topics.contains_key(name) {
            let (connection, session) = self.party.quic();
            let mut receive = soon("a topic lane", connection.accept_uni()).await.expect("a topic lane");
            if session.is_some() {
                let mut header = [0; TOPIC_LANE.len()];
                soon("the lane's session", receive.read_exact(&mut header)).await.expect("the lane's session");
            }
            self.topics.insert(name.to_owned(), TopicLane { number: 0, priority: 0, receive });
        }
        self.topics.get_mut(name).expect("a lane")
    }

    /// Sends a body.
    async fn send(&mut self, on: &str, body: &[u8]) {
        match on {
            "control" => self.party.control.body(body).await,
            "datagram" => {
                let (connection, session) = self.party.quic();
                send_datagram(connection, session, body);
            }
            lane => self.request(lane).await.body(body).await,
        }
    }

    async fn hear(&mut self, on: &str) -> Vec<u8> {
        match on {
            "control" => self.party.control.hear_body().await,
            "datagram" => {
                let (connection, session) = self.party.quic();
                read_datagram(connection, session).await
            }
            topic if topic.starts_with("topic") && self.party.over == Over::WebSocket => {
                self.party.control.hear_body().await
            }
            topic if topic.starts_with("topic") => {
                let hearing = self.topic(topic).await.try_hear_body();
                soon("a message on a topic lane", hearing).await.expect("a message")
            }
            lane => self.request(lane).await.hear_body().await,
        }
    }
}

impl Player {
    /// The code with which the server closes the connection. On a busy machine Quinn reports the stateless reset that
    /// answers a late acknowledgement in place of the close just before it; then it is the announced code.
    async fn closed(&mut self) -> u64 {
        if let (Over::Native, Some(code)) = (self.party.over, self.announced)
            && matches!(soon("the server's close", self.party.quic().0.closed()).await, ConnectionError::Reset)
        {
            return code;
        }
        self.party.closed().await.0
    }
}

/// A transcript being played.
struct Scene<'a> {
    transcript: &'a Transcript,
    server: TestServer,
    over: Over,
    run: Run,
    players: HashMap<&'a str, Player>,
}

impl<'a> Scene<'a> {
    async fn play(transcript: &'a Transcript, over: Over) {
        let dir = tempfile::tempdir().expect("a directory");
        let server = TestServer::start_with(|config| {
            transcript.configure(config, dir.path());
            config.http.plain_addr = "127.0.0.1:0".parse().ok();
            config.http.admin_token = Some(ADMIN_TOKEN.to_owned().into());
        })
        .await;
        let run = transcript.run().over(over.name());
        let mut scene = Self { transcript, server, over, run, players: HashMap::new() };
        let mut steps = transcript.steps.as_slice();
        while let Some(((_, step), rest)) = steps.split_first() {
            let together = steps.iter().take_while(|(_, step)| step.in_any_order).count();
            if together > 1 {
                scene.hear_all(&steps[..together]).await;
                steps = &steps[together..];
            } else {
                let at = format!("{}:{} over {over:?}", transcript.file, steps[0].0);
                scene.step(step, &at).await;
                steps = rest;
            }
        }
        for (name, player) in &mut scene.players {
            if let Some(accepted) = player.early.take() {
                assert!(soon("the handshake", accepted).await, "{name}: early data was taken");
            }
        }
        // The drain need not wait for them.
        scene.players.into_values().for_each(|player| player.party.vanish());
        scene.server.stop().await;
    }

    fn player(&mut self, name: &str) -> &mut Player {
        self.players.get_mut(name).unwrap_or_else(|| panic!("{name} is not connected"))
    }

    async fn step(&mut self, step: &'a Step, at: &str) {
        let name = step.client.as_str();
        if let Some(operation) = &step.operator {
            self.operate(operation, step).await;
        } else if let Some(how) = &step.connects {
            let player = if how["early_data"] == true { self.early().await } else { self.newcomer().await };
            self.players.insert(name, player);
        } else if let Some(fields) = &step.connected {
            self.connected(name, fields).await;
        } else if let Some(message) = &step.sends {
            let body = match &step.frame {
                Some(frame) => bytes(frame)[4..].to_vec(),
                None => {
                    let message = self.run.fill(message);
                    transcripts::body(&message, step.attachment().as_deref(), step.compressed == Some(true))
                }
            };
            self.player(name).send(&step.on, &body).await;
        } else if let Some(body) = &step.sends_body {
            self.player(name).send(&step.on, &bytes(body)).await;
        } else if let Some(frame) = &step.sends_frame {
            let crate::common::over::AnyLane::Quic(lane) = &mut self.player(name).party.control else {
                panic!("{at}: frames are QUIC's")
            };
            lane.raw(&bytes(frame)).await;
        } else if step.receives.is_some() {
            if self.is_left_out(step) {
                return;
            }
            let Some(heard) = self.hear(step).await else { return };
            self.compare(step, &heard).unwrap_or_else(|wrong| panic!("{at}: {wrong}"));
        } else if let Some(lane) = &step.finishes {
            self.player(name).request(lane).await.send.finish().expect("it was open");
        } else if let Some(lane) = &step.finished {
            let rest = soon("the lane's end", self.player(name).request(lane).await.receive.read_to_end(100)).await;
            assert!(rest.is_ok_and(|rest| rest.is_empty()), "{at}: the server finishes its side");
        } else if let Some(code) = step.closed {
            let got = self.player(name).closed().await;
            assert_eq!(got, code, "{at}");
        } else if step.leaves.is_some() {
            self.leave(name).await;
        }
        // Calls and events are for client libraries.
    }

    /// The next message for a step; pings in between are answered. `None` if the connection ended without a `close`
    /// message, as it may.
    async fn hear(&mut self, step: &Step) -> Option<Vec<u8>> {
        let kind = step.receives.as_ref().and_then(|message| message["type"].as_str());
        let player = self.player(&step.client);
        loop {
            let heard = match kind {
                Some("close") => player.party.control.try_hear_body().await.ok()?,
                _ => player.hear(&step.on).await,
            };
            let (message, ..) = transcripts::open(&heard);
            if message["type"] == "close" {
                player.announced = message["code"].as_u64();
            }
            if kind == Some("ping") || message["type"] != "ping" {
                return Some(heard);
            }
            player.party.control.say(json!({"type": "pong"})).await;
        }
    }

    /// A WebSocket has no topic lanes, unless the transcript is for WebSockets and opens a second one.
    fn has_one_lane(&self) -> bool {
        self.over == Over::WebSocket && self.transcript.head.carriers != ["websocket"]
    }

    /// A WebSocket has no topic lanes.
    fn is_left_out(&self, step: &Step) -> bool {
        self.has_one_lane() && step.receives.as_ref().is_some_and(|message| message["type"] == "lane")
    }

    fn compare(&mut self, step: &Step, heard: &[u8]) -> Result<(), String> {
        let (message, attachment, is_compressed) = transcripts::open(heard);
        let mut expected = step.receives.clone().expect("a message");
        if self.has_one_lane() && expected["type"] == "subscribed" {
            expected.as_object_mut().expect("an object").remove("lane");
        }
        self.run.compare(&expected, &message, Compare { may: &step.may, is_open: false, is_partial: false })?;
        if attachment != step.attachment() {
            return Err(format!("the attachment is {attachment:?}"));
        }
        match step.compressed.filter(|expected| *expected != is_compressed) {
            Some(expected) => Err(format!("compressed: {is_compressed}, not {expected}")),
            None => Ok(()),
        }
    }

    /// Receives messages of one lane in any order.
    async fn hear_all(&mut self, steps: &[(usize, Step)]) {
        let mut expected: Vec<_> = steps.iter().collect();
        while let Some((line, first)) = expected.first() {
            let Some(heard) = self.hear(first).await else { return };
            let (message, ..) = transcripts::open(&heard);
            let found = expected.iter().position(|(_, step)| {
                step.receives.as_ref().is_some_and(|expected| expected["type"] == message["type"])
            });
            let found = found.unwrap_or_else(|| panic!("{}:{line}: {message} came", self.transcript.file));
            let (line, step) = expected.remove(found);
            self.compare(step, &heard).unwrap_or_else(|wrong| panic!("{}:{line}: {wrong}", self.transcript.file));
        }
    }

    async fn newcomer(&self) -> Player {
        self.over.newcomer(&self.server).await.into()
    }

    /// Connects and shakes hands, again and again until the new id sorts as its example does.
    async fn connected(&mut self, name: &'a str, fields: &Value) {
        let mut handshake = json!({"type": "handshake", "protocol_version": "1.0"});
        if let Some(client_name) = fields.get("client_name") {
            handshake["client_name"] = client_name.clone();
        }
        let example = json!({"client_id": fields["client_id"]});
        let before = self.server.status.clients();
        for _ in 0..10_000 {
            let mut party = self.over.newcomer(&self.server).await;
            let response = party.handshake_with(handshake.clone()).await;
            let how = Compare { may: &[], is_open: true, is_partial: false };
            self.run.compare(&example, &response, how).expect("an id");
            if self.run.is_in_order(&fields["client_id"]) {
                self.players.insert(name, party.into());
                return;
            }
            self.run.forget_client(&fields["client_id"]);
            party.vanish();
            until("the end of it", || self.server.status.clients() == before).await;
        }
        panic!("no id sorts as its example does");
    }

    async fn leave(&mut self, name: &str) {
        let before = self.server.status.clients();
        let player = self.players.remove(name).expect("it is connected");
        player.party.lose();
        drop((player.requests, player.topics));
        until("its end at the server", || self.server.status.clients() < before).await;
    }

    /// A connection whose first messages are sent as early data.
    async fn early(&self) -> Player {
        let endpoint = self.server.endpoint();
        let (connection, accepted): (Connection, _) = soon("a session to resume", async {
            loop {
                match endpoint.connect(self.server.addr, "localhost").expect("it begins").into_0rtt() {
                    Ok(early) => return early,
                    // Sessions come behind the handshake.
                    Err(connecting) => {
                        let connection = connecting.await.expect("it connects");
                        let mut client = RawClient::over(connection).await;
                        client.handshake("first visit").await;
                        client.connection.close(1000_u32.into(), b"");
                        endpoint.wait_idle().await;
                    }
                }
            }
        })
        .await;
        Player { early: Some(accepted), ..Player::from(Party::from(RawClient::over(connection).await)) }
    }

    async fn operate(&mut self, operation: &str, step: &Step) {
        match operation {
            "drain" => self.server.drain(),
            "disconnect" => {
                let client = self.run.client(step.client_id.as_deref().expect("a client")).expect("it is connected");
                let body = json!({"client": client, "code": step.code, "reason": step.reason}).to_string();
                let request = format!(
                    "POST /api/disconnect HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {ADMIN_TOKEN}\r\n\
                     content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let answer = Bare::plain(&self.server).await.ask(&request).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            other => panic!("unknown operation {other}"),
        }
    }
}

#[tokio::test]
async fn the_server_behaves_as_the_transcripts_show() {
    let transcripts: Vec<_> = Transcript::all().into_iter().filter(|one| one.is_for("servers")).collect();
    let plays = transcripts.iter().flat_map(|transcript| {
        let carriers = Over::ALL.into_iter().filter(|over| transcript.runs_on(over.name()));
        carriers.map(move |over| async move {
            let played = AssertUnwindSafe(Scene::play(transcript, over)).catch_unwind().await;
            played.err().map(|_| format!("{} over {over:?}", transcript.file))
        })
    });
    // Each mostly waits.
    let failed: Vec<_> = stream::iter(plays).buffer_unordered(6).filter_map(ready).collect().await;
    assert!(failed.is_empty(), "these failed: {failed:?}");
}

#[test]
fn frames_contain_the_messages_of_their_steps() {
    let mut seen = 0;
    for transcript in Transcript::all() {
        for (line, step) in &transcript.steps {
            let Some(frame) = &step.frame else { continue };
            let frame = bytes(frame);
            let (message, attachment, _) = transcripts::open(&frame[4..]);
            assert_eq!(framed(&frame[4..]), frame, "{}:{line}: its length", transcript.file);
            assert_eq!(
                (Some(message), attachment),
                (step.sends.clone(), step.attachment()),
                "{}:{line}",
                transcript.file
            );
            seen += 1;
        }
    }
    assert!(seen >= 3);
}

/// The messages of the transcripts, byte for byte, and their frames.
fn shown() -> (HashSet<String>, HashSet<Vec<u8>>) {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        sends: Option<&'a RawValue>,
        #[serde(borrow)]
        receives: Option<&'a RawValue>,
        frame: Option<String>,
    }
    let (mut messages, mut frames) = (HashSet::new(), HashSet::new());
    for (_, text) in transcripts::files() {
        for line in text.lines().skip(1) {
            let Line { sends, receives, frame } = serde_json::from_str(line).expect("JSON");
            messages.extend([sends, receives].into_iter().flatten().map(|message| message.get().to_owned()));
            frames.extend(frame.map(|frame| bytes(&frame)));
        }
    }
    (messages, frames)
}

#[test]
fn every_example_of_the_protocol_is_in_a_transcript() {
    let protocol = include_str!("../../docs/PROTOCOL.md");
    let (messages, frames) = shown();
    let (mut examples, mut dumps) = (0, 0);
    // Every other part is a code block.
    for block in protocol.split("\n```").skip(1).step_by(2) {
        let (language, block) = block.split_once('\n').expect("a block");
        if language == "json" {
            for example in block.lines() {
                assert!(messages.contains(example), "docs/PROTOCOL.md shows {example}, and no transcript does");
                examples += 1;
            }
        } else if block.starts_with("00 ") {
            // Comments follow three spaces.
            let hex: String = block.lines().map(|line| line.split("   ").next().expect("bytes")).collect();
            assert!(frames.contains(&bytes(&hex)), "docs/PROTOCOL.md shows the frame {hex}, and no transcript does");
            dumps += 1;
        }
    }
    assert!(examples > 40, "{examples} examples");
    assert_eq!(dumps, 4, "frames");
}
