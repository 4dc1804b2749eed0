//! `ack`: a client reports what became of messages that a durable consumer has sent to it.

use std::sync::Arc;

use super::client::Client;
use super::consumers::Dispatcher;
use super::{TopicError, Topics};
use crate::consumer::{MemberId, Outcome};
use crate::message::{Ack, AckOutcome};

impl Topics {
    /// Acknowledges, if that needs no waiting. Gives how many messages it concerned. `None`:
    /// [`acknowledge`](Self::acknowledge) has to wait for it.
    pub(crate) fn acknowledge_now(
        &self,
        who: &Client,
        ack: &Ack,
        is_answered: bool,
    ) -> Option<Result<u64, TopicError>> {
        // A copy of what is rejected may have to be published first, and the reply may have to wait for the disk.
        let waits_for_disk = is_answered && self.rule_of(&ack.topic).is_durable();
        if ack.outcome == AckOutcome::Reject || waits_for_disk {
            return None;
        }
        Some(
            self.member(who, ack)
                .map(|member| member.map_or(0, |(of, id)| of.acknowledge(id, &ack.offsets, ack.outcome.into()))),
        )
    }

    /// Acknowledges. Cancel safe: dropped while it waits, it has acknowledged all the same.
    pub(crate) async fn acknowledge(&self, who: &Client, ack: &Ack, is_answered: bool) -> Result<u64, TopicError> {
        if let Some(acked) = self.acknowledge_now(who, ack, is_answered) {
            return acked;
        }
        let Some((of, id)) = self.member(who, ack)? else { return Ok(0) };
        let count = of.acknowledge(id, &ack.offsets, ack.outcome.into());
        if let Some(topic) = self.find(&ack.topic) {
            // If that is not possible now, the consumer tries again by itself.
            let _ = of.bury_dead(&topic, who.outbound.counters()).await;
        }
        if is_answered {
            of.saved().await?;
        }
        Ok(count)
    }

    /// The client's part in a consumer; `None` if it has none, so that nothing can be in flight to it.
    fn member(&self, who: &Client, ack: &Ack) -> Result<Option<(Arc<Dispatcher>, MemberId)>, TopicError> {
        let Ack { topic, durable, .. } = ack;
        if let Some(member) = who.membership(topic, durable) {
            return Ok(Some(member));
        }
        let is_there = self.find_stored(topic).is_some_and(|topic| topic.has_consumer(durable));
        let refused = || TopicError::NoConsumer { topic: topic.clone(), durable: durable.clone() };
        is_there.then_some(None).ok_or_else(refused)
    }
}

impl From<AckOutcome> for Outcome {
    fn from(outcome: AckOutcome) -> Self {
        match outcome {
            AckOutcome::Done => Self::Done,
            AckOutcome::Retry { delay_ms } => Self::Retry { delay_ms: delay_ms.unwrap_or(0) },
            AckOutcome::Reject => Self::Reject,
        }
    }
}
