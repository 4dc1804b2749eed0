//! A member's mailbox, on its way to the member's lane.

use std::ops::RangeInclusive;
use std::sync::Arc;

use quic_websocket_lane::{DropNotice, Gap, Overflow};

use super::{Dispatcher, Mail, Mailbox, Member};
use crate::consumer::MemberId;
use crate::log::Record;
use crate::message::ConsumerName;
use crate::outbound::EncodedRun;
use crate::topic::uptime_ms;

/// Something that goes out to a member now.
enum Post {
    /// Messages, each with the number of its deliveries.
    Run(Vec<(Record, u32)>),
    Gap(RangeInclusive<u64>, Arc<dyn DropNotice>),
}

impl Dispatcher {
    /// Sends what comes into a member's mailbox, as its lane takes it. Returns when the lane has failed.
    pub(super) async fn deliver(self: &Arc<Self>, id: MemberId, member: &Member) {
        let (lane, outbound) = (&member.lane, &member.client.outbound);
        loop {
            // What it has got before has gone on into QUIC before it gets more: the time for its acknowledgement runs.
            if !lane.is_idle() {
                // Others may have its messages meanwhile.
                self.pause(id);
                let _one_at_a_time = lane.replay_turn().await;
                if let Err(failure) = lane.passed().await {
                    return outbound.lane_failed(failure);
                }
            }
            if self.resume(id) {
                member.mail.notified().await;
            }
            if !lane.has_room() {
                continue;
            }
            for post in self.take_mail(id) {
                match post {
                    Post::Run(messages) => {
                        let source: Arc<dyn DropNotice> = Arc::<Self>::clone(self);
                        let run = run(self.name(), self.topic.as_str(), source, messages);
                        // They may wait beyond the lane's bounds, for they are few.
                        let sent = outbound.deliver_on(lane, &run, Overflow::Append);
                        outbound.counters().sent(sent);
                    }
                    Post::Gap(lost, source) => {
                        let gap = Gap { source, first: *lost.start(), last: *lost.end(), group: None };
                        outbound.deliver_gap(lane, gap);
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// A member takes nothing at present: its mail goes back.
    fn pause(&self, id: MemberId) {
        let mut state = self.state();
        state.consumer.set_ready(id, false);
        state.consumer.take_back(id);
        if let Some((_, mailbox)) = state.members.get_mut(&id) {
            // A gap is not news that gets old.
            mailbox.mail.retain(|mail| matches!(mail, Mail::Gap(..)));
            mailbox.bytes = 0;
        }
        self.changed.notify_one();
    }

    /// A member takes messages again. Gives whether its mailbox is empty.
    fn resume(&self, id: MemberId) -> bool {
        let mut state = self.state();
        let is_empty = state.members.get(&id).is_none_or(|(_, mailbox)| mailbox.mail.is_empty());
        if is_empty && state.consumer.set_ready(id, true) {
            self.changed.notify_one();
        }
        is_empty
    }

    /// Empties a member's mailbox: what was in it counts as sent from now on.
    fn take_mail(&self, id: MemberId) -> Vec<Post> {
        let now = uptime_ms();
        let mut state = self.state();
        let Some((_, mailbox)) = state.members.get_mut(&id) else { return Vec::new() };
        let Mailbox { mail, .. } = std::mem::take(mailbox);
        let (mut posts, mut again) = (Vec::new(), 0);
        for mail in mail {
            match mail {
                Mail::Gap(lost, source) => posts.push(Post::Gap(lost, source)),
                Mail::Message(record) => {
                    // Unless it was acknowledged meanwhile.
                    let Some(tries) = state.consumer.send(id, record.offset, now) else { continue };
                    again += usize::from(tries > 1);
                    match posts.last_mut() {
                        Some(Post::Run(run)) => run.push((record, tries)),
                        _ => posts.push(Post::Run(vec![(record, tries)])),
                    }
                }
            }
        }
        let is_changed = !posts.is_empty() && state.changed();
        let is_earlier = state.consumer.due_ms().is_some_and(|due_ms| due_ms < state.looks_ms);
        if is_earlier || is_changed {
            self.changed.notify_one();
        }
        let counters = state.members.get(&id).map(|(member, _)| member.client.outbound.counters());
        if let Some(counters) = counters.filter(|_| again > 0) {
            counters.redelivered.add(again);
        }
        posts
    }
}

/// The messages as this consumer's members get them.
fn run(consumer: &ConsumerName, topic: &str, source: Arc<dyn DropNotice>, messages: Vec<(Record, u32)>) -> EncodedRun {
    let encode = |(record, tries): (Record, u32)| {
        let encoded = record.encoded.for_consumer((topic, record.offset), (consumer.as_str(), tries.into()));
        (encoded, record.offset)
    };
    let (envelopes, offsets) = messages.into_iter().map(encode).unzip();
    EncodedRun::of_topic(envelopes, source, offsets)
}
