//! A subscriber written against docs/PROTOCOL.md alone, with its lanes as the server opens them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use quic_websocket::config::TopicRule;
use quinn::{Connection, RecvStream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::over::{Over, Party};
use super::{RawClient, TestServer, soon, web_transport};

/// Messages that a subscription brings, and no request.
const OF_TOPICS: [&str; 6] = ["message", "join", "leave", "return", "state", "occupancy"];

/// A rule for topics from its form in a configuration file.
pub fn rule(toml: &str) -> TopicRule {
    toml::from_str(toml).expect("a rule")
}

/// One topic lane.
pub struct TopicLane {
    pub number: u64,
    pub priority: u64,
    pub receive: RecvStream,
}

impl TopicLane {
    /// The next lane that the server has opened.
    pub async fn accept(client: &RawClient) -> Self {
        Self::of(&client.connection, client.session.is_some()).await
    }

    async fn of(connection: &Connection, is_session: bool) -> Self {
        let receive = soon("a topic lane", connection.accept_uni()).await.expect("a topic lane");
        let mut lane = Self { number: 0, priority: 0, receive };
        if is_session {
            let mut header = [0; web_transport::TOPIC_LANE.len()];
            soon("the lane's session", lane.receive.read_exact(&mut header)).await.expect("the lane's session");
            assert_eq!(header, web_transport::TOPIC_LANE, "a lane of the session");
        }
        let first = lane.hear().await;
        assert_eq!(first["type"], "lane", "a lane begins with its number, not with {first}");
        lane.number = first["lane"].as_u64().expect("a number");
        lane.priority = first["priority"].as_u64().expect("a priority");
        lane
    }

    /// The next body, or how the lane ended.
    pub async fn try_hear_body(&mut self) -> Result<Vec<u8>, String> {
        let mut length = [0; 4];
        self.receive.read_exact(&mut length).await.map_err(|e| format!("{e:?}"))?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.receive.read_exact(&mut body).await.map_err(|e| format!("{e:?}"))?;
        Ok(body)
    }

    /// The next message, which must be JSON alone.
    pub async fn hear(&mut self) -> Value {
        let body = soon("a message on a topic lane", self.try_hear_body()).await.expect("a message");
        serde_json::from_slice(&body).expect("JSON")
    }

    /// The next message and its attachment.
    pub async fn hear_with(&mut self) -> (Value, Vec<u8>) {
        let body = soon("a message on a topic lane", self.try_hear_body()).await.expect("a message");
        assert_eq!(body[0], 0x01, "the body has an attachment");
        let json_len = u32::from_be_bytes(body[1..5].try_into().expect("four bytes")) as usize;
        (serde_json::from_slice(&body[5..5 + json_len]).expect("JSON"), body[5 + json_len..].to_vec())
    }
}

/// A client that receives messages on its topic lanes, or on its one lane if it has no others. Lanes are read from the
/// first call that receives; until then, and for lanes taken with [`lane`](Self::lane), nothing is read.
pub struct Subscriber {
    pub client: Party,
    /// The replies to its subscriptions, in order.
    pub subscribed: Vec<Value>,
    heard: mpsc::Receiver<(u64, Value)>,
    hears: mpsc::Sender<(u64, Value)>,
    waiting: HashMap<String, VecDeque<Value>>,
    /// Messages of topics that arrived while a reply was expected on the same lane.
    between: VecDeque<Value>,
    readers: JoinSet<()>,
    taken: Option<TopicLane>,
    lanes: BTreeMap<u64, u64>,
}

impl Subscriber {
    pub async fn connect(server: &TestServer, name: &str) -> Self {
        Self::over(Over::Native, server, name).await
    }

    /// On any carrier.
    pub async fn over(over: Over, server: &TestServer, name: &str) -> Self {
        Self::new(over.party(server, name).await)
    }

    pub fn new(client: impl Into<Party>) -> Self {
        let (hears, heard) = mpsc::channel(100_000);
        Self {
            client: client.into(),
            subscribed: Vec::new(),
            heard,
            hears,
            waiting: HashMap::new(),
            between: VecDeque::new(),
            readers: JoinSet::new(),
            taken: None,
            lanes: BTreeMap::new(),
        }
    }

    /// Subscribes with these fields and returns the reply.
    pub async fn subscribe(&mut self, mut fields: Value) -> Value {
        fields["type"] = json!("subscribe");
        fields["id"] = json!("subscribe");
        let subscribed = self.ask(fields, "subscribed").await;
        assert_eq!(subscribed["re"], "subscribe");
        self.subscribed.push(subscribed.clone());
        subscribed
    }

    pub async fn unsubscribe(&mut self, topic: &str) {
        let ok = self.ask(json!({"type": "unsubscribe", "topic": topic, "id": "unsubscribe"}), "ok").await;
        assert_eq!(ok["topic"], topic);
    }

    /// Sends a request on the control lane, for a reply of this type.
    pub async fn ask(&mut self, request: Value, kind: &str) -> Value {
        self.client.control.say(request).await;
        loop {
            let reply = self.client.control.hear().await;
            if !OF_TOPICS.iter().any(|kind| reply["type"] == *kind) {
                assert_eq!(reply["type"], kind, "expected {kind}, got {reply}");
                return reply;
            }
            self.between.push_back(reply);
        }
    }

    /// Checks that the server still answers. With a single lane, everything sent before has arrived then.
    pub async fn lives(&mut self, client: &str) {
        assert_eq!(self.ask(json!({"type": "ping", "id": client}), "pong").await["re"], client);
    }

    /// The single lane, read by the test itself; then no other is read.
    pub async fn lane(&mut self) -> &mut TopicLane {
        if self.taken.is_none() {
            assert!(self.readers.is_empty(), "its lanes are read already");
            let (connection, session) = self.client.quic();
            self.taken = Some(TopicLane::of(connection, session.is_some()).await);
        }
        self.taken.as_mut().expect("it is there")
    }

    fn read(&mut self) {
        if !self.readers.is_empty() || self.taken.is_some() || self.client.over == Over::WebSocket {
            return;
        }
        let (connection, session) = self.client.quic();
        let (connection, is_session, hears) = (connection.clone(), session.is_some(), self.hears.clone());
        self.readers.spawn(async move {
            let mut lanes = JoinSet::new();
            while let Ok(receive) = connection.accept_uni().await {
                let hears = hears.clone();
                lanes.spawn(async move {
                    let mut lane = TopicLane { number: 0, priority: 0, receive };
                    if is_session {
                        let mut header = [0; web_transport::TOPIC_LANE.len()];
                        lane.receive.read_exact(&mut header).await.expect("the lane's session");
                    }
                    while let Ok(body) = lane.try_hear_body().await {
                        let message: Value = serde_json::from_slice(&body).expect("JSON");
                        if message["type"] == "lane" {
                            lane.number = message["lane"].as_u64().expect("a number");
                        }
                        hears.send((lane.number, message)).await.expect("the test listens");
                    }
                });
            }
        });
    }

    async fn next(&mut self) -> (u64, Value) {
        self.read();
        if let Some(message) = self.between.pop_front() {
            return (0, message);
        }
        if self.client.over == Over::WebSocket {
            return (0, self.client.control.hear().await);
        }
        loop {
            let (lane, message) = soon("a message on a topic lane", self.heard.recv()).await.expect("a message");
            if message["type"] != "lane" {
                return (lane, message);
            }
            self.lanes.insert(lane, message["priority"].as_u64().expect("a priority"));
        }
    }

    /// The next message on any topic lane, and its lane; 0 for the control lane.
    pub async fn any(&mut self) -> (u64, Value) {
        self.next().await
    }

    /// The next message of one topic.
    pub async fn hear(&mut self, topic: &str) -> Value {
        if let Some(message) = self.waiting.get_mut(topic).and_then(VecDeque::pop_front) {
            return message;
        }
        loop {
            let (_, message) = self.next().await;
            let of = message["topic"].as_str().expect("a topic").to_owned();
            if of == topic {
                return message;
            }
            self.waiting.entry(of).or_default().push_back(message);
        }
    }

    /// The next message and its attachment, with at most one topic lane.
    pub async fn hear_with(&mut self) -> (Value, Vec<u8>) {
        match self.client.over {
            Over::WebSocket => self.client.control.hear_with().await,
            Over::Native | Over::WebTransport => self.lane().await.hear_with().await,
        }
    }

    /// The priorities of this many lanes, by lane number.
    pub async fn lanes_seen(&mut self, count: usize) -> BTreeMap<u64, u64> {
        self.read();
        while self.lanes.len() < count {
            let (lane, message) = soon("a topic lane", self.heard.recv()).await.expect("a lane");
            assert_eq!(message["type"], "lane");
            self.lanes.insert(lane, message["priority"].as_u64().expect("a priority"));
        }
        self.lanes.clone()
    }

    /// Checks that no message is left unread. Lanes are not ordered among each other, so this can only find messages
    /// that should not exist, never miss one that should.
    pub async fn nothing_more(&mut self) {
        tokio::task::yield_now().await;
        assert!(self.between.is_empty(), "nothing more was expected: {:?}", self.between);
        while let Ok((_, message)) = self.heard.try_recv() {
            assert_eq!(message["type"], "lane", "nothing more was expected");
        }
    }
}
