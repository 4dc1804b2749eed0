//! Permissions: the one place that checks operations on topics and on other clients against the client's rights and the
//! topics' rules. Checked before an operation has any effect, and again after a wait during which the token was
//! refreshed.

use super::{Context, Page, Work};
use crate::auth::Identity;
use crate::config::Who;
use crate::message::{ErrorCode, ErrorReply, TopicName, TopicPattern};

/// Refuses work that the client may not request.
pub(super) fn work(context: &Context, by: &Identity, work: &Work) -> Result<(), ErrorReply> {
    let rights = &by.rights;
    match work {
        Work::Publish(publication) => may_publish(context, by, &publication.topic),
        Work::Subscribe(wanted) => {
            may_subscribe(context, by, &wanted.topic, wanted.presence)?;
            let field = (wanted.since.as_ref().map(|_| "since"))
                .or(wanted.since_time.map(|_| "since_time"))
                .or(wanted.recent.map(|_| "recent"));
            may_have_replayed(by, &wanted.topic, field)
        }
        Work::Broadcast(_) => allow(rights.broadcast, "broadcast", || "send to all clients".into()),
        Work::Direct { .. } => allow(rights.direct, "to", || "send to single clients".into()),
        Work::Signal { .. } => may_signal(by),
        // These concern only what the client already has.
        Work::Unsubscribe(_) | Work::Refresh(_) => Ok(()),
    }
}

/// Refuses a page that the client may not read.
pub(super) fn page(context: &Context, by: &Identity, page: &Page) -> Result<(), ErrorReply> {
    let rights = &by.rights;
    match page {
        Page::Clients { .. } => allow(rights.list_clients, "list_clients", || "list who is connected".into()),
        Page::History { topic, .. } => {
            let pattern = topic.clone().into();
            let may = rights.history(&pattern) && by.is_one_of(context.topics.rule_of(topic).subscribe);
            allow(may, "topic", || format!("read the history of {}", topic.as_str()))
        }
        Page::Members(topic) => {
            let pattern = topic.clone().into();
            let may = rights.presence(&pattern) && by.is_one_of(context.topics.rule_of(topic).subscribe);
            allow(may, "topic", || format!("ask who is on {}", topic.as_str()))
        }
    }
}

fn may_publish(context: &Context, by: &Identity, topic: &TopicName) -> Result<(), ErrorReply> {
    let may = by.rights.publish(topic.as_str()) && by.is_one_of(context.topics.rule_of(topic).publish);
    allow(may, "topic", || format!("publish to {}", topic.as_str()))
}

/// Whether a subscriber may not publish. A pattern is not a topic name, so it is never read-only.
pub(super) fn is_read_only(context: &Context, by: &Identity, wanted: &TopicPattern) -> bool {
    TopicName::new(wanted.as_str()).is_ok_and(|topic| may_publish(context, by, &topic).is_err())
}

/// Refuses a subscription, new or existing.
pub(super) fn may_subscribe(
    context: &Context,
    by: &Identity,
    wanted: &TopicPattern,
    presence: bool,
) -> Result<(), ErrorReply> {
    let may = by.rights.subscribe(wanted) && by.is_one_of(context.topics.rule(wanted).subscribe);
    allow(may, "topic", || format!("subscribe to {}", wanted.as_str()))?;
    allow(!presence || by.rights.presence(wanted), "presence", || format!("see who is on {}", wanted.as_str()))
}

/// Refuses the replay of earlier messages, requested with this field if any, to a client without the right to read
/// history.
pub(super) fn may_have_replayed(by: &Identity, wanted: &TopicPattern, field: Option<&str>) -> Result<(), ErrorReply> {
    let may = field.is_none() || by.rights.history(wanted);
    allow(may, field.unwrap_or_default(), || format!("read the history of {}", wanted.as_str()))
}

/// Refuses a client that may not signal to others (to negotiate WebRTC).
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
    fn is_one_of(&self, audience: Who) -> bool {
        audience.allows(self.user.is_some())
    }
}
