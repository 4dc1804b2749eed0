//! The rooms of a chat. A room is the topic `chat.<room>`, and membership is a subscription to it. The methods return
//! lines to show.

use std::collections::HashMap;
use std::future::pending;
use std::time::Duration;

use futures_util::future::select_all;
use quic_websocket::message::{ErrorCode, Payload, Position, TopicMessage};
use quic_websocket::{Client, ClientError, Printable, Subscription, TopicEvent};
use tokio::time::timeout;
use uuid::Uuid;

use super::people::People;
use super::text_of;

/// Number of earlier messages that are shown on joining a room.
const EARLIER_MESSAGES: u64 = 10;
/// How long to wait for a message that was just sent to come back before the next line is read.
const OWN_MESSAGE_TIMEOUT: Duration = Duration::from_secs(2);

struct Room {
    name: String,
    subscription: Subscription,
    /// Names of the members.
    names: HashMap<Uuid, String>,
    people: People,
}

/// The joined rooms, the current one last.
#[derive(Default)]
pub(crate) struct Rooms {
    joined: Vec<Room>,
}

impl Rooms {
    /// Whether what is typed goes to a room.
    pub(crate) fn is_in_room(&self) -> bool {
        !self.joined.is_empty()
    }

    fn find(&self, name: &str) -> Option<usize> {
        if name.is_empty() { self.joined.len().checked_sub(1) } else { self.joined.iter().position(|r| r.name == name) }
    }

    /// Joins a room and returns its latest messages, or switches to it if it is joined already.
    pub(crate) async fn join(
        &mut self,
        client: &Client,
        people: &People,
        name: &str,
    ) -> Result<Vec<String>, ClientError> {
        if let Some(at) = self.find(name) {
            let room = self.joined.remove(at);
            self.joined.push(room);
            return Ok(vec![format!("🚪 Back in {name}; what you type goes there")]);
        }
        let topic = format!("chat.{name}");
        let earlier = match client.history(&topic).limit(EARLIER_MESSAGES).reverse().await {
            Ok(page) => Some(page),
            Err(ClientError::Server(error)) if error.code == ErrorCode::NotFound.number() => None,
            Err(e) => return Err(e),
        };
        let newest = earlier.as_ref().and_then(|page| Some((page.epoch.clone(), page.messages.first()?.offset)));
        let subscribe = client.subscribe(&topic).presence(true);
        let subscription = match newest {
            // Continues after the messages that are shown now, without a gap.
            Some((epoch, offset)) => subscribe.since(Position { epoch, offset }).await?,
            // The room was empty; a message may arrive before the subscription exists.
            None => subscribe.recent(EARLIER_MESSAGES).await?,
        };
        let mut room = Room { name: name.to_owned(), subscription, names: HashMap::new(), people: people.clone() };
        let here = room.refresh_members(client).await?;
        let mut lines = vec![format!("🚪 You are in {name} ({here} here); what you type goes there")];
        for message in earlier.iter().flat_map(|page| page.messages.iter().rev()) {
            lines.push(room.line_of_message(message));
        }
        self.joined.push(room);
        Ok(lines)
    }

    /// Leaves a room, or the current one.
    pub(crate) async fn leave(&mut self, name: &str) -> Result<String, ClientError> {
        let Some(at) = self.find(name) else { return Ok(not_a_member(name)) };
        let room = self.joined.remove(at);
        room.subscription.unsubscribe().await?;
        let next = self.joined.last().map_or("is echoed".to_owned(), |room| format!("goes to {}", room.name));
        Ok(format!("🚪 You left {}; what you type {next}", room.name))
    }

    /// Refreshes the members of all rooms: after a reconnect, all ids may be different.
    pub(crate) async fn refresh(&mut self, client: &Client) -> Result<(), ClientError> {
        for room in &mut self.joined {
            room.refresh_members(client).await?;
        }
        Ok(())
    }

    /// The joined rooms.
    pub(crate) fn list(&self) -> Vec<String> {
        let mut lines = vec![format!("🚪 Your rooms ({}):", self.joined.len())];
        for (at, room) in self.joined.iter().enumerate() {
            let current = if at + 1 == self.joined.len() { " (current)" } else { "" };
            lines.push(format!("  • {}{current}", room.name));
        }
        lines
    }

