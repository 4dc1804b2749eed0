//! `state`: what a member of a topic shows to the others, also as a part of `subscribe`.

use super::{Caller, Context};
use crate::message::{ErrorCode, ErrorReply, Json, ServerMessage, Subscribe, TopicName};

/// Sets a member's state. Returns the reply; `None` if none is wanted.
pub(super) fn set(
    context: &Context,
    by: &Caller,
    topic: TopicName,
    state: Option<Json>,
    is_wanted: bool,
) -> Option<ServerMessage> {
    let id = by.client.id();
    log_message!(context, client = %id, topic = topic.as_str(), "State of {id} on {}", topic.as_str());
    let set = kept(context, state).and_then(|state| Ok(context.topics.set_state(&by.client, topic, state)?));
    match set {
        Ok(()) => is_wanted.then_some(ServerMessage::Ok { delivered: None, acked: None, topic: None }),
        Err(refused) => Some(ServerMessage::Error(refused)),
    }
}

/// Checks the first state of a subscription.
pub(super) fn of_subscription(context: &Context, mut wanted: Subscribe) -> Result<Subscribe, ErrorReply> {
    wanted.state = kept(context, wanted.state)?;
    Ok(wanted)
}

/// A state as it is kept: in memory of its own, because the message that brought it may be longer.
fn kept(context: &Context, state: Option<Json>) -> Result<Option<Json>, ErrorReply> {
    let Some(state) = state.filter(|state| !state.is_null()) else { return Ok(None) };
    let most = context.config.limits.state_bytes;
    if state.len() as u64 > most {
        let why = format!("state: it has {} bytes, and at most {most} are allowed", state.len());
        return Err(ErrorReply::new(ErrorCode::BadRequest, why));
    }
    Ok(Some(state.detached()))
}
