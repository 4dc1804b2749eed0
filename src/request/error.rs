//! Why a request is not opened, and why it ends without a reply. `handler` derives the codes.

use thiserror::Error;

use crate::message::{CallTarget, Recipient, RequestId};

/// Why a request is not opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum NotOpened {
    #[error("id: another open request of this client has the id {0}")]
    SameId(RequestId),
    #[error("request: this client has {0} open requests, and may have no more; wait for replies first")]
    TooMany(usize),
    #[error("{}", no_responder(.0))]
    NoResponder(CallTarget),
    #[error("{}: all that answer here have as many open requests as they may; try again later", field_of(.0))]
    AllFull(CallTarget),
}

/// The field of a request that names its target.
fn field_of(to: &CallTarget) -> &'static str {
    match to {
        CallTarget::Topic(_) => "topic",
        CallTarget::Recipient(Recipient::Client(_)) => "to",
        CallTarget::Recipient(Recipient::User(_)) => "user",
    }
}

fn no_responder(to: &CallTarget) -> String {
    match to {
        CallTarget::Topic(topic) => format!("topic: no subscriber of {} answers requests", topic.as_str()),
        CallTarget::Recipient(Recipient::Client(id)) => {
            format!("to: no client {id} is connected that answers requests")
        }
        CallTarget::Recipient(Recipient::User(_)) => {
            "user: no client of this user is connected that answers requests".to_owned()
        }
    }
}

/// Why a request has ended without a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Unanswered {
    #[error("request: no reply came within {timeout_ms} ms")]
    TimedOut { timeout_ms: u64 },
    #[error("request: the client that had it left, or ended its subscription, before it replied")]
    ResponderLeft,
    #[error("request: the client that asked has left")]
    RequesterLeft,
    #[error("request: it was cancelled")]
    Cancelled,
    #[error("request: no reply came before the connection was closed")]
    Closing,
}
