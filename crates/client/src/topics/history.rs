//! A topic's past messages and its present members.

use std::future::IntoFuture;
use std::pin::Pin;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::client::unexpected;
use crate::message::{
    ClientMessage, DEFAULT_PAGE, ErrorCode, Invalid, MAX_PAGE, Member, Position, Reply, ServerMessage, TopicMessage,
    TopicName,
};
use crate::{Client, ClientError};
use quic_websocket_protocol::frame::Body;

impl Client {
    /// Fetches past messages of a topic. Set options on the returned builder, and await it for one page.
    ///
    /// ```no_run
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
    /// let newest = client.history("chat.lobby").limit(10).reverse().await?;
    /// let everything = client.history("chat.lobby").all().await?;
    /// # Ok(()) }
    /// ```
    pub fn history(&self, topic: impl Into<String>) -> HistoryBuilder<'_> {
        HistoryBuilder {
            client: self,
            topic: topic.into(),
            since: None,
            since_time: None,
            limit: DEFAULT_PAGE,
            reverse: false,
        }
    }

    /// Lists the members of a topic: the clients that are subscribed to it by its name, ordered by id, at most 1,000;
    /// and their number. [`members`](Self::members) lists all.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the topic is out of its bounds; [`ClientError::Server`] with code 404 if presence is
    /// off for it; otherwise as [`call`](Self::call).
    pub async fn presence(&self, topic: &str) -> Result<Presence, ClientError> {
        Ok(self.members_page(topic, None, false).await?.0)
    }

    /// Lists all members of a topic, ordered by id. Makes a request for each page of 1,000.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`] if a page does not lead to the next; otherwise as [`presence`](Self::presence).
    pub async fn members(&self, topic: &str) -> Result<Vec<Member>, ClientError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = self.members_page(topic, after, false).await?;
            if next.is_some() && next <= after {
                return Err(ClientError::Unexpected { asked: "presence", got: "a page that leads nowhere" });
            }
            all.extend(page.clients);
            after = next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// The number of a topic's members, without their names.
    ///
    /// # Errors
    /// As [`presence`](Self::presence).
    pub async fn occupancy(&self, topic: &str) -> Result<Occupancy, ClientError> {
        let Presence { total, users, .. } = self.members_page(topic, None, true).await?.0;
        Ok(Occupancy { clients: total, users: users.unwrap_or(0) })
    }

    async fn members_page(
        &self,
        topic: &str,
        after: Option<Uuid>,
        counts: bool,
    ) -> Result<(Presence, Option<Uuid>), ClientError> {
        let topic = TopicName::new(topic)?;
        match self.ask(&ClientMessage::Presence { topic, limit: MAX_PAGE, after, counts }, true).await? {
            ServerMessage::Presence { clients, total, users, next, .. } => {
                let listed = u64::try_from(clients.len()).unwrap_or(u64::MAX);
                Ok((Presence { clients, total: total.unwrap_or(listed), users }, next))
            }
            other => Err(unexpected("presence", &other)),
        }
    }
}

/// The members of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// The members, ordered by id, at most 1,000.
    pub clients: Vec<Member>,
    /// The number of members.
    pub total: u64,
    /// The number of different users among them; `None` from older servers.
    pub users: Option<u64>,
}

/// The number of a topic's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occupancy {
    /// The number of clients.
    pub clients: u64,
    /// The number of different users among them.
    pub users: u64,
}

/// Past messages of a topic: one page, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// The epoch of the topic's log. Together with a message's offset it is a [`Position`].
    pub epoch: String,
    /// The newest message's offset, 0 if there has been none. Together with `epoch` it is the position from which to
    /// continue. `None` from older servers.
    pub offset: Option<u64>,
    /// The messages; empty for a topic without any.
    pub messages: Vec<TopicMessage>,
    /// Whether there is another page.
    pub more: bool,
}

impl History {
    /// Appends the next page of the same log. Messages that were published in the meantime are on it, unless it is
    /// older than the first one.
    fn append(&mut self, next: Self, reverse: bool) {
        if !reverse {
            self.offset = next.offset;
        }
        self.messages.extend(next.messages);
    }
}

/// A request for past messages; awaiting it fetches one page.
#[derive(Debug, Clone)]
#[must_use = "nothing is asked for until this is awaited"]
pub struct HistoryBuilder<'a> {
    client: &'a Client,
    topic: String,
    since: Option<Position>,
    since_time: Option<u64>,
    limit: u64,
    reverse: bool,
}

