//! Clients as others see them: in the list of all, and on a topic.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::message::Json;

/// A connected client in `client_list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClientInfo {
    /// Id of the client.
    pub id: Uuid,
    /// Its name, if any.
    pub name: Option<String>,
    /// The user that it has authenticated as, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What its token says about the user, for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
    /// The time of its handshake, in Unix milliseconds.
    pub connected_at: u64,
    /// Its transport: `quic`, `webtransport` or `websocket`.
    pub transport: Cow<'static, str>,
}

impl ClientInfo {
    /// Creates the entry of a client connected since `connected_at`, in Unix milliseconds, over `transport`.
    pub fn new(client: Member, connected_at: u64, transport: impl Into<Cow<'static, str>>) -> Self {
        let Member { id, name, user, info, .. } = client;
        Self { id, name, user, info, connected_at, transport: transport.into() }
    }
}

/// A client on a topic, or a user with all its clients there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// Id of the client; of a user's clients that of the first.
    pub id: Uuid,
    /// Its name, if any.
    pub name: Option<String>,
    /// The user that it has authenticated as, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What its token says about the user, for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
    /// Its state on the topic, as it has set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Json>,
    /// The number of the user's clients on the topic; absent for the entry of a single client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
    /// Whether its connection is lost and it may come back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub away: bool,
}

impl Member {
    /// Creates a member from its id, name and user.
    pub fn new(id: Uuid, name: Option<String>, user: Option<String>) -> Self {
        Self { id, name, user, info: None, state: None, clients: None, away: false }
    }
}
