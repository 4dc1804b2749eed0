//! Permissions: the one place that checks operations on topics and on other clients against the client's rights and the
//! topics' rules. Checked before an operation has any effect, and again after a wait during which the token was
//! refreshed.

use super::request::Exchange;
use super::{Context, Page, Work};
use crate::auth::Identity;
use crate::config::{TopicRule, Who};
use crate::message::{CallTarget, ConsumerRequest, ErrorCode, ErrorReply, Payload, Recipient, TopicName, TopicPattern};

/// Refuses work that the client may not request.
pub(super) fn work(context: &Context, by: &Identity, work: &Work) -> Result<(), ErrorReply> {
    let rights = &by.rights;
    match work {
        Work::Publish(publication) => may_publish(context, by, &publication.topic),
        Work::Subscribe(wanted) => {
            may_subscribe(context, by, &wanted.topic, wanted.presence || wanted.occupancy)?;
            let durable = wanted.consumer.as_ref().and_then(ConsumerRequest::durable);
            let fields = [
                ("since", wanted.since.is_some()),
                ("since_time", wanted.since_time.is_some()),
                ("recent", wanted.recent.is_some()),
                ("durable", durable.is_some()),
            ];
            let field = fields.into_iter().find(|(_, is_set)| *is_set).map(|(field, _)| field);
            may_have_replayed(context, by, &wanted.topic, field)
        }
        Work::Ack(ack) => {
            let topic = ack.topic.clone().into();
            may_subscribe(context, by, &topic, false)?;
            may_have_replayed(context, by, &topic, Some("topic"))
        }
        Work::Broadcast(_) => allow(rights.broadcast, "broadcast", || "send to all clients".into()),
        Work::Direct { .. } => allow(rights.direct, "to", || "send to single clients".into()),
        Work::Signal { .. } => may_signal(by),
        // These concern only what the client already has.
        Work::Unsubscribe { .. } | Work::Refresh(_) => Ok(()),
        Work::Exchange(exchange) => may_exchange(context, by, exchange),
    }
}

/// Refuses a message for others whose `meta` is too long.
pub(super) fn payload(context: &Context, work: &Work) -> Result<(), ErrorReply> {
    match work {
        Work::Broadcast(payload) | Work::Direct { payload, .. } => meta(context, payload),
        Work::Publish(publication) => meta(context, &publication.draft.payload),
        Work::Exchange(Exchange::Call(call, _)) => meta(context, &call.payload),
        Work::Exchange(Exchange::Answer(answer)) => meta(context, &answer.payload),
        _ => Ok(()),
    }
}

/// Refuses a `meta` that is too long.
pub(super) fn meta(context: &Context, payload: &Payload) -> Result<(), ErrorReply> {
    let most = context.config.limits.meta_bytes;
    match &payload.meta {
        Some(meta) if meta.len() as u64 > most => {
            Err(ErrorReply::new(ErrorCode::BadRequest, format!("meta: at most {most} bytes are allowed here")))
        }
        _ => Ok(()),
    }
}

/// Refuses a page that the client may not read.
pub(super) fn page(context: &Context, by: &Identity, page: &Page) -> Result<(), ErrorReply> {
    let rights = &by.rights;
    match page {
        Page::Clients { .. } => allow(rights.list_clients, "list_clients", || "list who is connected".into()),
        Page::History { topic, .. } => {
            let (pattern, rule) = (topic.clone().into(), context.topics.rule_of(topic));
            let may = by.owns(rule, &pattern) || rights.history(&pattern) && by.may_get(rule, &pattern);
            allow(may, "topic", || format!("read the history of {}", topic.as_str()))
        }
        Page::Members { topic, .. } => {
            let (pattern, rule) = (topic.clone().into(), context.topics.rule_of(topic));
            let may = rights.presence(&pattern) && (by.owns(rule, &pattern) || by.may_get(rule, &pattern));
            allow(may, "topic", || format!("ask who is on {}", topic.as_str()))
        }
    }
}

fn may_publish(context: &Context, by: &Identity, topic: &TopicName) -> Result<(), ErrorReply> {
    let may = by.rights.publish(topic.as_str()) && by.is_one_of(context.topics.rule_of(topic).publish);
    allow(may, "topic", || format!("publish to {}", topic.as_str()))
}

fn may_exchange(context: &Context, by: &Identity, exchange: &Exchange) -> Result<(), ErrorReply> {
    match exchange {
        Exchange::Call(call, _) => may_call(context, by, &call.to),
        // The client was asked, or has asked.
        Exchange::Answer(_) | Exchange::Cancel(_) | Exchange::Cancelled(_) => Ok(()),
    }
}

/// Refuses a request to others that the client may not ask.
pub(super) fn may_call(context: &Context, by: &Identity, to: &CallTarget) -> Result<(), ErrorReply> {
    match to {
        CallTarget::Topic(topic) => may_publish(context, by, topic),
        CallTarget::Recipient(to) => {
            let field = if matches!(to, Recipient::User(_)) { "user" } else { "to" };
            allow(by.rights.direct, field, || "send to single clients".into())
        }
    }
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
    let rule = context.topics.rule(wanted);
    let may = by.owns(rule, wanted) || by.rights.subscribe(wanted) && by.may_get(rule, wanted);
    allow(may, "topic", || format!("subscribe to {}", wanted.as_str()))?;
    allow(!presence || by.rights.presence(wanted), "presence", || format!("see who is on {}", wanted.as_str()))
}

/// Refuses the replay of earlier messages, requested with this field if any, to a client without the right to read
/// history.
pub(super) fn may_have_replayed(
    context: &Context,
    by: &Identity,
    wanted: &TopicPattern,
    field: Option<&str>,
) -> Result<(), ErrorReply> {
    let may = field.is_none() || by.rights.history(wanted) || by.owns(context.topics.rule(wanted), wanted);
    allow(may, field.unwrap_or_default(), || format!("read the history of {}", wanted.as_str()))
}

/// Refuses a subscription to a pattern that brings what is in the inboxes of users, once the client may not have that.
pub(super) fn may_keep_inboxes(by: &Identity, wanted: &TopicPattern, inboxes: bool) -> Result<(), ErrorReply> {
    allow(!inboxes || by.rights.inboxes(wanted), "topic", || format!("read the inboxes in {}", wanted.as_str()))
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

    /// Whether the rule of these topics lets the client have them.
    fn may_get(&self, rule: &TopicRule, wanted: &TopicPattern) -> bool {
        self.is_one_of(rule.subscribe) && (!rule.inbox || self.rights.inboxes(wanted))
    }

    /// Whether this is the client's own inbox, which no permission is needed to read.
    fn owns(&self, rule: &TopicRule, wanted: &TopicPattern) -> bool {
        let inbox = self.user.as_deref().and_then(|user| rule.inbox_of(user));
        inbox.is_some_and(|inbox| inbox.as_str() == wanted.as_str())
    }
}
