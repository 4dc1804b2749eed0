//! A client on any carrier, for requirements that all carriers have to meet.

use quinn::Connection;
use serde_json::{Value, json};
use web_transport_quinn::Session;

use super::web_socket::SocketLane;
use super::{On, RawClient, RawLane, TestServer, web_socket, web_transport};

/// A carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Native,
    WebTransport,
    WebSocket,
}

impl Over {
    pub const ALL: [Self; 3] = [Self::Native, Self::WebTransport, Self::WebSocket];
    /// Carriers with lanes and datagrams.
    pub const QUIC: [Self; 2] = [Self::Native, Self::WebTransport];

    /// All pairs of carriers.
    pub fn pairs() -> impl Iterator<Item = (Self, Self)> {
        Self::ALL.into_iter().flat_map(|from| Self::ALL.map(|to| (from, to)))
    }

    /// All carriers in turn, endlessly: for mixed crowds.
    pub fn in_turn() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().cycle()
    }

    /// Ways on which requests can be sent.
    pub fn ways(self) -> &'static [On] {
        match self {
            Self::WebSocket => &[On::Control],
            Self::Native | Self::WebTransport => &On::EACH,
        }
    }

    /// Name of the carrier in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "quic",
            Self::WebTransport => "webtransport",
            Self::WebSocket => "websocket",
        }
    }

    /// A connection without a handshake, on a carrier with lanes.
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

    /// A connection without a handshake.
    pub async fn newcomer(self, server: &TestServer) -> Party {
        match self {
            Self::WebSocket => web_socket::open(server).await.into(),
            _ => self.stranger(server).await.into(),
        }
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

    /// The same; returns false if the peer accepts nothing more.
    pub async fn try_body(&mut self, body: &[u8]) -> bool {
        match self {
            Self::Quic(lane) => lane.try_body(body).await,
            Self::Socket(lane) => lane.try_body(body).await,
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

impl AnyLane {
    /// Sends bodies at once, one after the other.
    pub async fn bodies(&mut self, bodies: &[Vec<u8>]) {
        match self {
            Self::Quic(lane) => lane.raw(&bodies.iter().flat_map(|body| super::framed(body)).collect::<Vec<_>>()).await,
            Self::Socket(lane) => lane.bodies(bodies).await,
        }
    }
}

speaks!(AnyLane);

/// A connection with its control lane, on any carrier.
pub struct Party {
    pub over: Over,
    pub control: AnyLane,
    pub id: String,
    /// The QUIC connection, if there is one.
    rest: Option<(Connection, Option<Session>)>,
}

shakes_hands!(Party);

impl From<RawClient> for Party {
    fn from(RawClient { connection, control, id, session }: RawClient) -> Self {
        let over = if session.is_some() { Over::WebTransport } else { Over::Native };
        Self { over, control: AnyLane::Quic(control), id, rest: Some((connection, session)) }
    }
}

impl From<SocketLane> for Party {
    fn from(socket: SocketLane) -> Self {
        Self { over: Over::WebSocket, control: AnyLane::Socket(Box::new(socket)), id: String::new(), rest: None }
    }
}

impl Party {
    /// The QUIC connection; only on carriers that use it.
    pub fn quic(&self) -> (&Connection, Option<&Session>) {
        let (connection, session) = self.rest.as_ref().expect("a WebSocket has one lane only");
        (connection, session.as_ref())
    }

    /// Opens a request lane.
    pub async fn lane(&self) -> RawLane {
        let (connection, session) = self.quic();
        super::open_lane(connection, session).await
    }

    /// Sends one body and returns the reply, which arrives the same way.
    pub async fn ask(&mut self, on: On, body: &[u8]) -> Value {
        serde_json::from_slice(&self.ask_body(on, body).await).expect("JSON")
    }

    /// The same for a reply that need not be JSON.
    pub async fn ask_body(&mut self, on: On, body: &[u8]) -> Vec<u8> {
        match on {
            On::Control => {
                self.control.body(body).await;
                self.control.hear_body().await
            }
            On::Lane => {
                let mut lane = self.lane().await;
                lane.body(body).await;
                lane.hear_body().await
            }
            On::Datagram => {
                let (connection, session) = self.quic();
                super::send_datagram(connection, session, body);
                super::read_datagram(connection, session).await
            }
        }
    }

    /// Sends bodies on one way, without waiting for anything.
    pub async fn tell(&mut self, on: On, bodies: &[Vec<u8>]) {
        match on {
            On::Control => self.control.bodies(bodies).await,
            On::Lane => AnyLane::Quic(self.lane().await).bodies(bodies).await,
            On::Datagram => {
                let (connection, session) = self.quic();
                bodies.iter().for_each(|body| super::send_datagram(connection, session, body));
            }
        }
    }

    /// Disappears without a close, as far as the carrier allows that.
    pub fn vanish(self) {
        if let Some((connection, _)) = &self.rest {
            connection.close(1000_u32.into(), b"");
        }
    }

    /// Loses its connection: the server notices at once, but the client has not said that it leaves.
    pub fn lose(self) {
        if let Some((connection, _)) = &self.rest {
            connection.close(0_u32.into(), b"");
        }
    }

    /// Waits for the server's close and returns its code and reason.
    pub async fn closed(&mut self) -> (u64, String) {
        match (&mut self.control, &self.rest) {
            (AnyLane::Socket(lane), _) => lane.closed().await,
            (_, Some((_, Some(session)))) => web_transport::closed(session).await,
            (_, Some((connection, None))) => super::closed(connection).await,
            (AnyLane::Quic(_), None) => panic!("a lane of no connection"),
        }
    }

    /// The next message of a topic, on the control lane if it was requested there.
    pub async fn hear_of(&mut self, topic: &str) -> Value {
        let message = self.control.expect("message").await;
        assert_eq!(message["topic"], json!(topic), "{message}");
        message
    }
}