impl<'a> HistoryBuilder<'a> {
    /// Only messages after a position; with [`reverse`](Self::reverse), only those before it.
    pub fn since(mut self, position: Position) -> Self {
        self.since = Some(position);
        self
    }

    /// Only messages from this time on, in Unix milliseconds; with [`reverse`](Self::reverse), only those before it.
    /// Not together with [`since`](Self::since).
    ///
    /// ```no_run
    /// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
    /// let hour_ago = quic_websocket_client::message::now_ms() - 3_600_000;
    /// let last_hour = client.history("orders").since_time(hour_ago).all().await?;
    /// # Ok(()) }
    /// ```
    pub fn since_time(mut self, unix_ms: u64) -> Self {
        self.since_time = Some(unix_ms);
        self
    }

    /// Most messages on the page, from 1 to [`MAX_PAGE`]; other values are set to the nearer of these. Default: 100.
    pub fn limit(mut self, messages: u64) -> Self {
        self.limit = messages.clamp(1, MAX_PAGE);
        self
    }

    /// The newest first.
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Fetches one page; the same as awaiting it.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the topic is out of its bounds, or the server's answer cannot be decoded;
    /// [`ClientError::Server`] with code 404 from older servers if the topic has no history; otherwise as
    /// [`Client::call`].
    pub async fn page(self) -> Result<History, ClientError> {
        let Self { client, topic, since, since_time, limit, reverse } = self;
        one_beginning(since.as_ref(), since_time)?;
        let topic = TopicName::new(&topic)?;
        page(client, ClientMessage::History { topic, since, since_time, limit, reverse }).await
    }

    /// Fetches all pages, and collects them in memory. [`limit`](Self::limit) has no effect.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`] if a page does not lead to the next; otherwise as [`page`](Self::page).
    pub async fn all(self) -> Result<History, ClientError> {
        let topic = TopicName::new(&self.topic)?;
        one_beginning(self.since.as_ref(), self.since_time)?;
        let (mut since, mut since_time) = (self.since, self.since_time);
        let mut all: Option<History> = None;
        loop {
            let ask = ClientMessage::History {
                topic: topic.clone(),
                since: since.clone(),
                since_time,
                limit: MAX_PAGE,
                reverse: self.reverse,
            };
            let next = match page(self.client, ask).await {
                // The rest has expired in the meantime.
                Err(ClientError::Server(error)) if all.is_some() && error.code == ErrorCode::NotFound.number() => break,
                next => next?,
            };
            let last = next.messages.last().map(|message| message.offset);
            let more = next.more;
            let epoch = next.epoch.clone();
            match &mut all {
                Some(all) if all.epoch == next.epoch => all.append(next, self.reverse),
                // The log was started again in the meantime; nothing is left of the one before.
                _ => all = Some(next),
            }
            match last {
                Some(offset) if more => {
                    let next = Position { epoch, offset };
                    if !leads_to_next_page(since.as_ref(), &next, self.reverse) {
                        let got = "a page that leads nowhere";
                        return Err(ClientError::Unexpected { asked: "history", got });
                    }
                    (since, since_time) = (Some(next), None);
                }
                _ => break,
            }
        }
        let mut all = all.ok_or(ClientError::Lost)?;
        all.more = false;
        Ok(all)
    }
}

impl<'a> IntoFuture for HistoryBuilder<'a> {
    type Output = Result<History, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.page())
    }
}

/// Refuses two beginnings.
fn one_beginning(since: Option<&Position>, since_time: Option<u64>) -> Result<(), Invalid> {
    match (since, since_time) {
        (Some(_), Some(_)) => Err(Invalid::field("since_time: not together with since; set one of them")),
        _ => Ok(()),
    }
}

/// Whether the next page differs from the one at `since`.
fn leads_to_next_page(since: Option<&Position>, next: &Position, reverse: bool) -> bool {
    match since {
        Some(since) if since.epoch == next.epoch && reverse => next.offset < since.offset,
        Some(since) if since.epoch == next.epoch => next.offset > since.offset,
        _ => true,
    }
}

async fn page(client: &Client, ask: ClientMessage) -> Result<History, ClientError> {
    match client.call(&ask).await? {
        ServerMessage::History { epoch, offset, messages, more, .. } => {
            let messages = messages.into_iter().map(read).collect::<Result<_, _>>()?;
            Ok(History { epoch, offset, messages, more })
        }
        other => Err(unexpected("history", &other)),
    }
}

