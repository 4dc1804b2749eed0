//! `handshake_response`, and what it announces.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::frame::Compression;
use crate::message::{Json, PROTOCOL_VERSION};

/// The fields of `handshake_response`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandshakeReply {
    /// Whether the server accepts the client.
    pub accepted: bool,
    /// The client's id for this connection.
    pub client_id: Option<Uuid>,
    /// The server's name.
    pub server_name: String,
    /// Protocol version of the server.
    pub protocol_version: Option<String>,
    /// The reason for a refusal.
    pub reason: Option<String>,
    /// The server's limits for this connection.
    pub limits: Option<Limits>,
    /// The compression that the server has chosen.
    pub compression: Compression,
    /// The user that the client has authenticated as.
    pub user: Option<String>,
    /// The name that others see, if the client did not ask for it.
    pub client_name: Option<String>,
    /// The time at which the client's token expires, in Unix milliseconds.
    pub expires_at: Option<u64>,
    /// What the client may send to other clients; `None` if the server restricts nothing.
    pub permissions: Option<Permissions>,
    /// The user's own topic, for messages that wait while no client of the user is connected.
    pub inbox: Option<String>,
    /// What others see about the user, from the client's token.
    pub info: Option<Json>,
    /// The secret of the client's session, for `resume` and `attach`.
    pub session: Option<String>,
    /// The subscriptions that the server makes for the client.
    pub subscriptions: Vec<String>,
}

impl HandshakeReply {
    /// A refusal: `accepted` is false, and the fields for an accepted client are absent.
    pub fn new(server_name: impl Into<String>) -> Self {
        Self {
            accepted: false,
            client_id: None,
            server_name: server_name.into(),
            protocol_version: Some(PROTOCOL_VERSION.into()),
            reason: None,
            limits: None,
            compression: Compression::None,
            user: None,
            client_name: None,
            expires_at: None,
            permissions: None,
            inbox: None,
            info: None,
            session: None,
            subscriptions: Vec::new(),
        }
    }
}

/// Permissions for messages to other clients; by default none. Topics have their own permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Permissions {
    /// `broadcast`.
    pub broadcast: bool,
    /// `direct`.
    pub direct: bool,
    /// `signal`.
    pub signal: bool,
    /// `list_clients`.
    pub list_clients: bool,
}

/// The limits of a server, as its clients have to keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// Largest body, in bytes, compressed and decompressed.
    pub max_message_bytes: u64,
    /// Idle milliseconds until the server pings.
    pub ping_interval_ms: u64,
    /// Milliseconds after a ping without a sign of life until the server closes the connection.
    pub ping_timeout_ms: u64,
    /// Maximum number of open request lanes, without the control lane.
    pub max_request_lanes: u64,
    /// Most bytes of incomplete messages, on all lanes together; `None` from older servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unfinished_bytes: Option<u64>,
    /// Most requests of one lane whose replies are pending while the lane is read; `None` from older servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pending_replies: Option<u64>,
    /// Longest `meta` of a message, in bytes; `None` from older servers, which know neither `meta` nor `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_meta_bytes: Option<u64>,
    /// Most requests to other clients that may be open at once; `None` from older servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_open_requests: Option<u64>,
}

/// The defaults of docs/PROTOCOL.md, "Limits".
impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 1 << 20,
            ping_interval_ms: 25_000,
            ping_timeout_ms: 10_000,
            max_request_lanes: 32,
            max_unfinished_bytes: Some(8 << 20),
            max_pending_replies: Some(256),
            max_meta_bytes: Some(1024),
            max_open_requests: Some(256),
        }
    }
}
