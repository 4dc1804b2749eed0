//! The members of a topic as an application keeps them: the list of the server, and what comes after it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::event::TopicEvent;
use crate::message::Member;

/// The members of one topic, kept up to date by the events of a subscription with
/// [`presence`](super::SubscribeBuilder::presence).
///
/// Load them once it is made, and again after each [`TopicEvent::Missed`]; give it all other events. It does not matter
/// whether an event was sent before or after the list was made.
///
/// ```no_run
/// # async fn f(client: quic_websocket_client::Client) -> Result<(), quic_websocket_client::ClientError> {
/// use quic_websocket_client::{Members, TopicEvent};
///
/// let mut room = client.subscribe("chat.lobby").presence(true).await?;
/// let mut members = Members::from(client.members("chat.lobby").await?);
/// while let Some(event) = room.next().await {
///     if matches!(event, TopicEvent::Missed(_)) {
///         members = Members::from(client.members("chat.lobby").await?);
///     } else if members.apply(&event) {
///         println!("{} are here", members.len());
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members(BTreeMap<Key, Member>);

/// What does not change of a member while it is there: a user stays when the first of its clients leaves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Client(Uuid),
    User(String),
}

impl Key {
    fn of(member: &Member) -> Self {
        match (&member.clients, &member.user) {
            (Some(_), Some(user)) => Self::User(user.clone()),
            _ => Self::Client(member.id),
        }
    }
}

impl Members {
    /// Takes an event. True if it was about a member.
    pub fn apply(&mut self, event: &TopicEvent) -> bool {
        match event {
            TopicEvent::Join { member, .. } | TopicEvent::State { member, .. } => self.put(member),
            TopicEvent::Return { member, was, .. } => {
                self.0.remove(&Key::Client(*was));
                self.put(member);
            }
            TopicEvent::Leave { member, .. } => drop(self.0.remove(&self.key_of(member))),
            _ => return false,
        }
        true
    }

    fn put(&mut self, member: &Member) {
        let key = self.key_of(member);
        let mut member = member.clone();
        if let Some(before) = self.0.get(&key) {
            member.clients = member.clients.or(before.clients);
        }
        self.0.insert(key, member);
    }

    /// An event about a user need not say how many clients the user has.
    fn key_of(&self, member: &Member) -> Key {
        let user = member.user.clone().map(Key::User).filter(|user| self.0.contains_key(user));
        user.unwrap_or_else(|| Key::of(member))
    }

    /// The members.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.values()
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<Member>> for Members {
    fn from(list: Vec<Member>) -> Self {
        Self(list.into_iter().map(|member| (Key::of(&member), member)).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(n: u128, user: Option<&str>) -> Member {
        Member::new(Uuid::from_u128(n), None, user.map(str::to_owned))
    }

    #[test]
    fn a_user_stays_one_member_while_clients_come_and_go() {
        let mut ada = member(1, Some("ada"));
        ada.clients = Some(2);
        let mut members = Members::from(vec![ada, member(2, None)]);
        let topic = || "t".to_owned();
        assert!(members.apply(&TopicEvent::State { topic: topic(), member: member(3, Some("ada")) }));
        assert_eq!((members.len(), members.iter().find_map(|member| member.clients)), (2, Some(2)));
        assert!(members.apply(&TopicEvent::Leave { topic: topic(), member: member(3, Some("ada")) }));
        assert!(!members.apply(&TopicEvent::Occupancy { topic: topic(), clients: 1, users: 0 }));
        assert_eq!((members.len(), members.is_empty()), (1, false));
    }

    proptest! {
        /// The list is made at any time between the subscription and the last event.
        #[test]
        fn members_are_those_of_the_server(steps in proptest::collection::vec(0..4_u8, 0..60), made in 0..60_usize) {
            let (mut server, mut events, mut born) = (BTreeMap::new(), Vec::new(), 0);
            let mut list = Vec::new();
            for (at, step) in steps.iter().enumerate() {
                if at == made {
                    list = server.values().cloned().collect();
                }
                let topic = "t".to_owned();
                let first = server.keys().next().copied();
                born += 1;
                match (step, first) {
                    (1, Some(id)) => {
                        let member = server.remove(&id).expect("it is there");
                        events.push(TopicEvent::Leave { topic, member });
                    }
                    (2, Some(id)) => {
                        let member: &mut Member = server.get_mut(&id).expect("it is there");
                        member.state = Some((&serde_json::json!(born)).into());
                        events.push(TopicEvent::State { topic, member: member.clone() });
                    }
                    (3, Some(was)) => {
                        server.remove(&was);
                        let member = member(born, None);
                        server.insert(member.id, member.clone());
                        events.push(TopicEvent::Return { topic, member, was });
                    }
                    _ => {
                        let member = member(born, None);
                        server.insert(member.id, member.clone());
                        events.push(TopicEvent::Join { topic, member });
                    }
                }
            }
            let mut members = Members::from(list);
            for event in &events {
                prop_assert!(members.apply(event));
            }
            let kept: Vec<_> = members.iter().cloned().collect();
            prop_assert_eq!(kept, server.into_values().collect::<Vec<_>>());
        }
    }
}
