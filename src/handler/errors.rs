//! `error` replies: the one place that maps errors of lower layers to codes and texts.

use quic_websocket_store::Refusal;

use crate::auth::Denied;
use crate::message::{ErrorCode, ErrorReply, ServerMessage};
use crate::request::{NotOpened, Unanswered};
use crate::topic::TopicError;

/// Time after which a publish that the store had no room for is worth another try.
const STORE_RETRY_MS: u64 = 100;
/// Time after which a request is worth another try for which none that answers had room.
const REQUEST_RETRY_MS: u64 = 100;

/// Creates an `error` reply.
pub(crate) fn error(code: ErrorCode, message: impl Into<String>) -> ServerMessage {
    ServerMessage::Error(ErrorReply::new(code, message))
}

impl From<TopicError> for ErrorReply {
    fn from(error: TopicError) -> Self {
        let (code, retry_after_ms) = match error {
            TopicError::TooManyTopics(_)
            | TopicError::TooManyStored(_)
            | TopicError::Blocked { .. }
            | TopicError::Unsure { .. }
            | TopicError::NotRead { .. }
            | TopicError::Closing
            | TopicError::ConsumerUnreadable { .. }
            | TopicError::ConsumerUnsure { .. }
            | TopicError::ConsumerNotMade { .. }
            | TopicError::TooManyConsumers { .. }
            | TopicError::ServerFullOfConsumers(_)
            | TopicError::TooManyMembers { .. } => (ErrorCode::Unavailable, None),
            TopicError::NotStored { refusal, .. } => match refusal {
                Refusal::TooLong => (ErrorCode::TooLarge, None),
                Refusal::Busy => (ErrorCode::Unavailable, Some(STORE_RETRY_MS)),
                Refusal::Full | Refusal::Failed | Refusal::Closed => (ErrorCode::Unavailable, None),
            },
            TopicError::TooManyNewTopics { retry_after_ms, .. } => (ErrorCode::RateLimited, Some(retry_after_ms)),
            TopicError::Filter(_) => (ErrorCode::BadRequest, None),
            TopicError::TooManySubscriptions(_) => (ErrorCode::Forbidden, None),
            TopicError::Subscribed(_)
            | TopicError::NoConsumers(_)
            | TopicError::NoHistory(_)
            | TopicError::OtherConsumer { .. } => (ErrorCode::Conflict, None),
            TopicError::NotSubscribed(_)
            | TopicError::NoMembers(_)
            | TopicError::OnlyCounts(_)
            | TopicError::NoConsumer { .. } => (ErrorCode::NotFound, None),
        };
        let field = match error {
            TopicError::Filter(_) => "filter",
            _ if error.is_about_consumers() => "durable",
            _ => "topic",
        };
        let reply = Self::new(code, format!("{field}: {error}"));
        match retry_after_ms {
            Some(after) => reply.with_retry_after_ms(after),
            None => reply,
        }
    }
}

impl From<NotOpened> for ErrorReply {
    fn from(refused: NotOpened) -> Self {
        let (code, retry_after_ms) = match refused {
            NotOpened::SameId(_) => (ErrorCode::Conflict, None),
            NotOpened::TooMany(_) => (ErrorCode::RateLimited, None),
            NotOpened::NoResponder(_) => (ErrorCode::NotFound, None),
            NotOpened::AllFull(_) => (ErrorCode::Unavailable, Some(REQUEST_RETRY_MS)),
        };
        let reply = Self::new(code, refused.to_string());
        match retry_after_ms {
            Some(after) => reply.with_retry_after_ms(after),
            None => reply,
        }
    }
}

impl From<Unanswered> for ErrorReply {
    fn from(why: Unanswered) -> Self {
        let code = match why {
            Unanswered::TimedOut { .. } => ErrorCode::NoReply,
            Unanswered::ResponderLeft => ErrorCode::ResponderLeft,
            Unanswered::Cancelled => ErrorCode::Cancelled,
            Unanswered::RequesterLeft | Unanswered::Closing => ErrorCode::Unavailable,
        };
        Self::new(code, why.to_string())
    }
}

impl From<Denied> for ErrorReply {
    fn from(denied: Denied) -> Self {
        let code = match denied {
            Denied::Required(_) | Denied::BadToken(_) | Denied::BadCertificate | Denied::UsedBefore => {
                ErrorCode::Unauthorized
            }
            Denied::AnotherUser => ErrorCode::Forbidden,
            Denied::Unavailable => ErrorCode::Unavailable,
        };
        Self::new(code, denied.to_string())
    }
}
