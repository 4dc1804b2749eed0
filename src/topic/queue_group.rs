//! The queue group of one topic: subscriptions that share its messages, each of which goes to one of them, at most
//! once. The member is chosen under the topic's lock, and told apart at its worker by its client's id.

use std::sync::Arc;

use quic_websocket_lane::LaneWriter;
use uuid::Uuid;

/// The members, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct QueueGroup {
    members: Vec<GroupMember>,
    /// Whose turn it is.
    next: usize,
}

#[derive(Debug)]
struct GroupMember {
    client: Uuid,
    worker: usize,
    lane: Arc<LaneWriter>,
}

/// The member that gets a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) client: Uuid,
    pub(super) worker: usize,
}

impl QueueGroup {
    pub(super) fn add(&mut self, client: Uuid, worker: usize, lane: Arc<LaneWriter>) {
        self.members.push(GroupMember { client, worker, lane });
    }

    pub(super) fn remove(&mut self, client: Uuid) {
        let Some(at) = self.members.iter().position(|member| member.client == client) else { return };
        self.members.remove(at);
        if at < self.next {
            self.next -= 1;
        }
    }

    /// Members on one worker.
    pub(super) fn on(&self, worker: usize) -> u32 {
        let count = self.members.iter().filter(|member| member.worker == worker).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The next member whose lane has room; if none has, the next one, whose lane's policy then decides. `None` without
    /// members.
    pub(super) fn choose(&mut self) -> Option<Chosen> {
        let count = self.members.len();
        if count == 0 {
            return None;
        }
        let in_turn = (self.next..self.next + count).map(|at| at % count);
        let at = in_turn.clone().find(|&at| self.members[at].lane.has_room()).unwrap_or(self.next % count);
        self.next = (at + 1) % count;
        let GroupMember { client, worker, .. } = self.members[at];
        Some(Chosen { client, worker })
    }
}
