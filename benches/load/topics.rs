//! The topics of a load, `load.00000` and following, and their subscribers.

use serde_json::json;

/// Prefix before the number in a topic's name.
pub(super) const PREFIX: &str = "load.";
pub(super) const DIGITS: usize = 5;

pub(crate) fn name(topic: usize) -> String {
    format!("{PREFIX}{topic:0DIGITS$}")
}

/// Number of topics, to which the messages go in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Topics {
    pub(crate) count: usize,
    pub(crate) audience: Audience,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Every client subscribes to every topic.
    All,
    /// Every topic has one subscriber; the clients share the topics.
    One,
}

impl Topics {
    pub(crate) const fn everyone_on(count: usize) -> Self {
        Self { count, audience: Audience::All }
    }

    /// Number of clients that get each message.
    pub(super) const fn receivers(self, clients: usize) -> usize {
        match self.audience {
            Audience::All => clients,
            Audience::One => 1,
        }
    }

    /// The topics that one of this many clients subscribes to.
    pub(super) fn of(self, client: usize, clients: usize) -> impl Iterator<Item = usize> {
        let (first, step) = match self.audience {
            Audience::All => (0, 1),
            Audience::One => (client, clients),
        };
        (first..self.count).step_by(step)
    }
}

/// Lane on which the messages of a subscription arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Chosen by the server, separate from requests and, if there are enough, from other topics.
    Own,
    Control,
    /// That of the session's second WebSocket.
    Bulk,
}

/// The topic of the requests to one client.
pub(super) fn calls(client: &str) -> String {
    format!("calls.{client}")
}

/// The request of a client that answers requests.
pub(super) fn answer(client: &str) -> Vec<u8> {
    let topic = calls(client);
    json!({ "type": "subscribe", "id": topic, "topic": topic, "lane": "control", "requests": true })
        .to_string()
        .into_bytes()
}

/// The request that subscribes to one topic.
pub(super) fn subscribe(topic: usize, lane: Lane) -> Vec<u8> {
    let lane = match lane {
        Lane::Own => "own",
        Lane::Control => "control",
        Lane::Bulk => "bulk",
    };
    json!({ "type": "subscribe", "id": name(topic), "topic": name(topic), "lane": lane }).to_string().into_bytes()
}
