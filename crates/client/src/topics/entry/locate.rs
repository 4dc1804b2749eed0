//! Where the recent messages begin that a subscription was to get on the connection before: asked for by `history`.

use super::{Entry, PASSING, Recent, Stage};
use crate::ClientError;
use crate::message::{ClientMessage, ErrorCode, MAX_PAGE, Position, ServerMessage, TopicName};
use crate::topics::history::offset_of;

impl Entry {
    /// Asks for the recent messages that were to come on the connection before, to learn the offset of the oldest: page
    /// by page, because a page is bounded in messages and in bytes.
    pub(super) fn locate(&self) -> Option<ClientMessage> {
        let recent = self.recent.filter(|_| self.opened.is_none() && !self.is_datagram())?;
        let epoch = self.seen.as_ref()?.epoch.as_ref().to_owned();
        Some(ClientMessage::History {
            topic: TopicName::new(self.request.topic.as_str()).ok()?,
            since: Some(Position { epoch, offset: recent.newest + 1 }),
            since_time: None,
            limit: recent.count.min(MAX_PAGE),
            reverse: true,
        })
    }

    /// The server's answer to [`locate`](Self::locate): the subscription resumes before the oldest of the messages, or
    /// behind all of them if they are gone; [`locate`](Self::locate) has the next page if there is one. Gives a refusal
    /// back that may pass.
    pub(in crate::topics) fn located(&mut self, reply: ServerMessage) -> Result<(), ClientError> {
        let (oldest, is_whole) = match &reply {
            ServerMessage::Error(error) if PASSING.contains(&error.code) => {
                return Err(ClientError::Server(error.clone()));
            }
            ServerMessage::Error(error) => (None, error.code == ErrorCode::NotFound.number()),
            ServerMessage::History { epoch, messages, more, .. } => {
                let oldest = messages.last().and_then(|oldest| offset_of(oldest));
                let got = u64::try_from(messages.len()).unwrap_or(u64::MAX);
                let left = self.recent.map_or(0, |recent| recent.count.saturating_sub(got));
                if let (Some(recent), Some(seen), Some(oldest)) = (&mut self.recent, &self.seen, oldest)
                    && *more
                    && left > 0
                    && (1..=recent.newest).contains(&oldest)
                    && *seen.epoch == **epoch
                {
                    *recent = Recent { count: left, newest: oldest - 1 };
                    self.stage = Stage::Wanted;
                    return Ok(());
                }
                (oldest, !more || left == 0)
            }
            _ => (None, false),
        };
        self.stage = Stage::Wanted;
        let (Some(recent), Some(seen)) = (self.recent.take(), &mut self.seen) else { return Ok(()) };
        if matches!(&reply, ServerMessage::History { epoch, .. } if *seen.epoch != **epoch) {
            // What is reported about the position covers these messages as well.
            return Ok(());
        }
        seen.offset = oldest.map_or(recent.newest, |oldest| oldest.saturating_sub(1));
        if !is_whole && !self.newest_wins() {
            self.missed("the connection was lost before all recent messages came".into());
        }
        Ok(())
    }
}
