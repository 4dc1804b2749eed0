//! Who may do what: the one place where every message that names a topic or a client is held against the rights of who
//! sends it and the rules for topics. Called first for each message; what it lets through is carried out.

use super::{Context, Work};
use crate::auth::Identity;
use crate::config::Who;
use crate::message::{ClientMessage, ErrorCode, ErrorReply, TopicName, TopicPattern};

/// Refuses what a client may not do.
pub(super) fn permit(context: &Context, by: &Identity, message: &ClientMessage) -> Result<(), ErrorReply> {
    let rights = &by.rights;
    match message {
        ClientMessage::Publish { topic, .. } => may_publish(context, by, topic),
        ClientMessage::Subscribe(wanted) => {
            may_hear(context, by, &wanted.topic, wanted.presence)?;
            let field = wanted.since.as_ref().map(|_| "since").or(wanted.recent.map(|_| "recent"));
            may_have_replayed(by, &wanted.topic, field)
        }
        ClientMessage::History { topic, .. } => {
            let pattern = topic.clone().into();
            let may = rights.history(&pattern) && by.is_one_of(context.topics.rule_of(topic).subscribe);
            allow(may, "topic", || format!("read the history of {}", topic.as_str()))
        }
        ClientMessage::Presence { topic } => {
            let pattern = topic.clone().into();
            let may = rights.presence(&pattern) && by.is_one_of(context.topics.rule_of(topic).subscribe);
            allow(may, "topic", || format!("ask who is on {}", topic.as_str()))
        }
        ClientMessage::Broadcast(_) => allow(rights.broadcast, "broadcast", || "send to all clients".into()),
        ClientMessage::Direct { .. } => allow(rights.direct, "to", || "send to single clients".into()),
        ClientMessage::Signal { .. } => may_signal(by),
        ClientMessage::ListClients { .. } => {
            allow(rights.list_clients, "list_clients", || "list who is connected".into())
        }
        // These name nobody else, or what the client has already.
        ClientMessage::Handshake(_)
        | ClientMessage::Text { .. }
        | ClientMessage::Binary { .. }
        | ClientMessage::Ping { .. }
        | ClientMessage::Pong
        | ClientMessage::Unsubscribe { .. }
        | ClientMessage::Refresh { .. }
        | ClientMessage::Close(_) => Ok(()),
    }
}

/// The same for what was let through under another token.
pub(super) fn recheck(context: &Context, by: &Identity, work: &Work) -> Result<(), ErrorReply> {
    match work {
        Work::Message(message) | Work::Page(message) => permit(context, by, message),
        Work::Publish(publication) => may_publish(context, by, &publication.topic),
    }
}

fn may_publish(context: &Context, by: &Identity, topic: &TopicName) -> Result<(), ErrorReply> {
    let may = by.rights.publish(topic.as_str()) && by.is_one_of(context.topics.rule_of(topic).publish);
    allow(may, "topic", || format!("publish to {}", topic.as_str()))
}

/// Whether a client that subscribes to this may not publish to it. A pattern names no topic, so it is never read-only.
pub(super) fn is_read_only(context: &Context, by: &Identity, wanted: &TopicPattern) -> bool {
    TopicName::new(wanted.as_str()).is_ok_and(|topic| may_publish(context, by, &topic).is_err())
}

/// Refuses a subscription, one that is to be made or one that is there.
pub(super) fn may_hear(
    context: &Context,
    by: &Identity,
    wanted: &TopicPattern,
    presence: bool,
) -> Result<(), ErrorReply> {
    let may = by.rights.subscribe(wanted) && by.is_one_of(context.topics.rule(wanted).subscribe);
    allow(may, "topic", || format!("subscribe to {}", wanted.as_str()))?;
    allow(!presence || by.rights.presence(wanted), "presence", || format!("be told who is on {}", wanted.as_str()))
}

/// Refuses to replay to a subscription what was published before, which it asked for with this field, if it did.
pub(super) fn may_have_replayed(by: &Identity, wanted: &TopicPattern, field: Option<&str>) -> Result<(), ErrorReply> {
    let may = field.is_none() || by.rights.history(wanted);
    allow(may, field.unwrap_or_default(), || format!("read the history of {}", wanted.as_str()))
}

/// Refuses who may not negotiate connections between browsers.
pub(crate) fn may_signal(by: &Identity) -> Result<(), ErrorReply> {
    allow(by.rights.signal, "to", || "signal to single clients".into())
}

fn allow(may: bool, field: &str, what: impl FnOnce() -> String) -> Result<(), ErrorReply> {
    if may {
        return Ok(());
    }
    Err(ErrorReply::new(ErrorCode::Forbidden, format!("{field}: this client may not {}", what())))
}

impl Identity {
    fn is_one_of(&self, who: Who) -> bool {
        who.allows(self.user.is_some())
    }
}
