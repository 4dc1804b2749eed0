//! What each message does: one file, or one short arm, for each. The only room that knows them all. It knows clients by
//! their ids and the registry, never by their carrier, so that every carrier and the HTTP API get the same effects.

mod deliver;
mod list_clients;
mod replies;

use std::fmt;
use std::sync::Arc;

use tracing::{debug, info};
use uuid::Uuid;

pub(crate) use self::replies::Replies;
use crate::config::{Config, MessageLog};
use crate::message::{ClientMessage, Close, ErrorCode, ErrorReply, Request, ServerMessage, now_ms};
use crate::printable::Printable;
use crate::registry::Registry;

/// What handling a message needs of the server.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) registry: Arc<Registry>,
}

/// What comes of a message that can be answered without waiting.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was answered, or needs no answer.
    Done,
    /// It has to wait for others: see [`carry_out`].
    Later(Request),
    /// The client wants to leave.
    Leave(Close),
}

/// Answers what can be answered at once, into `replies`.
pub(crate) fn answer(context: &Context, from: Uuid, request: Request, replies: &mut Replies) -> Outcome {
    let Request { id, message } = request;
    match message {
        ClientMessage::Text { content } => {
            context.log_message(format_args!("Text message from {from}: {}", Printable::excerpt(&content)));
            replies.echo_text(&content, id.as_ref(), now_ms());
        }
        ClientMessage::Binary { attachment } => {
            context.log_message(format_args!("Binary message from {from}: {} bytes", attachment.len()));
            replies.echo_binary(attachment, id.as_ref(), now_ms());
        }
        ClientMessage::Ping { timestamp } => {
            context.log_message(format_args!("Ping from {from}"));
            replies.put(id.as_ref(), &ServerMessage::Pong { timestamp, server_time: now_ms() });
        }
        // A sign of life, which its arrival already was.
        ClientMessage::Pong => {}
        ClientMessage::Close(close) => return Outcome::Leave(close),
        ClientMessage::Handshake(_) => {
            let message = "handshake: done already on this connection; open another one to start anew";
            replies.put(id.as_ref(), &error(ErrorCode::Conflict, message));
        }
        ClientMessage::ListClients { limit, after } => {
            replies.put(id.as_ref(), &list_clients::list_clients(context, limit, after));
        }
        ClientMessage::Subscribe(_)
        | ClientMessage::Unsubscribe { .. }
        | ClientMessage::Publish { .. }
        | ClientMessage::History { .. }
        | ClientMessage::Presence { .. } => {
            let message = format!("{}: this server serves no topics", message.type_name());
            replies.put(id.as_ref(), &error(ErrorCode::NotServed, message));
        }
        message @ (ClientMessage::Broadcast(_) | ClientMessage::Direct { .. } | ClientMessage::Signal { .. }) => {
            return Outcome::Later(Request { id, message });
        }
    }
    Outcome::Done
}

/// Carries out what [`answer`] put off, and gives the reply where there is one.
pub(crate) async fn carry_out(context: &Context, from: Uuid, request: Request) -> Option<ServerMessage> {
    let wants_reply = request.id.is_some();
    match request.message {
        ClientMessage::Broadcast(payload) => deliver::broadcast(context, from, payload, wants_reply).await,
        ClientMessage::Direct { to, payload } => {
            context.log_message(format_args!("Direct message from {from} to {to}"));
            let message = ServerMessage::Direct { from, payload, timestamp: now_ms() };
            deliver::to_one(context, to, &message, wants_reply).await
        }
        ClientMessage::Signal { to, data } => {
            context.log_message(format_args!("Signal from {from} to {to}"));
            let message = ServerMessage::Signal { from, data, timestamp: now_ms() };
            deliver::to_one(context, to, &message, wants_reply).await
        }
        _ => None,
    }
}

/// An `error` reply.
pub(crate) fn error(code: ErrorCode, message: impl Into<String>) -> ServerMessage {
    ServerMessage::Error(ErrorReply { code: code.number(), message: message.into(), retry_after_ms: None })
}

impl Context {
    /// Writes the line about one message, at the level that the configuration gives these.
    pub(crate) fn log_message(&self, line: fmt::Arguments<'_>) {
        match self.config.log.messages {
            MessageLog::Debug => debug!("{line}"),
            MessageLog::Info => info!("{line}"),
        }
    }

    /// Whether the lines about single messages are written at all.
    pub(crate) fn logs_messages(&self) -> bool {
        self.config.log.messages == MessageLog::Info || tracing::enabled!(tracing::Level::DEBUG)
    }

    pub(crate) fn compress_min_bytes(&self) -> usize {
        usize::try_from(self.config.limits.compress_min_bytes).unwrap_or(usize::MAX)
    }
}
