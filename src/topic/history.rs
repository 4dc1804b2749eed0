//! `history`: a page of what a topic's log keeps.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::{Topics, size, uptime_ms};
use crate::frame::{Body, Compression, PREFIX_BYTES};
use crate::message::{Position, ServerMessage, TopicName};
use crate::outbound::EncodedMessage;

impl Topics {
    /// A page of at most `limit` messages: those behind `since`, oldest first, or in reverse those before it, newest first.
    /// The page ends sooner where the reply would grow beyond `max_message_bytes`, but holds one message at least. A topic
    /// that has no messages, or is not there yet, has an empty page and a position; it is not made by being read.
    pub(crate) fn history(
        &self,
        name: &TopicName,
        since: Option<&Position>,
        limit: u64,
        reverse: bool,
    ) -> ServerMessage {
        let page = |epoch: &str, offset, recovered, messages, more| ServerMessage::History {
            topic: name.as_str().to_owned(),
            epoch: epoch.to_owned(),
            offset: Some(offset),
            recovered,
            messages,
            more,
        };
        let behind = since.filter(|_| !reverse);
        let topic = match self.look_up(name) {
            Ok(topic) => topic,
            Err(epoch) => {
                let recovered = behind.map(|since| since.epoch == *epoch && since.offset == 0);
                return page(&epoch, 0, recovered, Vec::new(), false);
            }
        };
        let (epoch, newest, recovered, entries, is_more_behind) = {
            let mut state = topic.state();
            self.account(&topic, &mut state, uptime_ms());
            let recovered = state.log.start(behind, None).recovered;
            // A position in another life of the log is before, or in reverse behind, all of this one.
            let since = since.filter(|since| since.epoch == state.log.epoch()).map(|since| since.offset);
            let take = size(limit);
            let (entries, is_more): (Vec<_>, bool) = if reverse {
                let mut newest_first = state.log.before(since.unwrap_or(u64::MAX)).rev();
                (newest_first.by_ref().take(take).cloned().collect(), newest_first.len() > 0)
            } else {
                let mut oldest_first = state.log.after(since.unwrap_or(0));
                (oldest_first.by_ref().take(take).cloned().collect(), oldest_first.len() > 0)
            };
            (state.log.epoch().to_owned(), state.log.newest(), recovered, entries, is_more)
        };
        let most = size(self.config.limits.max_message_bytes);
        let (mut messages, mut bytes, count) = (Vec::<Box<RawValue>>::new(), 0, entries.len());
        for entry in entries {
            let Some(message) = as_json(&entry.encoded) else { continue };
            bytes += message.get().len() + 1;
            // Room for the reply's own fields, the topic and the epoch among them.
            if bytes + 1024 > most && !messages.is_empty() {
                break;
            }
            messages.push(message);
        }
        let more = is_more_behind || messages.len() < count;
        page(&epoch, newest, recovered, messages, more)
    }
}

/// A `message` as a JSON object alone: its attachment in `data`.
fn as_json(encoded: &EncodedMessage) -> Option<Box<RawValue>> {
    let body = encoded.plain().slice(PREFIX_BYTES..);
    let Body { json, attachment } = Body::parse(body, Compression::None, usize::MAX).ok()?;
    let json = String::from_utf8(Vec::from(json)).ok()?;
    RawValue::from_string(match attachment {
        None => json,
        Some(attachment) => with_data(json, &attachment)?,
    })
    .ok()
}

fn with_data(mut json: String, attachment: &Bytes) -> Option<String> {
    json.truncate(json.strip_suffix('}')?.len());
    json.push_str(",\"data\":\"");
    BASE64.encode_string(attachment, &mut json);
    json.push_str("\"}");
    Some(json)
}
