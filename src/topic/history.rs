//! `history`: a page of what a topic's log keeps.

use super::{Topics, uptime_ms};
use crate::log::Entry;
use crate::message::{Position, TopicName};

/// Some messages of a topic's log.
#[derive(Debug)]
pub(crate) struct HistoryPage {
    /// The newest message's.
    pub(crate) position: Position,
    /// Whether the log still has everything behind the position that was asked for; `None` if none was, or in reverse.
    pub(crate) recovered: Option<bool>,
    pub(crate) entries: Vec<Entry>,
    /// Whether there are more of them.
    pub(crate) more: bool,
}

impl Topics {
    /// A page of at most `limit` messages: those behind `since`, oldest first, or in reverse those before it, newest first.
    /// A topic that has no messages, or does not exist yet, has an empty page and a position; reading does not create it.
    pub(crate) fn history(
        &self,
        name: &TopicName,
        since: Option<&Position>,
        limit: usize,
        reverse: bool,
    ) -> HistoryPage {
        let behind = since.filter(|_| !reverse);
        let topic = match self.look_up(name) {
            Ok(topic) => topic,
            Err(epoch) => {
                let recovered = behind.map(|since| since.epoch == *epoch && since.offset == 0);
                let position = Position { epoch: epoch.into(), offset: 0 };
                return HistoryPage { position, recovered, entries: Vec::new(), more: false };
            }
        };
        let mut state = topic.state();
        self.account(&topic, &mut state, uptime_ms());
        let recovered = state.log.start(behind, None).recovered;
        // A position in another life of the log is before, or in reverse behind, all of this one.
        let since = since.filter(|since| since.epoch == state.log.epoch()).map(|since| since.offset);
        let (entries, more) = if reverse {
            let mut newest_first = state.log.before(since.unwrap_or(u64::MAX)).rev();
            (newest_first.by_ref().take(limit).cloned().collect(), newest_first.len() > 0)
        } else {
            let mut oldest_first = state.log.after(since.unwrap_or(0));
            (oldest_first.by_ref().take(limit).cloned().collect(), oldest_first.len() > 0)
        };
        let position = Position { epoch: state.log.epoch().to_owned(), offset: state.log.newest() };
        HistoryPage { position, recovered: recovered.map(|recovered| recovered.is_ok()), entries, more }
    }
}