/// Decodes a `message` whose attachment is in `data`, or in `attachment` if its value is there.
fn read(message: Box<RawValue>) -> Result<TopicMessage, Invalid> {
    #[derive(Deserialize)]
    struct Attachment<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
        encoding: Option<std::borrow::Cow<'a, str>>,
        attachment: Option<std::borrow::Cow<'a, str>>,
    }
    let wrong = |e: serde_json::Error| Invalid::field(format!("messages: {e}"));
    let fields: Attachment<'_> = serde_json::from_str(message.get()).map_err(wrong)?;
    let has_value = fields.encoding.as_deref() == Some("json");
    let encoded = match fields.data.filter(|_| !has_value) {
        Some(data) => Some(serde_json::from_str::<std::borrow::Cow<'_, str>>(data.get()).map_err(wrong)?),
        None => fields.attachment,
    };
    let decode = |text: std::borrow::Cow<'_, str>| {
        let bytes = STANDARD.decode(text.as_bytes());
        bytes.map(Bytes::from).map_err(|e| Invalid::field(format!("data: no base64: {e}")))
    };
    let attachment = encoded.map(decode).transpose()?;
    let json = Bytes::from(String::from(Box::<str>::from(message)));
    match Reply::parse(&Body { json, attachment })?.message {
        ServerMessage::Message(mut message) => {
            if !has_value {
                message.payload.data = None;
            }
            Ok(message)
        }
        other => Err(Invalid::field(format!("messages: a {} stands there", other.type_name()))),
    }
}

/// The offset of a `message` on a page.
pub(super) fn offset_of(message: &RawValue) -> Option<u64> {
    #[derive(Deserialize)]
    struct Place {
        offset: u64,
    }
    serde_json::from_str::<Place>(message.get()).ok().map(|place| place.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;

    fn read_text(json: &str) -> Result<TopicMessage, Invalid> {
        read(RawValue::from_string(json.to_owned()).expect("JSON"))
    }

    #[test]
    fn an_attachment_in_history_is_read_from_base64() {
        let json = r#"{"type":"message","topic":"t","offset":3,"content":"x","data":"3q2+7w==","timestamp":1}"#;
        let message = read_text(json).expect("a message");
        let both = Payload::text("x").with_attachment(Bytes::from_static(b"\xde\xad\xbe\xef"));
        assert_eq!((message.offset, message.payload), (3, both));

        let json = r#"{"type":"message","topic":"t","offset":3,"content":"x","timestamp":1}"#;
        assert_eq!(read_text(json).expect("a message").payload, Payload::text("x"));
    }

    #[test]
    fn the_position_of_all_pages_covers_what_was_published_in_the_meantime() {
        let page = |offset, messages: &[u64]| {
            let messages = messages.iter().map(|&offset| TopicMessage::new("t", offset, Payload::text("x"), 0));
            History { epoch: "e".into(), offset: Some(offset), messages: messages.collect(), more: true }
        };
        let mut forwards = page(3, &[1, 2]);
        forwards.append(page(4, &[3, 4]), false);
        assert_eq!((forwards.offset, forwards.messages.len()), (Some(4), 4));

        let mut backwards = page(3, &[3, 2]);
        backwards.append(page(4, &[1]), true);
        assert_eq!(backwards.offset, Some(3), "the fourth is on no page");
    }

    #[test]
    fn a_page_that_ends_where_it_began_does_not_lead_to_the_next() {
        let at = |epoch: &str, offset| Position { epoch: epoch.into(), offset };
        let here = at("e", 5);
        let leads = |next: Position, reverse| leads_to_next_page(Some(&here), &next, reverse);
        assert!(leads(at("e", 6), false) && leads(at("e", 4), true));
        assert!(!leads(at("e", 5), false) && !leads(at("e", 4), false));
        assert!(!leads(at("e", 5), true) && !leads(at("e", 6), true));
        assert!(leads(at("f", 1), false) && leads_to_next_page(None, &here, true));
    }

    #[test]
    fn an_entry_of_a_page_that_is_not_a_message_is_an_error() {
        for json in [
            r#"{"type":"message","topic":"t","offset":3,"data":"?","timestamp":1}"#,
            r#"{"type":"message","topic":"t","offset":3,"data":5,"timestamp":1}"#,
            r#"{"type":"message","topic":"t","content":"x","timestamp":1}"#,
            r#"{"type":"ok"}"#,
            "[]",
        ] {
            assert!(read_text(json).is_err(), "{json}");
        }
    }
}
