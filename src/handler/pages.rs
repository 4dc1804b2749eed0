//! `list_clients`, `history` and `presence`: pages of a list or of a topic's log.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Context, Page};
use crate::envelope::EncodedMessage;
use crate::frame::Body;
use crate::message::{ErrorReply, Position, ServerMessage, TopicName};
use crate::topic::{HistoryPage, Members, Since};

/// The page, if it needs no disk.
pub(super) fn now(context: &Context, page: &Page) -> Option<ServerMessage> {
    Some(match page {
        Page::Clients { limit, after } => {
            let page = context.registry.page(*after, size(*limit));
            ServerMessage::ClientList { clients: page.clients, total: page.total as u64, next: page.next }
        }
        Page::History { topic, limit, reverse, .. } => {
            let page = context.topics.history(topic, since(page), size(*limit), *reverse)?;
            history(topic, page, size(context.config.limits.max_message_bytes))
        }
        Page::Members { topic, limit, after } => match context.topics.members(topic, *after, size(*limit)) {
            Ok(Members { clients, total, users, next }) => {
                let topic = topic.as_str().to_owned();
                ServerMessage::Presence { topic, clients, total: Some(total), users: Some(users), next }
            }
            Err(refused) => ServerMessage::Error(ErrorReply::from(refused)),
        },
    })
}

/// The page, read from the disk; `None` if it needs none.
pub(super) async fn stored(context: &Context, page: &Page) -> Option<ServerMessage> {
    let Page::History { topic, limit, reverse, .. } = page else { return None };
    if !context.topics.rule_of(topic).is_durable() {
        return None;
    }
    Some(match context.topics.stored_history(topic, since(page), size(*limit), *reverse).await {
        Ok(page) => history(topic, page, size(context.config.limits.max_message_bytes)),
        Err(refused) => ServerMessage::Error(ErrorReply::from(refused)),
    })
}

/// The place from which on a page of history is wanted.
fn since(page: &Page) -> Option<Since<'_>> {
    let Page::History { since, since_time, .. } = page else { return None };
    since.as_ref().map(Since::Position).or(since_time.map(Since::Time))
}

/// Ends the page before the reply would exceed `most_bytes`, but includes at least one message.
fn history(topic: &TopicName, page: HistoryPage, most_bytes: usize) -> ServerMessage {
    let HistoryPage { position: Position { epoch, offset }, recovered, records, more } = page;
    let (mut messages, mut bytes, count) = (Vec::<Box<RawValue>>::new(), 0, records.len());
    for record in records {
        let Some(message) = as_json(&record.encoded) else { continue };
        bytes += message.get().len() + 1;
        // 1 KiB for the reply's own fields, including topic and epoch.
        if bytes + 1024 > most_bytes && !messages.is_empty() {
            break;
        }
        messages.push(message);
    }
    let more = more || messages.len() < count;
    ServerMessage::History { topic: topic.as_str().to_owned(), epoch, offset: Some(offset), recovered, messages, more }
}

/// Encodes a `message` as one JSON object, with its attachment in `data`, or in `attachment` if its value is there.
fn as_json(encoded: &EncodedMessage) -> Option<Box<RawValue>> {
    let Body { json, attachment } = encoded.body().ok()?;
    let mut json = String::from_utf8(Vec::from(json)).ok()?;
    let has_value = has_data(&json);
    if has_value || attachment.is_some() {
        json.truncate(json.strip_suffix('}')?.len());
        if has_value {
            json.push_str(",\"encoding\":\"json\"");
        }
        if let Some(attachment) = attachment {
            json.push_str(if has_value { ",\"attachment\":\"" } else { ",\"data\":\"" });
            BASE64.encode_string(attachment, &mut json);
            json.push('"');
        }
        json.push('}');
    }
    RawValue::from_string(json).ok()
}

/// Whether a message has a value.
fn has_data(json: &str) -> bool {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(borrow, default, deserialize_with = "even_null")]
        data: Option<&'a RawValue>,
    }
    fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
        <&RawValue>::deserialize(deserializer).map(Some)
    }
    // Few messages have the text of the field at all, and of these only those with the field.
    json.contains("\"data\":") && serde_json::from_str(json).is_ok_and(|Fields { data }| data.is_some())
}

fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