    /// The members of a room; of the current one if `name` is empty.
    pub(crate) async fn who(&self, client: &Client, name: &str) -> Result<Vec<String>, ClientError> {
        let name = match self.find(name) {
            Some(at) => &self.joined[at].name,
            None if name.is_empty() => return Ok(vec![not_a_member(name)]),
            // The members of other rooms can be listed as well.
            None => name,
        };
        let present = client.presence(&format!("chat.{name}")).await?;
        let mut lines = vec![format!("👥 In {} ({}):", Printable::new(name), present.total)];
        for member in present.clients {
            let name = member.name.as_deref().unwrap_or("unnamed");
            lines.push(format!("  • {} ({})", Printable::new(name), member.id));
        }
        Ok(lines)
    }

    /// Publishes a text to the current room, and returns the room's messages up to it. If the call is repeated with the
    /// same key, the server publishes the text only once.
    pub(crate) async fn send_text(
        &mut self,
        client: &Client,
        text: &str,
        key: &str,
    ) -> Result<Vec<String>, ClientError> {
        let Some(room) = self.joined.last_mut() else { return Ok(vec![not_a_member("")]) };
        let published = client.publish(room.subscription.topic(), Payload::text(text)).key(key).await?;
        let mut lines = Vec::new();
        let own_message = async {
            let is_before =
                |at: Position| at.epoch == published.position.epoch && at.offset < published.position.offset;
            while room.subscription.position().is_some_and(is_before) {
                let Some(event) = room.subscription.next().await else { break };
                lines.extend(room.line_of_event(event));
            }
        };
        // If it takes longer, the message is shown when it arrives.
        let _ = timeout(OWN_MESSAGE_TIMEOUT, own_message).await;
        Ok(lines)
    }

    /// Waits for the next line from any room. Cancel safe.
    pub(crate) async fn next(&mut self) -> String {
        loop {
            if self.joined.is_empty() {
                return pending().await;
            }
            let next = self.joined.iter_mut().map(|room| Box::pin(room.subscription.next()));
            let (event, at, _) = select_all(next).await;
            let Some(event) = event else {
                self.joined.remove(at);
                continue;
            };
            if let Some(line) = self.joined[at].line_of_event(event) {
                return line;
            }
        }
    }
}

impl Room {
    /// Updates the names of the members, and returns the number of members.
    async fn refresh_members(&mut self, client: &Client) -> Result<u64, ClientError> {
        let present = client.presence(self.subscription.topic()).await?;
        // Names of members that left are kept: their messages may still arrive.
        for (id, name) in present.clients.into_iter().filter_map(|member| Some((member.id, member.name?))) {
            self.people.add(id, &name);
            self.names.insert(id, name);
        }
        Ok(present.total)
    }

    fn line_of_message(&self, message: &TopicMessage) -> String {
        let from = match &message.from {
            Some(from) => {
                let known = from.label().or_else(|| self.names.get(&from.id).map(String::as_str));
                known.map_or_else(|| format!("{:.8}", from.id.to_string()), str::to_owned)
            }
            None => "server".to_owned(),
        };
        format!("💬 [{}] {}: {}", self.name, Printable::new(&from), text_of(&message.payload))
    }

    fn line_of_event(&mut self, event: TopicEvent) -> Option<String> {
        let name = &self.name;
        Some(match event {
            TopicEvent::Message(message) => self.line_of_message(&message),
            TopicEvent::Missed(missed) => {
                format!("⚠️  [{name}] Messages are missing here: {}", Printable::new(&missed.reason))
            }
            TopicEvent::Join { member, .. } => {
                let member_name = member.name.unwrap_or_else(|| "unnamed".to_owned());
                let line = format!("👋 [{name}] {} joined", Printable::new(&member_name));
                self.people.add(member.id, &member_name);
                self.names.insert(member.id, member_name);
                line
            }
            TopicEvent::Leave { member, .. } => {
                let member_name = self.names.remove(&member.id).unwrap_or_else(|| "unnamed".to_owned());
                format!("👋 [{name}] {} left", Printable::new(&member_name))
            }
            TopicEvent::Ended(ended) => {
                format!("🚪 You are no longer in {name}: {}", Printable::new(ended.reason()))
            }
            _ => return None,
        })
    }
}

fn not_a_member(name: &str) -> String {
    match name {
        "" => "You are in no room; join one with /join <room>".to_owned(),
        name => format!("You are not in {}; /topics lists your rooms", Printable::new(name)),
    }
}
