//! A client on any carrier: what holds for one has to hold for all.

use serde_json::{Value, json};

use super::web_socket::SocketLane;
use super::{RawClient, RawLane, TestServer, web_socket, web_transport};

/// A carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Native,
    WebTransport,
    WebSocket,
}

impl Over {
    pub const ALL: [Self; 3] = [Self::Native, Self::WebTransport, Self::WebSocket];
    /// Those with lanes and datagrams.
    pub const QUIC: [Self; 2] = [Self::Native, Self::WebTransport];

    /// As clients are told of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "quic",
            Self::WebTransport => "webtransport",
            Self::WebSocket => "websocket",
        }
    }

    /// A connection whose handshake is still to come, on one with lanes.
    pub async fn stranger(self, server: &TestServer) -> RawClient {
        match self {
            Self::Native => server.stranger().await,
            Self::WebTransport => {
                let connection = web_transport::http3(server).await;
                let session = web_transport::session(connection, server.addr, "/wt").await.expect("a session");
                web_transport::over(session).await
            }
            Self::WebSocket => panic!("a WebSocket has one lane only: ask for a party"),
        }
    }

    /// A client whose handshake was accepted, on a carrier with lanes.
    pub async fn client(self, server: &TestServer, name: &str) -> RawClient {
        let mut client = self.stranger(server).await;
        client.handshake(name).await;
        client
    }

    /// A connection whose handshake is still to come.
    pub async fn newcomer(self, server: &TestServer) -> Party {
        let (control, rest) = match self {
            Self::WebSocket => (AnyLane::Socket(Box::new(web_socket::open(server).await)), None),
            _ => {
                let RawClient { connection, control, session, .. } = self.stranger(server).await;
                (AnyLane::Quic(control), Some((connection, session)))
            }
        };
        Party { over: self, control, id: String::new(), rest }
    }

    /// A client whose handshake was accepted.
    pub async fn party(self, server: &TestServer, name: &str) -> Party {
        let mut party = self.newcomer(server).await;
        party.handshake(name).await;
        party
    }
}

/// A control lane on any carrier.
pub enum AnyLane {
    Quic(RawLane),
    Socket(Box<SocketLane>),
}

impl AnyLane {
    /// Sends one body.
    pub async fn body(&mut self, body: &[u8]) {
        match self {
            Self::Quic(lane) => lane.body(body).await,
            Self::Socket(lane) => lane.body(body).await,
        }
    }

    /// The next body, or how the lane ended.
    pub async fn try_hear_body(&mut self) -> Result<Vec<u8>, String> {
        match self {
            Self::Quic(lane) => lane.try_hear_body().await,
            Self::Socket(lane) => lane.try_hear_body().await,
        }
    }
}

speaks!(AnyLane);

/// A connection with its control lane, on any carrier.
pub struct Party {
    pub over: Over,
    pub control: AnyLane,
    pub id: String,
    /// Where it is on QUIC.
    rest: Option<(quinn::Connection, Option<web_transport_quinn::Session>)>,
}

shakes_hands!(Party);

impl Party {
    /// Waits for the server's close and gives its code and reason.
    pub async fn closed(&mut self) -> (u64, String) {
        match (&mut self.control, &self.rest) {
            (AnyLane::Socket(lane), _) => lane.closed().await,
            (_, Some((_, Some(session)))) => web_transport::closed(session).await,
            (_, Some((connection, None))) => super::closed(connection).await,
            (AnyLane::Quic(_), None) => panic!("a lane of no connection"),
        }
    }

    /// The next message of a topic, which comes on the control lane if it was asked for there.
    pub async fn hear_of(&mut self, topic: &str) -> Value {
        let message = self.control.expect("message").await;
        assert_eq!(message["topic"], json!(topic), "{message}");
        message
    }
}
